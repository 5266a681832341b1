"""Tables of costs, and price lists: the tables that `cost_estimate` prices together, checked once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from nas_engine.errors import NativeError
from nas_engine.ops.boundary import require_array, require_range

if TYPE_CHECKING:
    import torch

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
CostArray = IntArray | FloatArray
Combine = Literal["sum", "max"]
_OP = "cost_estimate"
_COMBINE: tuple[Combine, ...] = ("sum", "max")  # in the order of the native enumeration
_MAX_CELL_NODES = 64
_MAX_TABLES = 4  # of one type


@dataclass(frozen=True)
class CostTable:
    """Costs as sums or maxima of table entries, in the form that the native op prices in one call.

    The context is the mixed-radix number formed by the genes of `context_decisions` (for example width and
    resolution, on which the cost of every layer depends); it is 0 where there are none. Then::

        cost[m] = constant[context, m] + sum over decisions d of entries[context, d, genes[d], m]

    With `combine` "max" the largest of these numbers takes the place of their sum. So memory, which is at its peak
    in one layer or in one cell, is exact too: entries are what each layer holds while it runs, and where a peak
    depends on all decisions at once (the liveness of the maps of a cell), all decisions are the context, the constants
    are the peaks, and there are no entries.

    Where `cell_edges` is set, the decisions are the edges of a cell. A gene counts as `zero_choice` unless its edge
    lies on a path from node 0 to the last node along edges that are not `zero_choice`: other edges are never built
    or computed. The context is of the genes as they are.

    Attributes:
        metrics: names, for example ``("params", "macs")``.
        context_decisions: indices of the decisions that form the context, most significant first.
        constant: int64 [contexts, metrics] for exact counts, float64 for what is measured; NaN is not known.
        entries: of the same type [contexts, decisions, max_choices, metrics]; None where the constants are all.
        cell_edges: (source node, target node) of each decision, source < target, or None.
        zero_choice: the choice that means "no connection", where `cell_edges` is set.
        combine: "sum" or "max".
    """

    metrics: tuple[str, ...]
    context_decisions: tuple[int, ...]
    constant: CostArray
    entries: CostArray | None
    cell_edges: tuple[tuple[int, int], ...] | None = None
    zero_choice: int = 0
    combine: Combine = "sum"


class PriceList:
    """Tables over the same decisions, checked once and kept ready for native code; read-only.

    Attributes:
        tables: as given.
        choices: int64 [decisions], number of choices of each decision.
        count_names: metrics of the int64 tables, in order.
        measure_names: metrics of the float64 tables, in order.
        cell_edges: those of the tables that have some, or None.
        zero_choice: of the same tables.
    """

    def __init__(self, tables: Sequence[CostTable], choices: Sequence[int]) -> None:
        """Check the tables.

        Args:
            tables: at most four of each type, with distinct metrics; those with `cell_edges` have the same.
            choices: number of choices of each decision.

        Raises:
            NativeError: a table has the wrong type, shape or memory layout for `choices`, or the tables disagree.
        """
        self.tables = tuple(tables)
        self.choices = _integers("choices", choices)
        self.choices.flags.writeable = False  # genes are checked against it: it must not change afterwards
        if self.choices.ndim != 1 or not self.choices.size or (self.choices < 1).any():
            raise NativeError(f"{_OP}: choices must be one positive number for each decision, got {choices!r}")
        for table in self.tables:
            _check_table(table, self.choices)
        self._int_tables = self._of_type(np.int64)
        self._float_tables = self._of_type(np.float64)
        self.count_names = tuple(name for table in self._int_tables for name in table.metrics)
        self.measure_names = tuple(name for table in self._float_tables for name in table.metrics)
        self._check_names()
        self.cell_edges, self.zero_choice = self._cell()
        self._native: dict[str, tuple[Any, object]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Metrics in the order in which native code counts columns: exact counts first."""
        return self.count_names + self.measure_names

    def require_genes(self, genes: IntArray) -> None:
        """Check genes [n, decisions].

        Raises:
            NativeError: a gene is out of range; the message names the first one.
        """
        require_range(_OP, "genes", genes, self.choices)

    def on_cpu(self, module: ModuleType) -> Any:
        """The list for native code on the CPU."""
        if "cpu" not in self._native:
            arrays = self._arrays()
            self._native["cpu"] = self._handle(module, [array.ctypes.data for array in arrays]), arrays
        return self._native["cpu"][0]

    def on_gpu(self, module: ModuleType, device: torch.device) -> Any:
        """The list for native code on `device`, uploaded when it is first used there."""
        import torch  # on the CPU everything works, and loads fast, without it

        if str(device) not in self._native:
            arrays = [torch.from_numpy(array).to(device) for array in self._arrays()]
            self._native[str(device)] = self._handle(module, [array.data_ptr() for array in arrays]), arrays
        return self._native[str(device)][0]

    def __getstate__(self) -> dict[str, object]:
        """Without what belongs to this process."""
        return {**self.__dict__, "_native": {}}

    def _of_type(self, dtype: type) -> tuple[CostTable, ...]:
        found = tuple(table for table in self.tables if table.constant.dtype == dtype)
        if len(found) > _MAX_TABLES:
            raise NativeError(
                f"{_OP}: tables may be at most {_MAX_TABLES} of type {dtype.__name__}, got {len(found)}; "
                "put metrics with the same context into one table"
            )
        return found

    def _check_names(self) -> None:
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise NativeError(f"{_OP}: tables have {', '.join(twice)} twice; each metric needs its own name")

    def _cell(self) -> tuple[tuple[tuple[int, int], ...] | None, int]:
        cells = {
            (tuple((int(source), int(target)) for source, target in table.cell_edges), int(table.zero_choice))
            for table in self.tables
            if table.cell_edges is not None
        }
        if len(cells) > 1:
            raise NativeError(f"{_OP}: tables with cell_edges must have the same edges and zero_choice, got {cells}")
        return cells.pop() if cells else (None, 0)

    def _arrays(self) -> list[CostArray]:
        """choices, edges (decision, source, target) by target, then constant, entries and context of each table."""
        edges = [(decision, *edge) for decision, edge in enumerate(self.cell_edges or ())]
        arrays: list[CostArray] = [self.choices, np.array(sorted(edges, key=lambda edge: edge[2]), dtype=np.int64)]
        for table in self._int_tables + self._float_tables:
            entries = table.constant[:0] if table.entries is None else table.entries
            arrays += [table.constant, entries, np.array(table.context_decisions, dtype=np.int64)]
        return arrays

    def _handle(self, module: ModuleType, addresses: Iterable[int]) -> Any:
        address = iter(addresses)
        choices, edges = next(address), next(address)
        rows = [
            _row(table, next(address), next(address), next(address)) for table in self._int_tables + self._float_tables
        ]
        counts, measures = rows[: len(self._int_tables)], rows[len(self._int_tables) :]
        edges = 0 if self.cell_edges is None else edges
        return module.PriceList(counts, measures, choices, edges, len(self.choices), self.zero_choice)


