"""Prices many architectures in one call: exact integer sums of table entries (see `CostTable`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.ops.boundary import call_native, require_array, require_cuda_tensor, require_range

if TYPE_CHECKING:
    import torch

IntArray = npt.NDArray[np.int64]
_OP = "cost_estimate"
_MAX_CELL_NODES = 64


def cost_estimate_reference(
    genes: IntArray,
    *,
    constant: IntArray,
    entries: IntArray,
    context_decisions: Sequence[int] = (),
    context_sizes: Sequence[int] = (),
    cell_edges: Sequence[tuple[int, int]] | None = None,
    zero_choice: int = 0,
) -> IntArray:
    """The same as `cost_estimate` in NumPy: the oracle of its tests, and the fallback without the native module."""
    context = np.zeros(len(genes), dtype=np.int64)
    for decision, size in zip(context_decisions, context_sizes, strict=True):
        context = context * size + genes[:, decision]
    if cell_edges is not None:
        genes = np.where(_live_edges(genes, cell_edges, zero_choice), genes, zero_choice)
    costs: IntArray = constant[context] + entries[context[:, None], np.arange(genes.shape[1]), genes].sum(axis=1)
    return costs


def _live_edges(genes: IntArray, cell_edges: Sequence[tuple[int, int]], zero_choice: int) -> npt.NDArray[np.bool_]:
    """Bool [n, edges]: the edge lies on a path of non-zero edges from node 0 to the last node."""
    last = max(target for _, target in cell_edges)
    order = sorted(range(len(cell_edges)), key=lambda edge: cell_edges[edge])
    from_input = np.zeros((len(genes), last + 1), dtype=bool)
    to_output = np.zeros((len(genes), last + 1), dtype=bool)
    from_input[:, 0] = to_output[:, last] = True
    connected = genes != zero_choice
    for edge in order:
        source, target = cell_edges[edge]
        from_input[:, target] |= connected[:, edge] & from_input[:, source]
    for edge in reversed(order):
        source, target = cell_edges[edge]
        to_output[:, source] |= connected[:, edge] & to_output[:, target]
    sources, targets = np.array(cell_edges).T
    live: npt.NDArray[np.bool_] = connected & from_input[:, sources] & to_output[:, targets]
    return live


def cost_estimate(
    genes: IntArray,
    *,
    constant: IntArray,
    entries: IntArray,
    context_decisions: Sequence[int] = (),
    context_sizes: Sequence[int] = (),
    cell_edges: Sequence[tuple[int, int]] | None = None,
    zero_choice: int = 0,
) -> IntArray:
    """Exact costs of many architectures.

    Args:
        genes: int64 [n, decisions].
        constant: int64 [contexts, metrics].
        entries: int64 [contexts, decisions, max_choices, metrics].
        context_decisions: the decisions whose genes form the context, most significant first.
        context_sizes: number of choices of each of them; their product is `contexts`.
        cell_edges: (source node, target node) of each decision, source < target; None where there is no cell.
        zero_choice: the choice that means "no connection", where `cell_edges` is given.

    Returns:
        int64 [n, metrics].

    Raises:
        NativeError: an argument has the wrong type, dtype, shape or memory layout, or a gene is out of range.
    """
    table = _Table.checked(constant, entries, context_decisions, context_sizes, cell_edges, zero_choice)
    require_array(_OP, "genes", genes, np.int64, (None, table.decisions))
    module = native.module()
    if module is None:
        table.require_genes(genes)
        return cost_estimate_reference(genes, **table._asdict())
    costs = np.empty((len(genes), table.metrics), dtype=np.int64)
    arrays = table.arrays()
    shapes = {"genes": genes.shape, "entries": entries.shape}
    arguments = (table.to_native(module, [array.ctypes.data for array in arrays]), genes.ctypes.data, len(genes))
    first_bad = call_native(_OP, module.cost_estimate, *arguments, costs.ctypes.data, shapes=shapes)
    if first_bad < len(genes):
        table.require_genes(genes)
    return costs


def cost_estimate_cuda(
    genes: torch.Tensor,
    *,
    constant: IntArray,
    entries: IntArray,
    context_decisions: Sequence[int] = (),
    context_sizes: Sequence[int] = (),
    cell_edges: Sequence[tuple[int, int]] | None = None,
    zero_choice: int = 0,
) -> torch.Tensor:
    """The same as `cost_estimate` for genes that are on a GPU already, on torch's current stream.

    The genes are an int64 tensor [n, decisions] on a CUDA device; all other arguments are as in `cost_estimate`.

    Returns:
        int64 [n, metrics] on the same device.

    Raises:
        NativeError: as `cost_estimate`, or the native module was built without CUDA.
    """
    import torch  # `cost_estimate` works, and loads fast, without it

    op = f"{_OP}_cuda"
    table = _Table.checked(constant, entries, context_decisions, context_sizes, cell_edges, zero_choice)
    require_cuda_tensor(op, "genes", genes, torch.int64, (None, table.decisions))
    module = native.module()
    if module is None or not hasattr(module, op):
        raise NativeError(f"{op} needs a native module built with NAS_ENGINE_BUILD=cuda; see `nas-engine doctor`")
    with torch.cuda.device(genes.device):
        arrays = [torch.from_numpy(array).to(genes.device) for array in table.arrays()]
        costs = genes.new_empty((len(genes), table.metrics))
        first_bad = genes.new_full((1,), len(genes))
        outputs = (costs.data_ptr(), first_bad.data_ptr(), torch.cuda.current_stream().cuda_stream)
        arguments = (table.to_native(module, [array.data_ptr() for array in arrays]), genes.data_ptr(), len(genes))
        call_native(op, getattr(module, op), *arguments, *outputs, shapes={"genes": genes.shape})
    if int(first_bad) < len(genes):
        table.require_genes(genes.cpu().numpy())
    return costs


class _Table(NamedTuple):
    """The arguments beside the genes, checked once."""

    constant: IntArray
    entries: IntArray
    context_decisions: Sequence[int]
    context_sizes: Sequence[int]
    cell_edges: Sequence[tuple[int, int]] | None
    zero_choice: int

    @property
    def decisions(self) -> int:
        return int(self.entries.shape[1])

    @property
    def metrics(self) -> int:
        return int(self.entries.shape[3])

    @classmethod
    def checked(cls, *arguments: Any) -> _Table:
        table = cls(*arguments)
        require_array(_OP, "entries", table.entries, np.int64, (None, None, None, None))
        contexts, decisions, max_choices, metrics = table.entries.shape
        require_array(_OP, "constant", table.constant, np.int64, (contexts, metrics))
        require_range(_OP, "context_decisions", _integers("context_decisions", table.context_decisions), decisions)
        sizes = _integers("context_sizes", table.context_sizes).tolist()
        if len(sizes) != len(table.context_decisions) or math.prod(sizes) != contexts or min(sizes, default=1) < 1:
            raise NativeError(
                f"{_OP}: context_sizes {sizes} must give one positive size for each of the "
                f"{len(table.context_decisions)} context_decisions, with the product {contexts}"
            )
        if table.cell_edges is not None:
            _require_cell(_integers("cell_edges", table.cell_edges), decisions)
            require_range(_OP, "zero_choice", _integers("zero_choice", [table.zero_choice]), max_choices)
        return table

    def require_genes(self, genes: IntArray) -> None:
        limits = np.full(self.decisions, self.entries.shape[2])
        limits[list(self.context_decisions)] = self.context_sizes
        require_range(_OP, "genes", genes, limits)

    def arrays(self) -> list[IntArray]:
        """constant, entries, context decisions, context sizes and edges (decision, source, target) by target."""
        edges = [(*edge, decision) for decision, edge in enumerate(self.cell_edges or ())]
        by_target = [(decision, source, target) for source, target, decision in sorted(edges, key=lambda edge: edge[1])]
        small = (self.context_decisions, self.context_sizes, by_target)
        return [self.constant, self.entries, *(np.array(values, dtype=np.int64) for values in small)]

    def to_native(self, module: ModuleType, addresses: list[int]) -> Any:
        *others, edges = addresses
        _, decisions, max_choices, metrics = self.entries.shape
        sizes = (decisions, max_choices, metrics, len(self.context_sizes), self.zero_choice)
        return module.CostTable(*others, 0 if self.cell_edges is None else edges, *sizes)


def _integers(name: str, values: Any) -> IntArray:
    try:
        return np.asarray(values, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise NativeError(f"{_OP}: {name} must hold integers, got {values!r}") from error


def _require_cell(edges: IntArray, decisions: int) -> None:
    if edges.shape != (decisions, 2) or decisions == 0:
        raise NativeError(f"{_OP}: cell_edges must have shape [{decisions}, 2], got {list(edges.shape)}")
    require_range(_OP, "cell_edges", edges, _MAX_CELL_NODES)
    if (edges[:, 0] >= edges[:, 1]).any():
        raise NativeError(f"{_OP}: cell_edges must run from a lower to a higher node, got {edges.tolist()}")
