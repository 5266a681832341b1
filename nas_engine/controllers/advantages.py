"""From scores to learning signals: the leave-one-out baseline, GAE and path consistency, as pure functions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nas_engine.scores import FloatArray


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


def path_consistency(log_probs: Tensor, scores: Tensor, scale: float) -> Tensor:
    """How far a policy is from choosing architectures in proportion to exp(scale * score), on any sample of them.

    An optimal policy under an entropy bonus satisfies score - V = log_prob / scale for every episode that ends with
    its score, V being the soft value of the start (Nachum et al. 2017, "Bridging the gap between value and policy
    based reinforcement learning", equation 11, over whole episodes with temperature 1 / scale). The loss is half the
    mean squared difference; V is where it is least (the log-variance loss of Richter et al. 2020, "VarGrad"). Unlike a
    policy gradient it is right for samples of whatever origin.

    Args:
        log_probs: of whole architectures, [n].
        scores: theirs, [n].
        scale: nats of log-probability that a score of 1 is worth.

    Returns:
        The loss, scalar, in units of the score.
    """
    difference = scores - log_probs / scale
    return 0.5 * (difference - difference.mean()).square().mean()
