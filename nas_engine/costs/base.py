"""What prices architectures: the promises every cost model keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nas_engine.types import Architecture


class CostModel(Protocol):
    """Prices architectures without training them.

    Promises: pure for tables and formulas; a measured cost is taken once for each architecture and remembered.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Metrics in column order, unit in the name: ``params``, ``macs``, ``latency_ms``, ``energy_mj`` ..."""
        ...

    def estimate(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """Costs, float64 [n, metrics]; NaN where the model does not know an architecture."""
        ...
