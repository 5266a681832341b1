"""Scores, baselines and GAE against closed forms and loops written from their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas_engine.controllers.advantages import explained_variance, generalised_advantages, leave_one_out
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
    rewards = torch.zeros(1, steps, dtype=torch.float64)
    rewards[0, -1] = reward
    advantages = generalised_advantages(rewards, torch.full_like(rewards, value), gamma, lam)
    for step in range(steps):
        rest = steps - 1 - step
        inner = (gamma - 1) * value * (1 - (gamma * lam) ** rest) / (1 - gamma * lam)
        assert float(advantages[0, step]) == pytest.approx(inner + (gamma * lam) ** rest * (reward - value))


def test_gae_of_lambda_1_is_return_minus_value():
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    gamma = 0.7
    returns = torch.stack([sum(gamma**k * rewards[:, t + k] for k in range(5 - t)) for t in range(5)], dim=1)
    torch.testing.assert_close(generalised_advantages(rewards, values, gamma, 1.0), returns - values)


def test_gae_of_lambda_0_is_the_temporal_difference():
    generator = torch.Generator().manual_seed(1)
    rewards, values = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    advantages = generalised_advantages(rewards, values, 0.9, 0.0)
    torch.testing.assert_close(advantages[:, :-1], rewards[:, :-1] + 0.9 * values[:, 1:] - values[:, :-1])
    torch.testing.assert_close(advantages[:, -1], rewards[:, -1] - values[:, -1])


def test_explained_variance():
    actual = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(actual, actual) == pytest.approx(1)
    assert explained_variance(torch.full((3,), 2.0), actual) == pytest.approx(0)
    assert explained_variance(actual, torch.ones(3)) == 0.0
