"""Exact parameters, multiply-accumulates and peak activation memory, from the tables of a space; nothing is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nas_engine.ops.cost_estimate import cost_estimate
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture


class AnalyticCost:
    """A `CostModel` over the tables of a space: one call of the native op prices a whole batch."""

    def __init__(self, space: SearchSpace, count_dead_edges: bool = False, with_memory: bool = True) -> None:
        """Read the tables of `space`.

        Args:
            space: the space whose architectures are priced.
            count_dead_edges: price every edge of a cell as written, also those that lie on no path from input to
                output and are never built. The counts published for NAS-Bench-201 do so.
            with_memory: whether `estimate` has the column ``peak_activation_bytes``.
        """
        self._space = space
        table = space.cost_table()
        self._names = (*table.metrics, "peak_activation_bytes") if with_memory else table.metrics
        memory = space.memory_table() if with_memory else None
        counted = replace(table, cell_edges=None) if count_dead_edges else table
        self._prices = space.prices(counted, *([] if memory is None else [memory]))

    @property
    def names(self) -> tuple[str, ...]:
        """``params``, ``macs`` (of one image) and, unless switched off, ``peak_activation_bytes`` (of one image)."""
        return self._names

    def estimate(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """Costs of valid architectures of the space, float64 [n, metrics], exact below 2**53."""
        costs = cost_estimate(self._space.genes(architectures), self._prices).counts
        if len(self._names) > costs.shape[1]:  # a space without a memory table
            peaks = [self._space.peak_activation_bytes(architecture) for architecture in architectures]
            costs = np.column_stack([costs, np.array(peaks, dtype=np.int64)])
        return costs.astype(np.float64)
