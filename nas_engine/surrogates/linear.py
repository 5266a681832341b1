"""A Bayesian linear model of rewards: which choices, which pairs of them and which paths go with a good one."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack

from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.features import features_of

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_CHOICES_VARIANCE, _PAIRS_VARIANCE, _PATHS_VARIANCE = 0.5, 0.25, 1.0
_MOST_PAIRS = 4_000
_VOCABULARY_SAMPLES = 1_000


class LinearBasis:
    """Features whose weights are learned: choices, pairs of choices, and paths of a cell.

    The groups are scaled to the prior variances 0.5, 0.25 and 1: pairs refine what single choices explain. Spaces with
    more than 4,000 pairs of choices do without those.

    Attributes:
        size: number of features.
    """

    def __init__(self, space: SearchSpace) -> None:
        """Set up the columns."""
        self._choices = [len(decision.choices) for decision in space.decisions]
        self._offsets = np.concatenate([[0], np.cumsum(self._choices)[:-1]])
        self._pairs = list(itertools.combinations(range(len(self._choices)), 2))
        if sum(self._choices[i] * self._choices[j] for i, j in self._pairs) > _MOST_PAIRS:
            self._pairs = []
        self._graph = features_of(space)
        rng = np.random.default_rng(0)
        drawn = space.genes(space.samples(rng, _VOCABULARY_SAMPLES))
        codes = np.unique(self._graph.path_codes(drawn))
        self._paths = codes[codes >= 0]
        pair_columns = sum(self._choices[i] * self._choices[j] for i, j in self._pairs)
        self.size = 1 + sum(self._choices) + pair_columns + len(self._paths)

    def __call__(self, genes: IntArray) -> npt.NDArray[np.float32]:
        """Features of valid `genes` [n, decisions], float32 [n, size]."""
        n, rows = len(genes), np.arange(len(genes))
        singles = np.zeros((n, sum(self._choices)), dtype=np.float32)
        for decision, offset in enumerate(self._offsets):
            singles[rows, offset + genes[:, decision]] = (_CHOICES_VARIANCE / len(self._choices)) ** 0.5
        blocks = [np.ones((n, 1), dtype=np.float32), singles]
        for first, second in self._pairs:
            block = np.zeros((n, self._choices[first] * self._choices[second]), dtype=np.float32)
            both = genes[:, first] * self._choices[second] + genes[:, second]
            block[rows, both] = (_PAIRS_VARIANCE / len(self._pairs)) ** 0.5
            blocks.append(block)
        codes = self._graph.path_codes(genes)
        scale = np.float32((_PATHS_VARIANCE / max(codes.shape[1], 1)) ** 0.5)
        counts = np.zeros((n, len(self._paths)), dtype=np.float32)
        for path in codes.T:  # one after the other: all at once would need [n, paths, vocabulary]
            counts += path[:, None] == self._paths
        return np.concatenate([*blocks, counts * scale], axis=1)


def posterior_weights(
    features: npt.NDArray[np.float32], scores: FloatArray, noise: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """One draw of the weights given data, float32 [size]; prior N(0, I).

    A prior draw is corrected by what it gets wrong on the data ("Matheron's rule", Wilson et al. 2021, "Pathwise
    conditioning of Gaussian processes", equation 9): one system of n equations, whatever the number of weights.

    Args:
        features: float32 [n, size].
        scores: [n].
        noise: variance of the noise of a score.
        rng: source of randomness.
    """
    prior = rng.standard_normal(features.shape[1:]).astype(np.float32)
    wrong = scores - features @ prior - rng.standard_normal(len(scores)) * noise**0.5
    covariance = (features @ features.T).astype(np.float64)
    covariance.flat[:: len(covariance) + 1] += noise
    # LAPACK itself: scipy.linalg.solve takes longer to look at a system of this size than it takes to solve it.
    _, solution, failed = lapack.dposv(covariance, wrong)
    if failed:
        raise np.linalg.LinAlgError(f"the covariance of {len(scores)} scores is not positive definite")
    correction = features.T @ solution.astype(np.float32)
    weights: npt.NDArray[np.float32] = prior + correction
    return weights
