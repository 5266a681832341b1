"""Pixels that are not finite: native code hides none that PyTorch would show, whatever the path makes of them.

PyTorch's modules, the reference of the op and native code agree that 0.0 times NaN is NaN, as in the published networks
of NAS-Bench-201: a cell without a connection does not turn a broken image into a finite loss.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from nas_engine import native
from nas_engine.evaluators.path_programs import path_programs
from nas_engine.evaluators.path_scoring import PathScorer, score_paths
from nas_engine.nn.nasbench201_supernet import NASBench201Supernet
from nas_engine.ops.supernet_eval import Statistics, levels, supernet_eval, supernet_eval_reference
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.types import ImageShape

pytestmark = pytest.mark.skipif(not native.available(), reason="needs the native module")
NOT_FINITE = [math.nan, math.inf, -math.inf]


def broken(value: float, count: int = 5, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, side, side, generator=generator)
    images[1, 2, side // 2, side - 1] = value
    return images, torch.randint(10, (count,), generator=generator)


def cells() -> NASBench201Supernet:
    torch.manual_seed(0)
    return NASBench201Supernet(8, 1, 3, 10).eval()


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("statistics", list(Statistics))
def test_the_same_images_are_broken_as_in_the_reference(value: float, level: str, statistics: Statistics) -> None:
    images, labels = broken(value)
    programs = path_programs(cells())
    assert programs is not None
    program = programs.program((), 8, 8)
    batches = [images] if statistics is Statistics.RECALIBRATED else []
    genes = np.array([(0,) * 6, *np.random.default_rng(0).integers(0, 5, (40, 6)).tolist()])
    got = supernet_eval(program, genes, images, labels, statistics, batches, want_logits=True, level=level)
    wanted = supernet_eval_reference(program, genes, images, labels, statistics, batches)
    assert torch.equal(got.loss.isnan(), wanted.loss.isnan())
    assert got.loss.isnan().all()
    finite = [other.logits.isfinite().all(2) for other in (got, wanted) if other.logits is not None]
    assert torch.equal(*finite)
    if math.isnan(value):
        assert torch.equal(got.correct, wanted.correct)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("calibrated", [False, True])
def test_every_path_of_cells_is_as_broken_as_in_pytorch(value: float, calibrated: bool) -> None:
    supernet, (images, labels) = cells(), broken(value)
    paths = list(itertools.product(range(5), repeat=6))[:: 1 if calibrated else 97]
    paths = [(0,) * 6, *paths[:: len(paths) // 60]]
    calibration = [images] if calibrated else []
    loss = PathScorer(supernet, torch.device("cpu"))(paths, images, labels, calibration)[0]
    expected = score_paths(supernet, paths, images, labels, calibration)[0]
    assert torch.equal(loss.isnan(), expected.isnan())
    assert loss.isnan().all()


@pytest.mark.parametrize("value", NOT_FINITE)
def test_mobilenets_clip_what_is_infinite_and_keep_what_is_not_a_number(value: float) -> None:
    space = MobileNetSpace(ImageShape(3, 16, 16, 10))
    torch.manual_seed(0)
    supernet, rng = space.supernet().eval(), np.random.default_rng(0)
    paths = [space.sample(rng).genes for _ in range(8)]
    images, labels = broken(value, side=16)
    loss, correct = PathScorer(supernet, torch.device("cpu"))(paths, images, labels, [])
    expected, expected_correct = score_paths(supernet, paths, images, labels, [])
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
    assert torch.equal(correct, expected_correct)
    assert not math.isnan(value) or loss.isnan().all()
