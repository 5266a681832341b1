"""Prices many architectures in one call: costs from tables (see `CostTable`), and the rewards that follow from them."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.ops.boundary import call_native, require_array, require_cuda_tensor
from nas_engine.ops.cost_table import CostArray, CostTable, FloatArray, IntArray, PriceList
from nas_engine.ops.reward import RewardFormula, reward_reference

if TYPE_CHECKING:
    import torch

_OP = "cost_estimate"
_NO_FORMULA = RewardFormula("accuracy")


class Estimate(NamedTuple):
    """What `cost_estimate` returns, one row for each architecture.

    Attributes:
        counts: exact, int64 [n, metrics of the int64 tables].
        measures: float64 [n, metrics of the float64 tables].
        rewards: float64 [n], or None where no formula was given.
    """

    counts: IntArray
    measures: FloatArray
    rewards: FloatArray | None


class CudaEstimate(NamedTuple):
    """`Estimate` with tensors on a GPU."""

    counts: torch.Tensor
    measures: torch.Tensor
    rewards: torch.Tensor | None


def cost_estimate_reference(
    genes: IntArray, prices: PriceList, formula: RewardFormula | None = None, accuracy: FloatArray | None = None
) -> Estimate:
    """The same as `cost_estimate` in NumPy: the oracle of its tests, and the fallback without the native module.

    Raises:
        NativeError: as `cost_estimate`.
    """
    _require_priceable(genes, prices, formula, accuracy)
    prices.require_genes(genes)
    live = None
    if prices.cell_edges is not None:
        live = np.where(_live_edges(genes, prices), genes, prices.zero_choice)
    counts, measures = np.empty((len(genes), 0), dtype=np.int64), np.empty((len(genes), 0))
    for table in prices.tables:
        costs = _table_costs(table, prices, genes, genes if table.cell_edges is None or live is None else live)
        if table.constant.dtype == np.int64:
            counts = np.concatenate([counts, costs], axis=1)
        else:
            measures = np.concatenate([measures, costs], axis=1)
    if formula is None or accuracy is None:
        return Estimate(counts, measures, None)
    columns = np.concatenate([counts.astype(np.float64), measures], axis=1)
    return Estimate(counts, measures, reward_reference(formula, accuracy, columns[:, formula.columns(prices.names)]))


def _table_costs(table: CostTable, prices: PriceList, genes: IntArray, counted: IntArray) -> CostArray:
    """[n, metrics]; the context is of `genes`, the entries are those of `counted`."""
    context = np.zeros(len(genes), dtype=np.int64)
    for decision in table.context_decisions:
        context = context * prices.choices[decision] + genes[:, decision]
    constant: CostArray = table.constant[context]
    if table.entries is None:
        return constant
    entries = table.entries[context[:, None], np.arange(genes.shape[1]), counted]
    costs: CostArray = (
        np.maximum(constant, entries.max(axis=1)) if table.combine == "max" else constant + entries.sum(axis=1)
    )
    return costs


def _live_edges(genes: IntArray, prices: PriceList) -> npt.NDArray[np.bool_]:
    """Bool [n, edges]: the edge lies on a path of non-zero edges from node 0 to the last node."""
    cell_edges = prices.cell_edges or ()
    last = max(target for _, target in cell_edges)
    order = sorted(range(len(cell_edges)), key=lambda edge: cell_edges[edge])
    from_input = np.zeros((len(genes), last + 1), dtype=bool)
    to_output = np.zeros((len(genes), last + 1), dtype=bool)
    from_input[:, 0] = to_output[:, last] = True
    connected = genes != prices.zero_choice
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
    genes: IntArray, prices: PriceList, formula: RewardFormula | None = None, accuracy: FloatArray | None = None
) -> Estimate:
    """Costs of many architectures and, where a formula is given, their rewards.

    Counts are exact. Measures and rewards equal the reference's up to the order of their additions.

    Args:
        genes: int64 [n, decisions].
        prices: the tables, for example of a space and of a device.
        formula: the reward of an objective, for example ``objectives.soft_power("macs", target=1e6).formula``.
        accuracy: float64 [n], needed by and only of use to the formula.

    Raises:
        NativeError: an argument has the wrong type, dtype, shape or memory layout, a gene is out of range, or no table
            has a metric that the formula needs.
    """
    _require_priceable(genes, prices, formula, accuracy)
    module = native.module()
    if module is None:
        return cost_estimate_reference(genes, prices, formula, accuracy)
    counts = np.empty((len(genes), len(prices.count_names)), dtype=np.int64)
    measures = np.empty((len(genes), len(prices.measure_names)))
    rewards = None if accuracy is None else np.empty(len(genes))
    arrays = (counts, measures, rewards)
    outputs = [0 if array is None else array.ctypes.data for array in arrays]
    inputs = (genes.ctypes.data, 0 if accuracy is None else accuracy.ctypes.data, len(genes))
    rows = module.PricedRows(*inputs, *outputs)
    arguments = (prices.on_cpu(module), _native_formula(module, prices, formula), rows)
    first_bad = call_native(_OP, module.cost_estimate, *arguments, shapes={"genes": genes.shape})
    if first_bad < len(genes):
        prices.require_genes(genes)
    return Estimate(counts, measures, rewards)


def cost_estimate_cuda(
    genes: torch.Tensor, prices: PriceList, formula: RewardFormula | None = None, accuracy: torch.Tensor | None = None
) -> CudaEstimate:
    """The same as `cost_estimate` for genes that are on a GPU already, on torch's current stream.

    Genes and accuracy are tensors on one CUDA device, of the types and shapes that `cost_estimate` wants.

    Raises:
        NativeError: as `cost_estimate`, or the native module was built without CUDA.
    """
    import torch  # `cost_estimate` works, and loads fast, without it

    op = f"{_OP}_cuda"
    _require_both(formula, accuracy)
    require_cuda_tensor(op, "genes", genes, torch.int64, (None, len(prices.choices)))
    if accuracy is not None:
        require_cuda_tensor(op, "accuracy", accuracy, torch.float64, (len(genes),))
        if accuracy.device != genes.device:
            raise NativeError(f"{op}: accuracy must be on {genes.device}, got one on {accuracy.device}")
    module = native.module()
    if module is None or not hasattr(module, op):
        raise NativeError(f"{op} needs a native module built with NAS_ENGINE_BUILD=cuda; see `nas-engine doctor`")
    with torch.cuda.device(genes.device):
        counts = genes.new_empty((len(genes), len(prices.count_names)))
        measures = genes.new_empty((len(genes), len(prices.measure_names)), dtype=torch.float64)
        rewards = None if accuracy is None else torch.empty_like(accuracy)
        first_bad = genes.new_full((1,), len(genes))
        outputs = [0 if tensor is None else tensor.data_ptr() for tensor in (counts, measures, rewards)]
        inputs = (genes.data_ptr(), 0 if accuracy is None else accuracy.data_ptr(), len(genes))
        rows = module.PricedRows(*inputs, *outputs)
        arguments = (prices.on_gpu(module, genes.device), _native_formula(module, prices, formula), rows)
        stream = torch.cuda.current_stream().cuda_stream
        call_native(op, getattr(module, op), *arguments, first_bad.data_ptr(), stream, shapes={"genes": genes.shape})
    if int(first_bad) < len(genes):
        prices.require_genes(genes.cpu().numpy())
    return CudaEstimate(counts, measures, rewards)


def _native_formula(module: ModuleType, prices: PriceList, formula: RewardFormula | None) -> Any:
    return (formula or _NO_FORMULA).to_native(module, prices.names)


def _require_priceable(
    genes: IntArray, prices: PriceList, formula: RewardFormula | None, accuracy: FloatArray | None
) -> None:
    _require_both(formula, accuracy)
    require_array(_OP, "genes", genes, np.int64, (None, len(prices.choices)))
    if accuracy is not None:
        require_array(_OP, "accuracy", accuracy, np.float64, (len(genes),))


def _require_both(formula: RewardFormula | None, accuracy: object) -> None:
    if (formula is None) != (accuracy is None):
        raise NativeError(f"{_OP}: formula and accuracy go together, got {formula!r} and {type(accuracy).__name__}")
