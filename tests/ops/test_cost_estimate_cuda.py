"""cost_estimate_cuda against the NumPy reference; needs torch, numpy and pytest alone, as machines with a GPU have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nas_engine.errors import NativeError
from nas_engine.ops.cost_estimate import cost_estimate_cuda, cost_estimate_reference

# Fully connected cells of four nodes; the genes of the first two decisions are the context too.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_rng = np.random.default_rng(0)
TABLE: dict[str, Any] = {
    "constant": _rng.integers(-(2**40), 2**40, (25, 2)),
    "entries": _rng.integers(-(2**40), 2**40, (25, 6, 5, 2)),
    "context_decisions": (1, 0),
    "context_sizes": (5, 5),
    "cell_edges": EDGES,
    "zero_choice": 0,
}


def test_a_cpu_tensor_is_refused() -> None:
    with pytest.raises(NativeError, match="cost_estimate_cuda: genes must be a CUDA tensor, got a tensor on cpu"):
        cost_estimate_cuda(torch.zeros((2, 6), dtype=torch.int64), **TABLE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rows", [0, 1, 129, 1_000_000])
def test_equals_reference(rows: int) -> None:
    genes = np.random.default_rng(rows).integers(0, 5, (rows, 6))
    costs = cost_estimate_cuda(torch.from_numpy(genes).cuda(), **TABLE)
    np.testing.assert_array_equal(costs.cpu().numpy(), cost_estimate_reference(genes, **TABLE))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gene_out_of_range_is_named() -> None:
    genes = np.zeros((1000, 6), dtype=np.int64)
    genes[77, 3] = genes[900, 1] = -5
    with pytest.raises(NativeError, match=r"genes\[77, 3\] = -5 is outside 0..4"):
        cost_estimate_cuda(torch.from_numpy(genes).cuda(), **TABLE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_runs_on_the_current_stream() -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        genes = torch.ones((1_000_000, 6), dtype=torch.int64, device="cuda").mul_(2)  # queued just before
        costs = cost_estimate_cuda(genes, **TABLE)
    expected = cost_estimate_reference(np.full((1, 6), 2, dtype=np.int64), **TABLE)
    np.testing.assert_array_equal(costs.cpu().numpy(), np.repeat(expected, 1_000_000, axis=0))
