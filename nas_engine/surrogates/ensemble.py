"""A reward model with uncertainty: an ensemble of Gaussian processes over the features of architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack

from nas_engine.scores import FloatArray
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.features import features_of

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

LENGTH_SCALES = (0.7, 1.0, 1.4)
_GENES_WEIGHT, _CONSTANT_WEIGHT = 0.3, 1.0
_SUMMARY_WEIGHT, _LINEAR_WEIGHT = 1.0, 1.0
_PROXIES_SLOPE, _PROXIES_WEIGHT = 0.6, 0.1
_NOISE = 0.1


@dataclass(frozen=True)
class Points:
    """Architectures as the kernels see them.

    Attributes:
        made: float32 [n, choices of all decisions], 1 where a choice was made and 0 elsewhere.
        summary: float64 [n, features], scaled so that two random architectures are about sqrt(2) apart.
        proxies: float64 [n, proxies], standardised and divided by the square root of their number.
    """

    made: Float32Array
    summary: FloatArray
    proxies: FloatArray


class RewardModel:
    """Predicts scores of architectures, and how far it may be wrong, from those evaluated so far.

    Each member is a Gaussian process (Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning",
    algorithm 2.1) whose kernel adds four similarities: equal genes (exp of minus the Hamming distance over a third
    of the decisions), near features of the graph (squared exponential), the product of features (linear: what few
    data can tell of many architectures, such as that larger ones are better), and a constant. Members differ in the
    length scale of the second; their predictions are averaged with weights in proportion to the marginal likelihood of
    the data (equation 2.30), so that the data decide how rugged the landscape is.

    Proxies, where they are given, are linear with weights that are expected to be positive (an explicit basis with a
    Gaussian prior on its weights, section 2.7): what an architecture scores is expected to rise with the mean of its
    proxies, before anything was evaluated, and the data may say otherwise.
    """

    def __init__(self, space: SearchSpace, length_scales: Sequence[float] = LENGTH_SCALES) -> None:
        """Start without data.

        Args:
            space: whose architectures are predicted.
            length_scales: one for each member, on features whose distance between random architectures is about 1.4.
        """
        self._length_scales = tuple(length_scales)
        self._features = features_of(space)
        differing = np.arange(len(space.decisions), -1, -1)  # genes, where none, one, two ... are equal
        self._shared_by_equal = _CONSTANT_WEIGHT + _GENES_WEIGHT * np.exp(-differing / (len(space.decisions) / 3))
        self._choices = np.concatenate([np.arange(len(decision.choices)) for decision in space.decisions])
        self._decision_of_choice = np.repeat(
            np.arange(len(space.decisions)), [len(decision.choices) for decision in space.decisions]
        )
        self._data = self.points(np.empty((0, len(space.decisions)), dtype=np.int64))
        self._members: list[tuple[float, FloatArray, FloatArray]] = []  # weight, Cholesky factor, coefficients

    def points(self, genes: IntArray, proxies: FloatArray | None = None) -> Points:
        """Features of valid `genes`, int64 [n, decisions]; `proxies` as in `fit`.

        Raises:
            ValueError: a proxy is not finite.
        """
        if proxies is not None and not np.isfinite(proxies).all():
            raise ValueError("proxies of architectures must be finite")
        made = (genes[:, self._decision_of_choice] == self._choices).astype(np.float32)
        summary = self._features.summary(genes)
        more = np.empty((len(genes), 0)) if proxies is None else proxies / np.sqrt(max(proxies.shape[1], 1))
        return Points(made, summary / np.sqrt(max(summary.shape[1], 1)), more)

    def fit(self, genes: IntArray, scores: FloatArray, proxies: FloatArray | None = None) -> None:
        """Believe in `scores` [n] of distinct `genes` [n, decisions], n >= 1, and in nothing else.

        Args:
            genes: int64 [n, decisions].
            scores: [n].
            proxies: what else is known of each, [n, proxies], with mean 0 and deviation 1 among random architectures.

        Raises:
            ValueError: a score or a proxy is not finite.
        """
        if not np.isfinite(scores).all():
            raise ValueError("scores of architectures must be finite")
        self._data = self.points(genes, proxies)
        unexpected = scores - _prior_mean(self._data)
        fixed, distance = self._parts(self._data)
        fitted = []
        for length in self._length_scales:
            kernel = fixed + _near(distance, length)
            kernel.flat[:: len(kernel) + 1] += _NOISE
            factor = _cholesky(kernel)
            coefficients, _ = lapack.dpotrs(factor, unexpected, lower=True)
            evidence = -0.5 * float(unexpected @ coefficients) - float(np.log(factor.diagonal()).sum())
            fitted.append((evidence, factor, coefficients))
        best = max(evidence for evidence, _, _ in fitted)
        total = sum(np.exp(evidence - best) for evidence, _, _ in fitted)
        self._members = [(float(np.exp(e - best) / total), factor, solved) for e, factor, solved in fitted]

    def predict(self, genes: IntArray, proxies: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the scores of `genes` [m, decisions], each [m]: those of the mixture.

        Where `fit` was given proxies, `proxies` [m, proxies] are those of `genes`.
        """
        points = self.points(genes, proxies)
        fixed, distance = self._parts(points)
        prior_mean, prior_variance = _prior_mean(points), _prior_variance(points)
        mean, second_moment = np.zeros(len(genes)), np.zeros(len(genes))
        for length, (weight, factor, coefficients) in zip(self._length_scales, self._members, strict=True):
            kernel = fixed + _near(distance, length)
            expected = prior_mean + kernel.T @ coefficients
            explained, _ = lapack.dtrtrs(factor, kernel, lower=True)
            variance = np.maximum(prior_variance - (explained * explained).sum(axis=0), 1e-9)
            mean += weight * expected
            second_moment += weight * (variance + expected * expected)
        return mean, np.sqrt(np.maximum(second_moment - mean * mean, 1e-9))

    def _parts(self, points: Points) -> tuple[FloatArray, FloatArray]:
        """Part of the kernel that all members share, and squared distances of features; [data, points].

        Equal genes are counted by a product of matrices, which is exact in float32.
        """
        data = self._data
        equal = (data.made @ points.made.T).astype(np.int64)
        shared: FloatArray = self._shared_by_equal[equal]
        if data.proxies.shape[1]:
            shared += _PROXIES_WEIGHT * data.proxies @ points.proxies.T
        products = data.summary @ points.summary.T
        shared += _LINEAR_WEIGHT * products
        squares = (data.summary**2).sum(axis=1)[:, None] + (points.summary**2).sum(axis=1)[None, :]
        return shared, np.maximum(squares - 2 * products, 0.0)


def _prior_mean(points: Points) -> FloatArray:
    mean: FloatArray = _PROXIES_SLOPE * points.proxies.sum(axis=1) / np.sqrt(max(points.proxies.shape[1], 1))
    return mean


def _prior_variance(points: Points) -> FloatArray:
    own: FloatArray = _LINEAR_WEIGHT * (points.summary**2).sum(axis=1)
    own += _PROXIES_WEIGHT * (points.proxies**2).sum(axis=1)
    return own + (_CONSTANT_WEIGHT + _GENES_WEIGHT + _SUMMARY_WEIGHT)


def _cholesky(kernel: FloatArray) -> FloatArray:
    # LAPACK itself, here and where its factors are used: for a hundred data, scipy's wrappers take longer than it does.
    factor: FloatArray
    factor, failed = lapack.dpotrf(kernel, lower=True)
    if failed:
        raise np.linalg.LinAlgError(f"the kernel of {len(kernel)} architectures is not positive definite")
    return factor


def _near(squared_distance: FloatArray, length: float) -> FloatArray:
    near: FloatArray = squared_distance / (-2 * length * length)
    np.exp(near, out=near)
    return np.multiply(near, _SUMMARY_WEIGHT, out=near)
