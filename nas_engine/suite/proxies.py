"""Zero-cost proxies as a benchmark gives them out: from a file, and paid for in simulated seconds."""

from __future__ import annotations

from collections.abc import Sequence

from nas_engine.proxies.base import check_proxy_names
from nas_engine.scores import FloatArray
from nas_engine.spaces.table import TableSpace
from nas_engine.types import Architecture


class SimulatedProxies:
    """Looks proxies of a table up; each architecture is charged when it is first looked at.

    Attributes:
        names: of the proxies.
        seconds: what those looked at so far cost.
    """

    def __init__(self, space: TableSpace, names: Sequence[str]) -> None:
        """Read the proxies of the table, unless that was done before.

        Raises:
            ConfigError: the table has no proxies, or none of a name, or their file cannot be used.
        """
        check_proxy_names(names, space.proxies.names)
        self.names, self.seconds = tuple(names), 0.0
        self._space, self._columns = space, [space.proxies.names.index(name) for name in names]
        self._paid: set[int] = set()

    def __call__(self, architectures: Sequence[Architecture]) -> FloatArray:
        """Values [n, proxies]."""
        rows = [self._space.row_of(architecture.genes) for architecture in architectures]
        fresh = sorted(set(rows) - self._paid)
        self._paid.update(fresh)
        self.seconds += float(self._space.proxies.seconds[fresh][:, self._columns].sum())
        values: FloatArray = self._space.proxies.values[rows][:, self._columns]
        return values
