"""How well cheap scores rank architectures: correlation with the accuracies of networks trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from nas_engine.errors import ConfigError
from nas_engine.evaluators.base import Evaluator
from nas_engine.types import Architecture, Fidelity

FloatArray = npt.NDArray[np.float64]

_RESAMPLES = 4_000


@dataclass(frozen=True, slots=True)
class RankQuality:
    """Rank correlation between search scores and stand-alone accuracies.

    Attributes:
        n: architectures compared.
        dropped: architectures left out because one of their two scores is not finite.
        tau: Kendall's tau-b, in [-1, 1]; NaN where all scores on one side are equal.
        tau_low: lower end of the 95 % bootstrap interval of tau.
        tau_high: upper end.
        spearman: Spearman's rho, in [-1, 1].
    """

    n: int
    dropped: int
    tau: float
    tau_low: float
    tau_high: float
    spearman: float


def rank_quality(scores: Sequence[float], accuracies: Sequence[float], seed: int = 0) -> RankQuality:
    """Compare two scores of the same architectures.

    Args:
        scores: what the search saw, [n]; NaN stands for a failed evaluation.
        accuracies: of networks trained from scratch, [n].
        seed: of the bootstrap.

    Raises:
        ConfigError: different lengths, or fewer than 3 pairs of finite scores.
    """
    first, second = np.asarray(scores, dtype=np.float64), np.asarray(accuracies, dtype=np.float64)
    if first.shape != second.shape:
        raise ConfigError(f"{first.size} scores cannot be compared with {second.size} accuracies: give as many of both")
    finite = np.isfinite(first) & np.isfinite(second)
    first, second = first[finite], second[finite]
    if first.size < 3:
        raise ConfigError(f"rank quality needs at least 3 architectures with finite scores, got {first.size}: add more")
    constant = np.ptp(first) == 0 or np.ptp(second) == 0
    low, high = _interval(first, second, np.random.default_rng(seed))
    return RankQuality(
        n=int(first.size),
        dropped=int((~finite).sum()),
        tau=float("nan") if constant else float(stats.kendalltau(first, second, variant="b").statistic),
        tau_low=low,
        tau_high=high,
        spearman=float("nan") if constant else float(stats.spearmanr(first, second).statistic),
    )


def measure_rank_quality(
    evaluator: Evaluator,
    architectures: Sequence[Architecture],
    accuracies: Sequence[float],
    fidelity: Fidelity | None = None,
) -> RankQuality:
    """Score `architectures` with `evaluator` and compare with their stand-alone `accuracies`; failures are dropped.

    Raises:
        ConfigError: different lengths, or fewer than 3 architectures with two finite scores.
    """
    outcomes = evaluator.evaluate(architectures, fidelity)
    return rank_quality([outcome.values.get("accuracy", np.nan) for outcome in outcomes], accuracies)


def _interval(first: FloatArray, second: FloatArray, rng: np.random.Generator) -> tuple[float, float]:
    """Percentile bootstrap (Efron & Tibshirani 1993, chapter 13) over architectures; NaN where tau is undefined."""
    n = first.size
    weights = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(np.float64)
    # tau-b of a resample needs no sorting: each pair counts as often as both its members were drawn.
    sign_first, sign_second = (np.sign(x[:, None] - x[None, :]) for x in (first, second))
    concordance = _pair_sums(weights, sign_first * sign_second)
    untied = _pair_sums(weights, np.abs(sign_first)) * _pair_sums(weights, np.abs(sign_second))
    valid = untied > 0
    if not valid.any():
        return float("nan"), float("nan")
    low, high = np.quantile(concordance[valid] / np.sqrt(untied[valid]), [0.025, 0.975])
    return float(low), float(high)


def _pair_sums(weights: FloatArray, pairs: FloatArray) -> FloatArray:
    sums: FloatArray = np.einsum("ri,ri->r", weights @ pairs, weights)
    return sums
