"""Exact parameters, multiply-accumulates and peak activation memory, from the tables of a space; nothing is built."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nas_engine.ops.cost_estimate import cost_estimate
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture


class AnalyticCost:
    """A `CostModel` over the `CostTable` of a space: one call of the native op prices a whole batch."""

    def __init__(self, space: SearchSpace, count_dead_edges: bool = False, with_memory: bool = True) -> None:
        """Read the table of `space`.

        Args:
            space: the space whose architectures are priced.
            count_dead_edges: price every edge of a cell as written, also those that lie on no path from input to
                output and are never built. The counts published for NAS-Bench-201 do so.
            with_memory: whether `estimate` has the column ``peak_activation_bytes``.
        """
        self._space = space
        self._table = space.cost_table()
        self._with_memory = with_memory
        self._cell_edges = None if count_dead_edges else self._table.cell_edges
        self._context_sizes = tuple(len(space.decisions[d].choices) for d in self._table.context_decisions)

    @property
    def names(self) -> tuple[str, ...]:
        """``params``, ``macs`` (of one image) and, unless switched off, ``peak_activation_bytes`` (of one image)."""
        return (*self._table.metrics, "peak_activation_bytes") if self._with_memory else self._table.metrics

    def estimate(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """Costs of valid architectures of the space, float64 [n, metrics], exact below 2**53."""
        genes = [architecture.genes for architecture in architectures]
        costs = cost_estimate(
            np.array(genes, dtype=np.int64).reshape(len(genes), len(self._space.decisions)),
            constant=self._table.constant,
            entries=self._table.entries,
            context_decisions=self._table.context_decisions,
            context_sizes=self._context_sizes,
            cell_edges=self._cell_edges,
            zero_choice=self._table.zero_choice,
        )
        if self._with_memory:
            peaks = [self._space.peak_activation_bytes(architecture) for architecture in architectures]
            costs = np.column_stack([costs, np.array(peaks, dtype=np.int64)])
        return costs.astype(np.float64)
