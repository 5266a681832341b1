"""Rank correlation against scipy, closed forms and a plain bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nas_engine.errors import ConfigError
from nas_engine.evaluators.rank_quality import measure_rank_quality, rank_quality
from nas_engine.evaluators.training import TrainingEvaluator, TrainingOptions
from nas_engine.testing.faulty_space import FaultySpace

few_levels = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=20)


def test_equal_and_opposite_order():
    assert rank_quality([1, 2, 3, 4], [10, 20, 30, 50]).tau == pytest.approx(1)
    assert rank_quality([1, 2, 3, 4], [10, 20, 30, 50]).spearman == pytest.approx(1)
    assert rank_quality([1, 2, 3, 4], [4, 3, 2, 1]).tau == pytest.approx(-1)


def test_one_swap_of_neighbours_has_a_closed_form():
    # One of the 10 pairs of 5 architectures is discordant: (9 - 1) / 10.
    assert rank_quality([1, 2, 3, 4, 5], [1, 3, 2, 4, 5]).tau == pytest.approx(0.8)


@given(few_levels)
@settings(deadline=None, max_examples=25)
def test_ties_are_counted_as_scipy_counts_them(pairs):
    scores, accuracies = zip(*pairs, strict=True)
    quality = rank_quality(scores, accuracies)
    tau = stats.kendalltau(scores, accuracies).statistic
    assert quality.tau == pytest.approx(tau, nan_ok=True)
    assert math.isnan(tau) or -1 <= quality.tau_low <= quality.tau_high <= 1


def test_the_interval_is_the_percentile_bootstrap_of_scipys_tau():
    rng = np.random.default_rng(3)
    accuracies = rng.normal(size=24).round(1)
    scores = accuracies + rng.normal(size=24)
    resamples = rng.integers(24, size=(1000, 24))
    taus = [stats.kendalltau(scores[i], accuracies[i]).statistic for i in resamples]
    quality = rank_quality(scores, accuracies)
    # 1,000 resamples put the ends within about 0.02.
    assert [quality.tau_low, quality.tau_high] == pytest.approx(np.quantile(taus, [0.025, 0.975]).tolist(), abs=0.03)
    assert quality.tau_low < quality.tau < quality.tau_high


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    # Bivariate normal: tau = 2 / pi * asin(rho).
    rng, rho, covered = np.random.default_rng(0), 0.7, 0
    truth = 2 / math.pi * math.asin(rho)
    for seed in range(40):
        x = rng.normal(size=32)
        quality = rank_quality(x, rho * x + math.sqrt(1 - rho**2) * rng.normal(size=32), seed)
        covered += quality.tau_low <= truth <= quality.tau_high
    assert covered >= 33


def test_architectures_without_finite_scores_are_dropped():
    quality = rank_quality([1, math.nan, 2, 3, 4], [1, 2, 2, 3, math.nan])
    assert (quality.n, quality.dropped) == (3, 2)
    assert quality.tau == pytest.approx(1)


def test_equal_scores_say_nothing():
    quality = rank_quality([5, 5, 5, 5], [1, 2, 3, 4])
    assert all(map(math.isnan, (quality.tau, quality.tau_low, quality.tau_high, quality.spearman)))


@pytest.mark.parametrize(
    ("scores", "accuracies", "message"),
    [
        ([1, 2], [1, 2], "at least 3 architectures with finite scores, got 2"),
        ([1, 2, math.nan], [1, 2, 3], "at least 3 architectures with finite scores, got 2"),
        ([1, 2, 3], [1, 2, 3, 4], "3 scores cannot be compared with 4"),
    ],
)
def test_what_cannot_be_compared_is_refused(scores, accuracies, message):
    with pytest.raises(ConfigError, match=message):
        rank_quality(scores, accuracies)


def test_failed_evaluations_are_dropped(few_digits, space):
    architectures = [space.architecture([gene] * 6) for gene in (1, 2, 3, 4)]

    def fail(logits):
        raise RuntimeError("broken")

    evaluator = TrainingEvaluator(FaultySpace(space, architectures[0], fail), few_digits, TrainingOptions(epochs=1))
    accuracies = [o.values.get("accuracy", 0.5) for o in evaluator.evaluate(architectures)]
    quality = measure_rank_quality(evaluator, architectures, accuracies)
    assert (quality.n, quality.dropped) == (3, 1)
    assert quality.tau == pytest.approx(1)
