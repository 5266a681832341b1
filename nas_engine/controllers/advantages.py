"""From scores to learning signals: leave-one-out baseline, GAE, PPO's surrogate, path consistency; pure functions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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


def generalised_advantages(rewards: FloatArray, values: FloatArray, gamma: float, gae_lambda: float) -> FloatArray:
    """GAE over complete episodes (Schulman et al. 2016, equations 11, 12 and 16).

    Args:
        rewards: [episodes, steps], received after each step.
        values: [episodes, steps], predicted before each step; the value after the last step is 0.
        gamma: discount in [0, 1].
        gae_lambda: 1 gives the returns minus the values, 0 the one-step temporal differences.

    Returns:
        Advantages [episodes, steps].
    """
    advantages = rewards - values
    advantages[:, :-1] += gamma * values[:, 1:]  # the temporal differences
    for step in range(rewards.shape[1] - 2, -1, -1):
        advantages[:, step] += gamma * gae_lambda * advantages[:, step + 1]
    return advantages


def clipped_surrogate(
    log_ratio: FloatArray, advantages: FloatArray, clip_coef: float
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """What PPO raises: ``min(ratio * advantage, clip(ratio) * advantage)`` (Schulman et al. 2017, equation 7).

    Args:
        log_ratio: log-probability under the new policy minus that under the old one.
        advantages: of the same shape.
        clip_coef: ratios are clipped to 1 - this .. 1 + this.

    Returns:
        The surrogate, its slope in `log_ratio` (0 where the clipped ratio decides) and whether the ratio was beyond
        the clip, all of the same shape.
    """
    ratio = np.exp(log_ratio)
    clipped = ratio.clip(1 - clip_coef, 1 + clip_coef)
    gain, bounded = advantages * ratio, advantages * clipped
    return np.minimum(gain, bounded), np.where(gain <= bounded, gain, 0.0), ratio != clipped


def explained_variance(predicted: FloatArray, actual: FloatArray) -> float:
    """1 - Var(actual - predicted) / Var(actual); 0 where the actual values do not vary."""
    variance = actual.var()
    return float(1 - (actual - predicted).var() / variance) if variance > 1e-12 else 0.0


def path_consistency(log_probs: FloatArray, scores: FloatArray, scale: float) -> tuple[float, FloatArray]:
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
        The loss, in units of the squared score, and its gradient with respect to `log_probs`, [n].
    """
    difference = scores - log_probs / scale
    difference -= difference.mean()
    return 0.5 * float(np.square(difference).mean()), -difference / (scale * len(difference))
