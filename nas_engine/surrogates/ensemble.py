"""A reward model with uncertainty: an ensemble of Gaussian processes over the features of architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from nas_engine.scores import FloatArray
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.features import features_of

IntArray = npt.NDArray[np.int64]

LENGTH_SCALES = (0.7, 1.0, 1.4)
_GENES_WEIGHT, _PATHS_WEIGHT, _SUMMARY_WEIGHT, _CONSTANT_WEIGHT = 0.3, 0.3, 1.0, 1.0
_PROXIES_WEIGHT = 0.5
_NOISE = 0.02


@dataclass(frozen=True)
class Points:
    """Architectures as the kernels see them.

    Attributes:
        genes: int64 [n, decisions].
        summary: float64 [n, features], scaled so that two random architectures are about sqrt(2) apart.
        paths: int64 [n, paths], see `nas_engine.spaces.features.ArchitectureFeatures.path_codes`.
        proxies: float64 [n, proxies], standardised.
    """

    genes: IntArray
    summary: FloatArray
    paths: IntArray
    proxies: FloatArray


class RewardModel:
    """Predicts scores of architectures, and how far it may be wrong, from those evaluated so far.

    Each member is a Gaussian process (Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning",
    algorithm 2.1) whose kernel adds four similarities: equal genes (exp of minus the Hamming distance over a third
    of the decisions), equal paths from input to output of a cell (the number of pairs that carry the same
    operations), near features of the graph (squared exponential), and a constant. Members differ in the length scale
    of the third; their predictions are averaged with weights in proportion to the marginal likelihood of the data
    (equation 2.30), so that the data decide how rugged the landscape is.
    """

    def __init__(self, space: SearchSpace, length_scales: Sequence[float] = LENGTH_SCALES) -> None:
        """Start without data.

        Args:
            space: whose architectures are predicted.
            length_scales: one for each member, on features whose distance between random architectures is about 1.4.
        """
        self._length_scales = tuple(length_scales)
        self._features = features_of(space)
        self._decay = len(space.decisions) / 3
        self._data = self.points(np.empty((0, len(space.decisions)), dtype=np.int64))
        self._path_scale = 1.0
        self._members: list[tuple[float, FloatArray, FloatArray]] = []  # weight, Cholesky factor, coefficients

    def points(self, genes: IntArray, proxies: FloatArray | None = None) -> Points:
        """Features of valid `genes`, int64 [n, decisions]; `proxies` as in `fit`."""
        summary = self._features.summary(genes)
        more = np.empty((len(genes), 0)) if proxies is None else proxies / np.sqrt(max(proxies.shape[1], 1))
        return Points(genes, summary / np.sqrt(max(summary.shape[1], 1)), self._features.path_codes(genes), more)

    def fit(self, genes: IntArray, scores: FloatArray, proxies: FloatArray | None = None) -> None:
        """Believe in `scores` [n] of distinct `genes` [n, decisions], n >= 1, and in nothing else.

        Args:
            genes: int64 [n, decisions].
            scores: [n].
            proxies: what else is known of each, [n, proxies] with mean 0 and deviation 1; 0 where it is not known.
        """
        self._data = self.points(genes, proxies)
        own_paths = _equal_paths(self._data.paths, self._data.paths).diagonal() if self._features.has_paths else 0.0
        self._path_scale = max(float(np.mean(own_paths)), 1.0)
        fixed, distance = self._parts(self._data, self._data)
        fitted = []
        for length in self._length_scales:
            kernel = fixed + _near(distance, length)
            kernel[np.diag_indices_from(kernel)] += _NOISE
            factor = scipy.linalg.cholesky(kernel, lower=True)
            coefficients = scipy.linalg.cho_solve((factor, True), scores)
            evidence = -0.5 * float(scores @ coefficients) - float(np.log(factor.diagonal()).sum())
            fitted.append((evidence, factor, coefficients))
        best = max(evidence for evidence, _, _ in fitted)
        total = sum(np.exp(evidence - best) for evidence, _, _ in fitted)
        self._members = [(float(np.exp(e - best) / total), factor, solved) for e, factor, solved in fitted]

    def predict(self, genes: IntArray, proxies: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the scores of `genes` [m, decisions], each [m]: those of the mixture.

        Where `fit` was given proxies, `proxies` [m, proxies] are those of `genes`.
        """
        points = self.points(genes, proxies)
        fixed, distance = self._parts(self._data, points)
        prior = self._prior_variance(points)
        mean, second_moment = np.zeros(len(genes)), np.zeros(len(genes))
        for length, (weight, factor, coefficients) in zip(self._length_scales, self._members, strict=True):
            kernel = fixed + _near(distance, length)
            expected = kernel.T @ coefficients
            explained = scipy.linalg.solve_triangular(factor, kernel, lower=True)
            variance = np.maximum(prior - (explained * explained).sum(axis=0), 1e-9)
            mean += weight * expected
            second_moment += weight * (variance + expected * expected)
        return mean, np.sqrt(np.maximum(second_moment - mean * mean, 1e-9))

    def _parts(self, one: Points, other: Points) -> tuple[FloatArray, FloatArray]:
        """The part of the kernel that all members share, and squared distances of features; [len(one), len(other)]."""
        differing = (one.genes[:, None, :] != other.genes[None, :, :]).sum(axis=2)
        shared: FloatArray = _CONSTANT_WEIGHT + _GENES_WEIGHT * np.exp(-differing / self._decay)
        if self._features.has_paths:
            shared += _PATHS_WEIGHT / self._path_scale * _equal_paths(one.paths, other.paths)
        if one.proxies.shape[1]:
            shared += _PROXIES_WEIGHT * one.proxies @ other.proxies.T
        squares = (one.summary**2).sum(axis=1)[:, None] + (other.summary**2).sum(axis=1)[None, :]
        return shared, np.maximum(squares - 2 * one.summary @ other.summary.T, 0.0)

    def _prior_variance(self, points: Points) -> FloatArray:
        own = np.full(len(points.genes), _CONSTANT_WEIGHT + _GENES_WEIGHT + _SUMMARY_WEIGHT)
        if self._features.has_paths:
            equal = (points.paths[:, :, None] == points.paths[:, None, :]) & (points.paths >= 0)[:, :, None]
            own += _PATHS_WEIGHT / self._path_scale * equal.sum(axis=(1, 2))
        own += _PROXIES_WEIGHT * (points.proxies**2).sum(axis=1)
        return own


def _near(squared_distance: FloatArray, length: float) -> FloatArray:
    near: FloatArray = _SUMMARY_WEIGHT * np.exp(squared_distance / (-2 * length * length))
    return near


def _equal_paths(one: IntArray, other: IntArray) -> IntArray:
    """Number of pairs of equal uncut paths, int64 [len(one), len(other)]."""
    pairs = np.zeros((len(one), len(other)), dtype=np.int64)
    for path in one.T:  # one after the other: all at once would need [len(one), len(other), paths, paths]
        pairs += ((path[:, None, None] == other) & (path >= 0)[:, None, None]).sum(axis=2)
    return pairs
