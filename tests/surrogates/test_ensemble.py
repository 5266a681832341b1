"""The reward model against the textbook: kernels written out pair by pair, posteriors by plain linear algebra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats
from sklearn.gaussian_process.kernels import RBF

from nas_engine.scores import log_rank_scores
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.features import features_of
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Space
from nas_engine.surrogates import ensemble
from nas_engine.surrogates.ensemble import LENGTH_SCALES, RewardModel
from nas_engine.testing.block_space import BlockSpace
from nas_engine.types import ImageShape

SHAPE = ImageShape(3, 32, 32, 10)
NOISE = ensemble._NOISE

Array = np.ndarray[Any, Any]
Genes = Array


@pytest.fixture(scope="module", params=["nasbench201", "disconnected", "blocks", "mobilenet"])
def space(request: pytest.FixtureRequest) -> SearchSpace:
    made: dict[str, Callable[[], SearchSpace]] = {
        "nasbench201": lambda: NASBench201Space(SHAPE),
        "disconnected": lambda: NASBench201Space(SHAPE, NASBench201Space.Options(allow_disconnected=True)),
        "blocks": BlockSpace,
        "mobilenet": lambda: MobileNetSpace(SHAPE),
    }
    return made[request.param]()


@pytest.fixture(scope="module")
def cells() -> NASBench201Space:
    return NASBench201Space(SHAPE, NASBench201Space.Options(allow_disconnected=True))


def drawn(space: SearchSpace, count: int, seed: int = 0) -> Genes:
    """Distinct architectures in random order."""
    rng = np.random.default_rng(seed)
    return space.genes(list(dict.fromkeys(space.sample(rng) for _ in range(2 * count)))[:count])


def kernel(space: SearchSpace, one: Genes, other: Genes, length: float) -> Array:
    """The sum of the four similarities, one pair of architectures after the other."""
    features = features_of(space)
    genes = [[np.exp(-3 * np.mean(a != b)) for b in other] for a in one]
    summaries = [features.summary(some) / np.sqrt(features.summary(some).shape[1]) for some in (one, other)]
    near = RBF(length)(*summaries)
    linear = [[float(np.dot(a, b)) for b in summaries[1]] for a in summaries[0]]
    total: Array = (
        ensemble._CONSTANT_WEIGHT
        + ensemble._GENES_WEIGHT * np.array(genes)
        + ensemble._SUMMARY_WEIGHT * near
        + ensemble._LINEAR_WEIGHT * np.array(linear)
    )
    return total


def posterior(
    space: SearchSpace, data: Genes, scores: Array, asked: Genes, length: float
) -> tuple[Array, Array, float]:
    """Mean, variance and log marginal likelihood (Rasmussen & Williams 2006, equations 2.25, 2.26 and 2.30)."""
    covariance = kernel(space, data, data, length) + NOISE * np.eye(len(data))
    between = kernel(space, asked, data, length)
    mean = between @ np.linalg.solve(covariance, scores)
    prior = np.diag(kernel(space, asked, asked, length))
    variance = prior - np.diag(between @ np.linalg.inv(covariance) @ between.T)
    return mean, variance, float(scipy.stats.multivariate_normal.logpdf(scores, np.zeros(len(data)), covariance))


@pytest.mark.parametrize("length", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_one_member_is_a_gaussian_process(space: SearchSpace, count: int, length: float) -> None:
    genes = drawn(space, count + 20)
    data, asked = genes[:count], genes[count // 2 :]  # half of the data are asked for too
    scores = np.random.default_rng(1).standard_normal(count)
    model = RewardModel(space, length_scales=(length,))
    model.fit(data, scores)
    mean, deviation = model.predict(asked)
    expected_mean, expected_variance, _ = posterior(space, data, scores, asked, length)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-8)
    np.testing.assert_allclose(deviation**2, expected_variance, atol=1e-8)


@pytest.mark.parametrize("proxies", [1, 3])
def test_proxies_are_an_explicit_basis(space: SearchSpace, proxies: int) -> None:
    """Their weights have a Gaussian prior with a mean (Rasmussen & Williams 2006, equations 2.38 to 2.40)."""
    genes = drawn(space, 35, seed=16)
    rng = np.random.default_rng(17)
    values, scores = rng.standard_normal((35, proxies)), rng.standard_normal(20)
    model = RewardModel(space, length_scales=(1.0,))
    model.fit(genes[:20], scores, values[:20])
    mean, deviation = model.predict(genes[20:], values[20:])
    basis, slope = values / np.sqrt(proxies), np.full(proxies, ensemble._PROXIES_SLOPE / np.sqrt(proxies))

    def covariance(one: slice, other: slice) -> Array:
        more: Array = ensemble._PROXIES_WEIGHT * basis[one] @ basis[other].T
        return kernel(space, genes[one], genes[other], 1.0) + more

    data, asked = slice(0, 20), slice(20, 35)
    gain = np.linalg.solve(covariance(data, data) + NOISE * np.eye(20), covariance(data, asked)).T
    np.testing.assert_allclose(mean, basis[asked] @ slope + gain @ (scores - basis[data] @ slope), atol=1e-8)
    expected = np.diag(covariance(asked, asked) - gain @ covariance(data, asked))
    np.testing.assert_allclose(deviation**2, expected, atol=1e-8)


def mixture(parts: Sequence[tuple[Array, Array, float]]) -> tuple[Array, Array]:
    likelihoods = np.array([likelihood for _, _, likelihood in parts])
    weights = np.exp(likelihoods - likelihoods.max())
    weights /= weights.sum()
    mean = sum(weight * m for weight, (m, _, _) in zip(weights, parts, strict=True))
    second = sum(weight * (v + m * m) for weight, (m, v, _) in zip(weights, parts, strict=True))
    return np.asarray(mean), np.asarray(second - mean * mean)


def test_members_are_mixed_by_the_marginal_likelihood(space: SearchSpace) -> None:
    genes = drawn(space, 45, seed=2)
    data, asked = genes[:25], genes[25:]
    scores = np.random.default_rng(3).standard_normal(25)
    model = RewardModel(space)
    model.fit(data, scores)
    mean, deviation = model.predict(asked)
    parts = [posterior(space, data, scores, asked, length) for length in LENGTH_SCALES]
    expected_mean, expected_variance = mixture(parts)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-8)
    np.testing.assert_allclose(deviation**2, expected_variance, atol=1e-8)
    # The members say different things here: equal weights would be seen.
    equal, _ = mixture([(m, v, 0.0) for m, v, _ in parts])
    assert np.abs(mean - equal).max() > 1e-3


@pytest.mark.parametrize(("generating", "others"), [(0.05, (0.5, 5.0)), (5.0, (0.05, 0.5))])
def test_the_data_choose_the_length_scale(cells: NASBench201Space, generating: float, others: Sequence[float]) -> None:
    """Scores drawn from one of three members: the mixture predicts what that member predicts."""
    genes = drawn(cells, 140, seed=4)
    data, asked = genes[:120], genes[120:]
    covariance = kernel(cells, data, data, generating) + NOISE * np.eye(len(data))
    scores = np.linalg.cholesky(covariance) @ np.random.default_rng(5).standard_normal(len(data))
    alone, together = RewardModel(cells, (generating,)), RewardModel(cells, (*others, generating))
    alone.fit(data, scores)
    together.fit(data, scores)
    np.testing.assert_allclose(together.predict(asked)[0], alone.predict(asked)[0], atol=0.02)
    wrong = RewardModel(cells, others)
    wrong.fit(data, scores)
    assert np.abs(wrong.predict(asked)[0] - alone.predict(asked)[0]).max() > 0.1


def test_predictions_do_not_depend_on_the_order_of_the_data(space: SearchSpace) -> None:
    genes = drawn(space, 60, seed=6)
    data, asked = genes[:40], genes[40:]
    scores = np.random.default_rng(7).standard_normal(40)
    model, other = RewardModel(space), RewardModel(space)
    model.fit(data, scores)
    order = np.random.default_rng(8).permutation(40)
    other.fit(data[order], scores[order])
    np.testing.assert_allclose(model.predict(asked), other.predict(asked), atol=1e-8)
    one_by_one = np.array([model.predict(asked[[row]]) for row in range(20)])[:, :, 0].T
    np.testing.assert_allclose(model.predict(asked), one_by_one, atol=1e-10)


def test_a_fit_forgets_the_one_before(space: SearchSpace) -> None:
    genes = drawn(space, 50, seed=9)
    scores = np.random.default_rng(10).standard_normal(30)
    model, fresh = RewardModel(space), RewardModel(space)
    model.fit(genes[:30], scores)
    model.fit(genes[10:20], scores[10:20])
    fresh.fit(genes[10:20], scores[10:20])
    np.testing.assert_array_equal(model.predict(genes[30:]), fresh.predict(genes[30:]))


def test_it_is_sure_where_it_has_been_and_unsure_far_away(cells: NASBench201Space) -> None:
    """At the data only noise is left; the cell that is least like the data is nearly as unknown as before."""
    data = drawn(cells, 30, seed=11)
    everything = cells.genes(list(cells))
    scores = np.sin(np.arange(30.0))
    model = RewardModel(cells, (1.0,))
    model.fit(data, scores)
    mean, deviation = model.predict(data)
    assert (deviation**2 <= NOISE).all()
    assert (deviation**2 > 0.2 * NOISE).all()
    np.testing.assert_allclose(mean, scores, atol=0.5)
    lone = RewardModel(cells, (1.0,))
    lone.fit(data[:1], scores[:1])
    [[at], [prior]] = lone.predict(data[:1])[1:], np.diag(kernel(cells, data[:1], data[:1], 1.0))[None]
    assert at**2 == pytest.approx(NOISE * prior / (prior + NOISE), rel=1e-6)
    _, everywhere = lone.predict(everything)
    farthest = everything[[int(np.argmax(everywhere))]]
    expected = kernel(cells, farthest, farthest, 1.0)[0, 0]
    # All that one score tells of a cell far away is the constant they share.
    assert everywhere.max() ** 2 > expected - 1.0
    assert everywhere.max() > 9 * at  # of about 10; the deviation of the noise is 0.32


def test_repeated_architectures_and_no_scatter_are_no_obstacle(cells: NASBench201Space) -> None:
    """Equal scores: zero everywhere. Cells that look alike to the model: the noise keeps the factors positive."""
    data = drawn(cells, 50, seed=12)
    model = RewardModel(cells)
    model.fit(data, np.zeros(50))
    assert np.abs(model.predict(data)[0]).max() == 0
    model.fit(np.repeat(data[:2], 20, axis=0), np.tile([1.0, -1.0], 20))
    assert np.isfinite(model.predict(data)).all()


def test_it_predicts_what_it_has_not_seen(cells: NASBench201Space) -> None:
    """MACs of cells, learned from 60 of them: the order of 500 others is nearly right."""
    genes = drawn(cells, 560, seed=13)
    cost = np.sqrt(cells.known_metrics(genes)[:, 1])
    model = RewardModel(cells)
    model.fit(genes[:60], log_rank_scores(cost[:60]))
    mean, _ = model.predict(genes[60:])
    assert scipy.stats.spearmanr(mean, cost[60:]).statistic > 0.95


@pytest.mark.parametrize("change", [lambda r: 3 * r - 7, np.exp, lambda r: r**3, lambda r: 1e300 * r, np.arctan])
def test_scores_do_not_change_with_the_unit(change: Callable[[Array], Array]) -> None:
    rewards = np.random.default_rng(14).uniform(-2, 2, 50)
    np.testing.assert_array_equal(log_rank_scores(change(rewards)), log_rank_scores(rewards))


def test_scores_are_centred_in_order_and_steepest_at_the_top() -> None:
    rewards = np.random.default_rng(15).permutation(100).astype(float)
    scores = log_rank_scores(rewards)
    assert scores.mean() == pytest.approx(0, abs=1e-12)
    assert scores.std() == pytest.approx(1)
    in_order = scores[np.argsort(rewards)]
    assert (np.diff(in_order) > 0).all()
    assert (np.diff(in_order, n=2) > 0).all()
    # The best stands before the second by log(1.5 / 0.5), the second before the third by log(2.5 / 1.5).
    assert np.diff(in_order)[-1] / np.diff(in_order)[-2] == pytest.approx(np.log(3) / np.log(5 / 3))


def test_equal_rewards_share_a_score() -> None:
    scores = log_rank_scores(np.array([5.0, 1.0, 5.0, 3.0, 1.0, 1.0]))
    assert scores[0] == scores[2]
    assert scores[1] == scores[4] == scores[5]
    assert scores[0] > scores[3] > scores[1]
    # Two share the ranks 1 and 2, three the ranks 4 to 6.
    raw = -np.log(np.array([1.5, 5.0, 1.5, 3.0, 5.0, 5.0]) - 0.5)
    np.testing.assert_allclose(scores, (raw - raw.mean()) / raw.std())


@pytest.mark.parametrize("rewards", [[0.7], [3.0] * 9, [-1e308] * 4])
def test_scores_without_differences_are_zero(rewards: list[float]) -> None:
    np.testing.assert_allclose(log_rank_scores(np.array(rewards)), 0, atol=1e-6)


def test_one_penalty_does_not_hide_the_differences_above_it() -> None:
    rewards = np.linspace(0.90, 0.94, 20)
    before, after = log_rank_scores(rewards), log_rank_scores(np.append(rewards, -1e9))
    assert np.corrcoef(before, after[:-1])[0, 1] > 0.999
    assert after.argmin() == 20


def test_a_kernel_without_a_factor_is_an_error(cells: NASBench201Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "_NOISE", -9.0)
    with pytest.raises(np.linalg.LinAlgError, match="5 architectures"):
        RewardModel(cells).fit(drawn(cells, 5, seed=14), np.arange(5.0))


def test_what_is_not_finite_is_refused(cells: NASBench201Space) -> None:
    data, scores = drawn(cells, 5, seed=13), np.arange(5.0)
    model = RewardModel(cells)
    with pytest.raises(ValueError, match="scores"):
        model.fit(data, np.where(scores == 2, np.nan, scores))
    with pytest.raises(ValueError, match="proxies"):
        model.fit(data, scores, np.full((5, 1), np.inf))
    model.fit(data, scores, np.zeros((5, 1)))
    with pytest.raises(ValueError, match="proxies"):
        model.predict(data, np.full((5, 1), np.nan))
