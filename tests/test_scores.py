"""Ranks of rewards against those of scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from nas_engine.scores import log_rank_scores, middles


@pytest.mark.parametrize("rewards", [[3.0], [2.0, 1.0, 3.0], [1.0, 1.0, 0.5, 1.0, 7.0, 0.5], [4.0] * 5], ids=str)
def test_middles_are_mean_ranks_less_a_half(rewards: list[float]) -> None:
    known = np.array(rewards)
    np.testing.assert_array_equal(middles(known, known), rankdata(known) - 0.5)
    np.testing.assert_array_equal(middles(known, np.append(known, 9.0)), rankdata(known) - 0.5)


def test_middles_count_what_is_below() -> None:
    known = np.array([1.0, 2.0, 2.0, 3.0])
    np.testing.assert_array_equal(middles(np.array([0.0, 1.5, 2.0, 9.0]), known), [0.0, 1.0, 2.0, 4.0])


def test_scores_are_minus_logarithms_of_ranks_from_the_best() -> None:
    rewards = np.array([0.3, 0.9, 0.9, -1.0])
    expected = -np.log(np.array([2.5, 1.0, 1.0, 3.5]))
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(log_rank_scores(rewards), expected)
