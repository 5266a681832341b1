"""cost_estimate_cuda against the NumPy reference; needs torch, numpy and pytest alone, as machines with a GPU have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas_engine.errors import NativeError
from nas_engine.ops.cost_estimate import cost_estimate_cuda, cost_estimate_reference
from nas_engine.ops.cost_table import CostTable, PriceList
from nas_engine.ops.reward import RewardFormula

# Fully connected cells of four nodes; the genes of the first two decisions are the context of the counts too. The peak
# depends on all genes; the latency is a sum over live edges.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_rng = np.random.default_rng(0)
COUNTS = CostTable(
    metrics=("params", "macs"),
    context_decisions=(1, 0),
    constant=_rng.integers(-(2**40), 2**40, (25, 2)),
    entries=_rng.integers(-(2**40), 2**40, (25, 6, 5, 2)),
    cell_edges=EDGES,
)
PEAK = CostTable(("peak",), tuple(range(6)), _rng.integers(0, 2**40, (5**6, 1)), None, combine="max")
LATENCY = CostTable(("latency_ms",), (), _rng.random((1, 1)), _rng.random((1, 6, 5, 1)), cell_edges=EDGES)
PRICES = PriceList([COUNTS, PEAK, LATENCY], (5,) * 6)
FORMULAS = {
    "accuracy": RewardFormula("accuracy"),
    "weighted_sum": RewardFormula("weighted_sum", ("latency_ms", "macs"), (2.0, 2**40), (0.1, 0.1), 0.8, 10.0),
    "soft_power": RewardFormula("soft_power", ("latency_ms",), (2.0,), (-0.07, -1.0), smallest_ratio=1e-6),
    "absolute": RewardFormula("absolute", ("peak",), (2**30,), (-0.07,), largest_ratio=10.0),
}

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_a_cpu_tensor_is_refused() -> None:
    with pytest.raises(NativeError, match="cost_estimate_cuda: genes must be a CUDA tensor, got a tensor on cpu"):
        cost_estimate_cuda(torch.zeros((2, 6), dtype=torch.int64), PRICES)


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("rows", [0, 1, 129, 1_000_000])
@pytest.mark.parametrize("kind", FORMULAS)
def test_equals_reference(rows: int, kind: str) -> None:
    rng = np.random.default_rng(rows)
    genes, accuracy = rng.integers(0, 5, (rows, 6)), rng.random(rows)
    accuracy[3::7] = np.nan
    arguments = torch.from_numpy(genes).cuda(), PRICES, FORMULAS[kind], torch.from_numpy(accuracy).cuda()
    counts, measures, rewards = cost_estimate_cuda(*arguments)
    expected = cost_estimate_reference(genes, PRICES, FORMULAS[kind], accuracy)
    assert rewards is not None
    assert expected.rewards is not None
    np.testing.assert_array_equal(counts.cpu().numpy(), expected.counts)
    np.testing.assert_allclose(measures.cpu().numpy(), expected.measures, rtol=1e-12)
    np.testing.assert_allclose(rewards.cpu().numpy(), expected.rewards, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
@gpu
def test_a_gene_out_of_range_is_named() -> None:
    genes = np.zeros((1000, 6), dtype=np.int64)
    genes[77, 3] = genes[900, 1] = -5
    with pytest.raises(NativeError, match=r"genes\[77, 3\] = -5 is outside 0..4"):
        cost_estimate_cuda(torch.from_numpy(genes).cuda(), PRICES)


@pytest.mark.gpu
@gpu
def test_an_accuracy_elsewhere_is_refused() -> None:
    genes = torch.zeros((2, 6), dtype=torch.int64, device="cuda")
    with pytest.raises(NativeError, match="accuracy must be a CUDA tensor, got a tensor on cpu"):
        cost_estimate_cuda(genes, PRICES, FORMULAS["accuracy"], torch.zeros(2, dtype=torch.float64))


@pytest.mark.gpu
@gpu
def test_it_runs_on_the_current_stream() -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        genes = torch.ones((1_000_000, 6), dtype=torch.int64, device="cuda").mul_(2)  # queued just before
        counts = cost_estimate_cuda(genes, PRICES).counts
    expected = cost_estimate_reference(np.full((1, 6), 2, dtype=np.int64), PRICES).counts
    np.testing.assert_array_equal(counts.cpu().numpy(), np.repeat(expected, 1_000_000, axis=0))
