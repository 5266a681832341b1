"""From rewards to learning signals: scale-free scores, the leave-one-out baseline, and GAE, as pure functions."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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
    ordered = np.sort(known)
    below, up_to = np.searchsorted(ordered, rewards, "left"), np.searchsorted(ordered, rewards, "right")
    scores: FloatArray = (below + up_to) / max(len(known), 1) - 1.0
    return scores


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


def leave_one_out(scores: FloatArray) -> FloatArray:
    """For each of n scores the mean of the n - 1 others: a baseline that is independent of the sample it judges.

    Source: Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free", equation 8. A single score has no
    others; it is its own baseline and teaches nothing.
    """
    if len(scores) < 2:
        return scores.copy()
    with np.errstate(over="ignore", invalid="ignore"):  # raw rewards near the largest float: the NaN guard acts
        others: FloatArray = (scores.sum() - scores) / (len(scores) - 1)
    return others


def generalised_advantages(rewards: Tensor, values: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """GAE over complete episodes (Schulman et al. 2016, equations 11, 12 and 16).

    Args:
        rewards: [episodes, steps], received after each step.
        values: [episodes, steps], predicted before each step; the value after the last step is 0.
        gamma: discount in [0, 1].
        gae_lambda: 1 gives the returns minus the values, 0 the one-step temporal differences.

    Returns:
        Advantages [episodes, steps].
    """
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    errors = rewards + gamma * following - values
    advantages = torch.zeros_like(errors)
    running = torch.zeros_like(errors[:, 0])
    for step in range(errors.shape[1] - 1, -1, -1):
        running = errors[:, step] + gamma * gae_lambda * running
        advantages[:, step] = running
    return advantages


def explained_variance(predicted: Tensor, actual: Tensor) -> float:
    """1 - Var(actual - predicted) / Var(actual); 0 where the actual values do not vary."""
    variance = actual.var(correction=0)
    return float(1 - (actual - predicted).var(correction=0) / variance) if variance > 1e-12 else 0.0
