"""Rewards as scores on a scale that learning can be tuned for, relative to all rewards known; pure functions."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

Scoring = Literal["rank", "standardised", "raw"]


def score(rewards: FloatArray, known: FloatArray, scoring: Scoring) -> FloatArray:
    """Rewards [n] as scores [n] on a scale that learning rates can be chosen for.

    Args:
        rewards: higher is better.
        known: all rewards seen so far, those of this batch included.
        scoring: ``rank`` and ``standardised`` as in `ranks` and `standardised`; ``raw`` leaves rewards as they are.
    """
    if scoring == "rank":
        return ranks(rewards, known)
    return standardised(rewards, known) if scoring == "standardised" else rewards


def ranks(rewards: FloatArray, known: FloatArray) -> FloatArray:
    """Where rewards stand among the known ones: -1 below all, 0 the median or a tie of all, 1 above all.

    Any increasing transformation of the rewards leaves the scores as they are: no unit, no outlier matters.
    """
    return 2 * middles(rewards, known) / max(len(known), 1) - 1.0


def middles(rewards: FloatArray, known: FloatArray) -> FloatArray:
    """How many of the known rewards are below each of `rewards` [n], with half of those equal to it, [n].

    Where `rewards` are the known ones themselves, that is their rank from 1 less a half; equals share the mean rank.
    """
    ordered = np.sort(known)
    below, up_to = np.searchsorted(ordered, rewards, "left"), np.searchsorted(ordered, rewards, "right")
    middle: FloatArray = (below + up_to) / 2
    return middle


def standardised(rewards: FloatArray, known: FloatArray) -> FloatArray:
    """Rewards in (population) standard deviations from the mean of the known ones; 0 where those are all equal."""
    largest = np.abs(known).max(initial=0.0)
    if largest == 0.0:
        return np.zeros(len(rewards))
    scaled = known / largest  # so that the squares of rewards up to the largest float do not overflow
    deviation = scaled.std()
    # Rounding alone gives equal rewards a deviation of about 1e-17: they score 0 all the same.
    scores: FloatArray = (rewards / largest - scaled.mean()) / max(deviation, 1e-12)
    return scores


def log_rank_scores(rewards: FloatArray) -> FloatArray:
    """Rewards [n] as scores with mean 0 and deviation 1: minus the logarithm of the rank, the best being first.

    Any increasing transformation of the rewards gives the same scores, and differences among the best count most:
    a model of them need not spend itself on how bad the bad ones are. Equal rewards share their mean rank.
    """
    scores = -np.log(middles(-rewards, -rewards))
    centred: FloatArray = scores - scores.mean()
    return centred / max(float(centred.std()), 1e-9)
