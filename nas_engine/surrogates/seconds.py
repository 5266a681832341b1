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
        self._mean, self._coefficients = 0.0, np.zeros(0)

    def fit(self, genes: IntArray, seconds: FloatArray) -> None:
        """Believe in `seconds` [n], positive and finite, of distinct `genes` [n, decisions], and in nothing else."""
        if not len(genes):
            self._mean, self._coefficients = 0.0, np.zeros(0)
            return
        logarithms, features = np.log(seconds), self._features.summary(genes)
        self._mean = float(logarithms.mean())
        # The form whose system is as large as the data are: there are few.
        gram = features @ features.T + _PENALTY * np.eye(len(genes))
        self._coefficients = features.T @ np.linalg.solve(gram, logarithms - self._mean)

    def predict_log(self, genes: IntArray) -> FloatArray:
        """Expected natural logarithm of the seconds of `genes` [m, decisions], [m]."""
        if not len(self._coefficients):
            return np.full(len(genes), self._mean)
        expected: FloatArray = self._mean + self._features.summary(genes) @ self._coefficients
        return expected
