"""Scores, baselines and GAE against closed forms and loops written from their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_engine.controllers.advantages import (
    clipped_surrogate,
    explained_variance,
    generalised_advantages,
    leave_one_out,
    path_consistency,
)
from nas_engine.scores import ranks, score, standardised

REWARDS = st.lists(st.integers(-1000, 1000), min_size=1, max_size=20).map(lambda r: np.array(r, dtype=np.float64))


@given(REWARDS)
def test_ranks_do_not_depend_on_the_scale(rewards):
    expected = ranks(rewards, rewards)
    for transformed in (3e20 * rewards + 7, np.exp(rewards / 500), np.cbrt(rewards)):
        np.testing.assert_array_equal(ranks(transformed, transformed), expected)


@given(REWARDS)
def test_ranks_count_what_is_below_and_above(rewards):
    below_minus_above = [np.mean(np.sign(reward - rewards)) for reward in rewards]
    np.testing.assert_allclose(ranks(rewards, rewards), below_minus_above, atol=1e-12)


def test_ranks_are_relative_to_all_known_rewards():
    known = np.array([0.0, 1.0, 2.0, 3.0])
    np.testing.assert_allclose(ranks(np.array([-1.0, 1.5, 9.0]), known), [-1.0, 0.0, 1.0])


def test_standardised_rewards_have_mean_0_and_deviation_1():
    rewards = np.random.default_rng(0).normal(5.0, 3.0, 50)
    scores = standardised(rewards, rewards)
    assert scores.mean() == pytest.approx(0, abs=1e-12)
    assert scores.std() == pytest.approx(1)
    np.testing.assert_allclose(standardised(rewards[:5], rewards), scores[:5])


@pytest.mark.parametrize("reward", [0.0, 0.1, -1e30, 1.7e308])
def test_equal_rewards_score_0(reward):
    rewards = np.full(7, reward)
    np.testing.assert_allclose(standardised(rewards, rewards), np.zeros(7), atol=1e-3)
    np.testing.assert_array_equal(ranks(rewards, rewards), np.zeros(7))


def test_standardising_huge_rewards_does_not_overflow():
    rewards = np.array([1.7e308, -1.7e308])
    np.testing.assert_allclose(standardised(rewards, rewards), [1.0, -1.0])


def test_raw_scores_are_the_rewards():
    rewards = np.array([3.0, -2.0])
    np.testing.assert_array_equal(score(rewards, rewards, "raw"), rewards)


@given(REWARDS.filter(lambda rewards: len(rewards) > 1))
def test_leave_one_out_is_the_mean_of_the_others(scores):
    expected = [np.delete(scores, index).mean() for index in range(len(scores))]
    np.testing.assert_allclose(leave_one_out(scores), expected, atol=1e-9)


def test_a_single_score_is_its_own_baseline():
    np.testing.assert_array_equal(leave_one_out(np.array([0.3])), [0.3])


def test_gae_closed_form_for_a_constant_value():
    """With V = v everywhere and one final reward r, the errors are (gamma - 1) v, and r - v at the end."""
    steps, gamma, lam, value, reward = 6, 0.9, 0.8, 2.0, 5.0
    rewards = np.zeros((1, steps))
    rewards[0, -1] = reward
    advantages = generalised_advantages(rewards, np.full_like(rewards, value), gamma, lam)
    for step in range(steps):
        rest = steps - 1 - step
        inner = (gamma - 1) * value * (1 - (gamma * lam) ** rest) / (1 - gamma * lam)
        assert float(advantages[0, step]) == pytest.approx(inner + (gamma * lam) ** rest * (reward - value))


def test_gae_of_lambda_1_is_return_minus_value():
    rewards, values = np.random.default_rng(0).standard_normal((2, 4, 5))
    gamma = 0.7
    returns = np.stack([sum(gamma**k * rewards[:, t + k] for k in range(5 - t)) for t in range(5)], axis=1)
    np.testing.assert_allclose(generalised_advantages(rewards, values, gamma, 1.0), returns - values)


def test_gae_of_lambda_0_is_the_temporal_difference():
    rewards, values = np.random.default_rng(1).standard_normal((2, 3, 4))
    advantages = generalised_advantages(rewards, values, 0.9, 0.0)
    np.testing.assert_allclose(advantages[:, :-1], rewards[:, :-1] + 0.9 * values[:, 1:] - values[:, :-1])
    np.testing.assert_allclose(advantages[:, -1], rewards[:, -1] - values[:, -1])


def test_explained_variance():
    actual = np.array([1.0, 2.0, 3.0])
    assert explained_variance(actual, actual) == pytest.approx(1)
    assert explained_variance(np.full(3, 2.0), actual) == pytest.approx(0)
    assert explained_variance(actual, np.ones(3)) == 0.0


def slopes(function, at):
    """Central differences of a function of a vector."""
    steps = 1e-6 * np.eye(len(at))
    return np.array([(function(at + step) - function(at - step)) / 2e-6 for step in steps])


def test_the_slope_of_the_surrogate_is_that_of_the_clipped_ratio():
    """All four cases: the ratio beyond the clip on either side, the advantage of either sign."""
    log_ratio = np.array([-0.5, -0.5, 0.5, 0.5, 0.05, 0.05])
    advantages = np.array([2.0, -2.0, 2.0, -2.0, 2.0, -2.0])
    surrogate, slope, beyond = clipped_surrogate(log_ratio, advantages, 0.2)
    ratio = np.exp(log_ratio)
    np.testing.assert_allclose(surrogate, [2 * ratio[0], -1.6, 2.4, -2 * ratio[3], 2 * ratio[4], -2 * ratio[5]])
    np.testing.assert_allclose(slope, slopes(lambda x: clipped_surrogate(x, advantages, 0.2)[0].sum(), log_ratio))
    assert beyond.tolist() == [True, True, True, True, False, False]


def test_path_consistency_is_zero_where_log_probabilities_are_scaled_scores_and_its_gradient_is_one():
    rng = np.random.default_rng(0)
    scores, log_probs = rng.standard_normal((2, 7))
    assert path_consistency(3.0 * scores - 11.0, scores, 3.0)[0] == pytest.approx(0, abs=1e-20)
    loss, gradient = path_consistency(log_probs, scores, 3.0)
    assert loss == pytest.approx(0.5 * np.var(scores - log_probs / 3.0))
    np.testing.assert_allclose(gradient, slopes(lambda x: path_consistency(x, scores, 3.0)[0], log_probs), atol=1e-8)
