"""The Bayesian linear model against its closed form, and its basis against the similarity it stands for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.features import features_of
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Space
from nas_engine.surrogates.linear import LinearBasis, posterior_weights
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.types import ImageShape

SHAPE = ImageShape(3, 32, 32, 10)
DRAWS = 6_000


@pytest.mark.parametrize("noise", [0.1, 2.0])
@pytest.mark.parametrize(("n", "size"), [(1, 3), (3, 5), (8, 3)])
def test_draws_follow_the_posterior(n: int, size: int, noise: float) -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n, size)).astype(np.float32)
    scores = 2 * rng.standard_normal(n)
    drawn = np.array([posterior_weights(features, scores, noise, rng) for _ in range(DRAWS)], dtype=np.float64)
    # Bishop 2006, "Pattern Recognition and Machine Learning", equations 3.50 and 3.51 with prior N(0, I).
    wide = features.astype(np.float64)
    covariance = np.linalg.inv(np.eye(size) + wide.T @ wide / noise)
    mean = covariance @ wide.T @ scores / noise
    error = np.sqrt(np.diag(covariance) / DRAWS)
    assert (np.abs(drawn.mean(axis=0) - mean) < 5 * error).all()
    spread = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / DRAWS)
    assert (np.abs(np.cov(drawn.T) - covariance) < 5 * spread).all()


def similarity(space: SearchSpace, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any], pairs: bool) -> float:
    """1 + 0.5 for equal choices + 0.25 for equal pairs of them + 1 for equal paths, each as a share."""
    decisions, equal = len(one), int((one == other).sum())
    total = 1 + 0.5 * equal / decisions
    if pairs:
        total += 0.25 * equal * (equal - 1) / (decisions * (decisions - 1))
    codes = features_of(space).path_codes(np.stack([one, other]))
    counts = [Counter(row[row >= 0].tolist()) for row in codes]
    return total + sum(c * counts[1][code] for code, c in counts[0].items()) / max(codes.shape[1], 1)


@pytest.mark.parametrize(
    ("space", "pairs"),
    [
        pytest.param(NASBench201Space(SHAPE), True, id="nasbench201"),
        pytest.param(BlockSpace(), True, id="blocks"),
        pytest.param(BlockSpace(options=BlockSpaceOptions(blocks=1)), False, id="one decision"),
        pytest.param(MobileNetSpace(SHAPE), True, id="mobilenet"),
        pytest.param(BlockSpace(options=BlockSpaceOptions(blocks=20)), False, id="more than 4,000 pairs"),
    ],
)
def test_products_of_features_are_the_similarity(space: SearchSpace, pairs: bool) -> None:
    basis = LinearBasis(space)
    rng = np.random.default_rng(1)
    genes = space.genes([space.sample(rng) for _ in range(12)])
    features = basis(genes)
    assert features.shape == (12, basis.size)
    assert features.dtype == np.float32
    expected = [[similarity(space, one, other, pairs) for other in genes] for one in genes]
    np.testing.assert_allclose(features @ features.T, expected, rtol=1e-5)


def test_every_cell_path_is_in_the_vocabulary() -> None:
    """A thousand random cells hold all paths that there are: 1 + 3 + 9 + 27 words, as skips are left out."""
    space = NASBench201Space(SHAPE)
    codes = features_of(space).path_codes(space.genes(list(space)))
    choices, pairs = 6 * 5, 15 * 25
    assert len(np.unique(codes[codes >= 0])) == 40
    assert LinearBasis(space).size == 1 + choices + pairs + 40


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")  # of the square root of a negative variance
def test_a_covariance_without_a_factor_is_an_error() -> None:
    with pytest.raises(np.linalg.LinAlgError, match="2 scores"):
        posterior_weights(np.ones((2, 3), dtype=np.float32), np.zeros(2), -9.0, np.random.default_rng(0))
