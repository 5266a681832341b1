"""How long an evaluation is expected to take, learned from those that are done."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas_engine.scores import FloatArray
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.features import features_of

IntArray = npt.NDArray[np.int64]

_PENALTY = 1.0  # of a squared coefficient; features have deviation 1


class SecondsModel:
    """Ridge regression of log seconds on the features of architectures, costs that are known for free among them."""

    def __init__(self, space: SearchSpace) -> None:
        """Nothing is known: every evaluation is expected to take as long as any other."""
        self._features = features_of(space)
        self._mean = 0.0
        self._coefficients: FloatArray = np.zeros(0)

    def fit(self, genes: IntArray, seconds: FloatArray) -> None:
        """Believe in `seconds` [n], positive and finite, of distinct `genes` [n, decisions], and in nothing else."""
        if not len(genes):
            self._mean, self._coefficients = 0.0, np.zeros(0)
            return
        logarithms, features = np.log(seconds), self._features.summary(genes)
        self._mean = float(logarithms.mean())
        deviations = logarithms - self._mean
        if len(genes) < features.shape[1]:  # two forms of one solution: the smaller system is solved
            gram: FloatArray = features @ features.T + _PENALTY * np.eye(len(genes))
            self._coefficients = features.T @ np.asarray(np.linalg.solve(gram, deviations))
        else:
            gram = features.T @ features + _PENALTY * np.eye(features.shape[1])
            self._coefficients = np.asarray(np.linalg.solve(gram, features.T @ deviations))

    def predict_log(self, genes: IntArray) -> FloatArray:
        """Expected natural logarithm of the seconds of `genes` [m, decisions], [m]."""
        if not len(self._coefficients):
            return np.full(len(genes), self._mean)
        expected: FloatArray = self._mean + self._features.summary(genes) @ self._coefficients
        return expected