def _row(table: CostTable, constant: int, entries: int, context: int) -> tuple[int, ...]:
    """One table as native code reads it: addresses, then sizes."""
    most = 0 if table.entries is None else table.entries.shape[2]
    sizes = (len(table.context_decisions), most, len(table.metrics))
    address = 0 if table.entries is None else entries
    return (constant, address, context, *sizes, _COMBINE.index(table.combine), int(table.cell_edges is not None))


def _check_table(table: CostTable, choices: IntArray) -> None:
    decisions, metrics = len(choices), len(table.metrics)
    context = _integers("context_decisions", table.context_decisions)
    if context.ndim != 1:
        raise NativeError(f"{_OP}: context_decisions must be numbers of decisions, got {table.context_decisions!r}")
    require_range(_OP, "context_decisions", context, decisions)
    contexts = math.prod(choices[context].tolist())
    dtype = np.float64 if getattr(table.constant, "dtype", None) == np.float64 else np.int64
    require_array(_OP, "constant", table.constant, dtype, (contexts, metrics))
    if table.combine not in _COMBINE:
        raise NativeError(f"{_OP}: combine must be one of {', '.join(_COMBINE)}, got {table.combine!r}")
    most = 0
    if table.entries is not None:
        require_array(_OP, "entries", table.entries, dtype, (contexts, decisions, None, metrics))
        most = table.entries.shape[2]
        if most < choices.max():
            raise NativeError(f"{_OP}: entries must have {choices.max()} choices or more, got {most}")
    if table.cell_edges is not None:
        _check_cell(_integers("cell_edges", table.cell_edges), decisions)
        limit = choices.min() if table.entries is None else most
        require_range(_OP, "zero_choice", _integers("zero_choice", [table.zero_choice]), limit)


def _check_cell(edges: IntArray, decisions: int) -> None:
    if edges.shape != (decisions, 2) or decisions == 0:
        raise NativeError(f"{_OP}: cell_edges must have shape [{decisions}, 2], got {list(edges.shape)}")
    require_range(_OP, "cell_edges", edges, _MAX_CELL_NODES)
    if (edges[:, 0] >= edges[:, 1]).any():
        raise NativeError(f"{_OP}: cell_edges must run from a lower to a higher node, got {edges.tolist()}")


def _integers(name: str, values: Any) -> IntArray:
    try:
        found = np.array(values, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise NativeError(f"{_OP}: {name} must hold integers, got {values!r}") from error
    if not found.ndim:
        raise NativeError(f"{_OP}: {name} must be a sequence of integers, got {values!r}")
    return found
