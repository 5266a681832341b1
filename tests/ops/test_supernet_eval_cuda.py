"""supernet_eval on a GPU against its PyTorch reference; needs torch, numpy and pytest alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas_engine.errors import NativeError
from nas_engine.evaluators.path_programs import path_programs
from nas_engine.nn.nasbench201_supernet import NASBench201Supernet
from nas_engine.ops.supernet_eval import PathScores, Statistics, scores_on_gpus, supernet_eval, supernet_eval_reference
from nas_engine.ops.supernet_program import SupernetProgram

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on_gpu(channels: int, cells: int, height: int, width: int) -> SupernetProgram:
    torch.manual_seed(0)
    network = NASBench201Supernet(channels, cells, 3, 10).cuda()
    for genes in random_genes(12).tolist():  # running statistics that differ from their defaults
        network.train()(torch.randn(16, 3, height, width, device="cuda"), tuple(genes))
    programs = path_programs(network.eval())
    assert programs is not None
    return programs.program((), height, width)


def random_genes(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 5, (count, 6))


def assert_equal_scores(got: PathScores, wanted: PathScores) -> None:
    assert got.logits is not None
    assert wanted.logits is not None
    expected = wanted.logits.cpu()
    scale = expected.abs().amax(dim=(1, 2), keepdim=True)
    assert torch.all((got.logits - expected).abs() <= 1e-4 * scale)
    torch.testing.assert_close(got.loss, wanted.loss.cpu(), rtol=1e-4, atol=1e-4)
    best = expected.topk(2, dim=2).values
    ties = ((best[..., 0] - best[..., 1]) <= 2e-4 * scale[..., 0]).sum(1)
    assert torch.all((got.correct - wanted.correct.cpu()).abs() <= ties)


def test_the_native_module_has_the_kernels() -> None:
    assert scores_on_gpus(), "build it with NAS_ENGINE_BUILD=cuda"


@pytest.mark.parametrize("statistics", list(Statistics))
@pytest.mark.parametrize(
    ("channels", "cells", "height", "width", "count"),
    [(16, 5, 32, 32, 64), (16, 1, 8, 8, 13), (6, 1, 9, 7, 3), (33, 1, 16, 3, 2), (8, 1, 8, 8, 256)],
)
def test_equals_the_reference(
    statistics: Statistics, channels: int, cells: int, height: int, width: int, count: int
) -> None:
    program = on_gpu(channels, cells, height, width)
    images = torch.randn(count, 3, height, width, device="cuda")
    labels = torch.randint(10, (count,), device="cuda")
    batches = [images[: count // 2 + 1], images[-2:]] if statistics is Statistics.RECALIBRATED else []
    genes = random_genes(40)
    got = supernet_eval(program, genes, images, labels, statistics, batches, want_logits=True)
    assert_equal_scores(got, supernet_eval_reference(program, genes, images, labels, statistics, batches))


def test_the_same_call_gives_the_same_bits() -> None:
    program = on_gpu(16, 1, 16, 16)
    images, labels = torch.randn(50, 3, 16, 16, device="cuda"), torch.randint(10, (50,), device="cuda")
    first, second = (supernet_eval(program, random_genes(30), images, labels, want_logits=True) for _ in range(2))
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.loss, second.loss)


def test_weights_on_another_device_are_named() -> None:
    programs = path_programs(NASBench201Supernet(4, 1, 3, 10))
    assert programs is not None
    images, labels = torch.randn(4, 3, 6, 6, device="cuda"), torch.zeros(4, dtype=torch.int64, device="cuda")
    with pytest.raises(NativeError, match="convolution 0 weight must be a dense cuda:0 tensor"):
        supernet_eval(programs.program((), 6, 6), random_genes(2), images, labels)
