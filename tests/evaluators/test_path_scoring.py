"""The evaluator's fast way of scoring paths gives what PyTorch gives, and says so where it cannot be used."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.evaluators import path_scoring
from nas_engine.evaluators.path_scoring import PathScorer, score_paths
from nas_engine.evaluators.rank_quality import rank_quality
from nas_engine.evaluators.supernet import SupernetEvaluator, SupernetOptions
from nas_engine.ops.supernet_eval import bfloat16_levels, supernet_eval
from nas_engine.spaces.mobilenet import MobileNetOptions, MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.testing.block_space import BlockSpace
from nas_engine.types import ImageShape

CPU = torch.device("cpu")
SHAPE = ImageShape(3, 12, 10, 5)
SPACES = {
    "nasbench201": lambda: NASBench201Space(SHAPE, NASBench201Options(channels=6, cells=2)),
    "mobilenet": lambda: MobileNetSpace(SHAPE, MobileNetOptions()),
}
needs_native = pytest.mark.skipif(not native.available(), reason=native.problem())
needs_bfloat16 = pytest.mark.skipif(not bfloat16_levels(), reason="needs native code for x86 with AVX2")


def trained_a_little(supernet: nn.Module, images: torch.Tensor, labels: torch.Tensor, paths: list[tuple[int, ...]]):
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.05)
    for genes in paths:
        optimizer.zero_grad()
        nn.functional.cross_entropy(supernet.train()(images, genes), labels).backward()
        optimizer.step()
    return supernet.eval()


@needs_native
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_native_scores_are_those_of_pytorch(name, memory_format):
    torch.manual_seed(0)
    space, rng = SPACES[name](), np.random.default_rng(1)
    images = torch.randn(37, SHAPE.channels, SHAPE.height, SHAPE.width)
    labels = torch.randint(SHAPE.classes, (37,))
    paths = [space.sample(rng).genes for _ in range(12)]
    supernet = space.supernet().to(memory_format=memory_format)
    scorer = PathScorer(supernet, CPU)
    assert scorer.fallback == ""
    calibration = list(torch.randn(2, 16, SHAPE.channels, SHAPE.height, SHAPE.width))
    for _ in range(2):  # the second time with other weights
        trained_a_little(supernet, images, labels, paths[:6])
        for batches in ((), calibration):
            loss, correct = scorer(paths, images, labels, batches)
            expected_loss, expected_correct = score_paths(supernet, paths, images, labels, batches)
            torch.testing.assert_close(loss, expected_loss, rtol=1e-4, atol=1e-5)
            assert torch.equal(correct, expected_correct)


def test_other_supernets_go_through_pytorch_and_the_log_says_so(caplog):
    space = BlockSpace(SHAPE)
    supernet = space.supernet()
    with caplog.at_level(logging.INFO):
        scorer = PathScorer(supernet, CPU)
    assert "does not know" in scorer.fallback
    assert scorer.fallback in caplog.text
    images = torch.randn(5, SHAPE.channels, SHAPE.height, SHAPE.width)
    labels = torch.randint(SHAPE.classes, (5,))
    paths = [space.sample(np.random.default_rng(0)).genes]
    assert torch.equal(scorer(paths, images, labels, ())[0], score_paths(supernet, paths, images, labels, ())[0])


def test_subclasses_are_not_mistaken_for_what_they_derive_from():
    supernet = SPACES["nasbench201"]().supernet()
    supernet.__class__ = type("Changed", (type(supernet),), {})
    assert "Changed" in PathScorer(supernet, CPU).fallback


def test_without_the_native_module_pytorch_scores(monkeypatch):
    monkeypatch.setattr(native, "module", lambda: None)
    assert "no native module" in PathScorer(SPACES["nasbench201"]().supernet(), CPU).fallback


@needs_native
@pytest.mark.parametrize("fault", ["other numbers", "an error"])
def test_native_code_that_fails_its_check_is_not_used(fault, monkeypatch, caplog):
    def faulty(*arguments, **options):
        if fault == "an error":
            raise NativeError("out of order")
        scores = supernet_eval(*arguments, **options)
        return scores._replace(loss=scores.loss + 0.1)

    torch.manual_seed(0)
    space = SPACES["nasbench201"]()
    images, labels = torch.randn(20, SHAPE.channels, SHAPE.height, SHAPE.width), torch.randint(SHAPE.classes, (20,))
    paths = [space.sample(np.random.default_rng(0)).genes for _ in range(3)]
    supernet = space.supernet()
    expected = score_paths(supernet, paths, images, labels, ())
    good = PathScorer(supernet, CPU, check=True)
    torch.testing.assert_close(good(paths, images, labels, ()), expected, rtol=1e-4, atol=1e-5)
    assert good.fallback == ""
    monkeypatch.setattr(path_scoring, "supernet_eval", faulty)
    scorer = PathScorer(supernet, CPU, check=True)
    assert torch.equal(scorer(paths, images, labels, ())[0], expected[0])
    assert ("out of order" if fault == "an error" else "gives a loss of") in scorer.fallback
    assert scorer.fallback in caplog.text


@needs_bfloat16
@pytest.mark.parametrize("has_amx", [True, False])
def test_bfloat16_is_used_where_the_processor_has_amx(has_amx, monkeypatch, caplog):
    level = bfloat16_levels()[-1]
    if has_amx:  # any level stands in for the one that is fast
        monkeypatch.setattr(path_scoring, "_BFLOAT16_LEVEL", level)
    elif level == "bf16-amx":
        pytest.skip("this processor has AMX")
    torch.manual_seed(0)
    space = NASBench201Space(SHAPE, NASBench201Options(channels=8, cells=1))
    images, labels = torch.randn(20, SHAPE.channels, SHAPE.height, SHAPE.width), torch.randint(SHAPE.classes, (20,))
    paths, supernet = [space.sample(np.random.default_rng(0)).genes for _ in range(5)], space.supernet()
    exact = PathScorer(supernet, CPU)(paths, images, labels, [images])[0]
    scores = PathScorer(supernet, CPU, precision="bfloat16")(paths, images, labels, [images])[0]
    torch.testing.assert_close(scores, exact, rtol=0.02, atol=0.02)
    assert torch.equal(scores, exact) != has_amx
    assert ("float32 instead of bfloat16" in caplog.text) != has_amx


@needs_bfloat16
def test_bfloat16_that_goes_wrong_is_not_used(monkeypatch, caplog):
    def faulty(*arguments, level="", **options):
        scores = supernet_eval(*arguments, level=level, **options)
        return scores._replace(loss=scores.loss + 0.5) if level else scores

    monkeypatch.setattr(path_scoring, "_BFLOAT16_LEVEL", bfloat16_levels()[-1])
    monkeypatch.setattr(path_scoring, "supernet_eval", faulty)
    torch.manual_seed(0)
    space = SPACES["nasbench201"]()
    images, labels = torch.randn(20, SHAPE.channels, SHAPE.height, SHAPE.width), torch.randint(SHAPE.classes, (20,))
    supernet, path = space.supernet(), space.sample(np.random.default_rng(0)).genes
    scorer = PathScorer(supernet, CPU, precision="bfloat16")
    assert torch.equal(
        scorer([path], images, labels, [images])[0], PathScorer(supernet, CPU)([path], images, labels, [images])[0]
    )
    assert "float32 instead of bfloat16: losses of" in caplog.text


@pytest.mark.slow
@needs_bfloat16
def test_bfloat16_ranks_paths_as_float32_does(digits, monkeypatch):
    """Kendall's tau of accuracies over 200 random paths of a trained supernet is at least 0.98."""
    monkeypatch.setattr(path_scoring, "_BFLOAT16_LEVEL", bfloat16_levels()[-1])
    space = NASBench201Space(digits.shape, NASBench201Options(channels=8, cells=1))
    trained = SupernetEvaluator(space, digits, SupernetOptions(epochs=3), seed=0)
    list(trained.prepare())
    rng = np.random.default_rng(0)
    paths = [space.sample(rng).genes for _ in range(200)]
    images, labels, calibration = digits.validation.images, digits.validation.labels, [digits.train.images[:64]]
    (_, exact), (_, rounded) = (
        PathScorer(trained.supernet, CPU, precision=precision)(paths, images, labels, calibration)
        for precision in ("float32", "bfloat16")
    )
    assert rank_quality(rounded.tolist(), exact.tolist()).tau >= 0.98
    assert not torch.equal(rounded, exact)


@needs_native
def test_the_check_covers_recalibrated_statistics(monkeypatch):
    """Scores that are wrong only with calibration images are found out, and the right ones returned."""

    def faulty(program, genes, images, labels, statistics, batches, **options):
        scores = supernet_eval(program, genes, images, labels, statistics, batches, **options)
        return scores._replace(loss=scores.loss + 0.1) if batches else scores

    torch.manual_seed(0)
    space = SPACES["nasbench201"]()
    images, labels = torch.randn(20, SHAPE.channels, SHAPE.height, SHAPE.width), torch.randint(SHAPE.classes, (20,))
    supernet, path = space.supernet(), space.sample(np.random.default_rng(0)).genes
    monkeypatch.setattr(path_scoring, "supernet_eval", faulty)
    scorer = PathScorer(supernet, CPU, check=True)
    assert torch.equal(
        scorer([path], images, labels, [images])[0], score_paths(supernet, [path], images, labels, [images])[0]
    )
    assert "gives a loss of" in scorer.fallback


def test_a_failure_leaves_the_mode_of_the_supernet_as_it_was():
    supernet = SPACES["nasbench201"]().supernet()
    supernet.train()
    with pytest.raises(RuntimeError):
        score_paths(supernet, [(1,) * 6], torch.randn(2, 99, 8, 8), torch.zeros(2, dtype=torch.int64), ())
    assert supernet.training
