"""The values of proxies that a search has paid for, and how each architecture stands by them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.special

from nas_engine.proxies.base import ProxyScores
from nas_engine.scores import FloatArray
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.features import features_of
from nas_engine.types import Architecture, StateDict


class ProxyMemory:
    """Values of proxies by architecture, each paid for once.

    Attributes:
        values: [proxies] of each canonical architecture, in order of arrival.
        reference_size: how many of them, the first ones, all are compared with.
    """

    def __init__(self, scores: ProxyScores, space: SearchSpace) -> None:
        """Start with none, of architectures of `space`."""
        self.values: dict[Architecture, FloatArray] = {}
        self.reference_size = 0
        self._scores = scores
        self._space = space
        self._sorted: list[FloatArray] | None = None  # values of the reference, proxy by proxy
        self._weights: FloatArray | None = None  # of features, for what is expected of architectures not computed

    def compute(self, architectures: Sequence[Architecture]) -> None:
        """Pay for those of the canonical `architectures` that are not known yet.

        Those of the first call are the reference. They should be random: what a search looks at later is better than
        most, and all of it would look middling if it were compared with itself.
        """
        missing = [a for a in dict.fromkeys(architectures) if a not in self.values]
        if missing:
            self.values.update(zip(missing, self._scores(missing), strict=True))
            self.reference_size = self.reference_size or len(missing)
            self._weights = None

    def normal_scores(self, architectures: Sequence[Architecture]) -> FloatArray:
        """Standing of canonical architectures in the reference, [n, proxies].

        A value becomes the quantile of the standard normal distribution at its relative rank, equal values sharing
        theirs: the scale of a proxy, its outliers and minus infinity do not count. NaN is as good as the median. Where
        nothing was computed, the score is what a linear model of the features of architectures expects.
        """
        scores = np.zeros((len(architectures), len(self._scores.names)))
        known = [position for position, architecture in enumerate(architectures) if architecture in self.values]
        if known:
            scores[known] = self._ranked([self.values[architectures[position]] for position in known])
        unknown = [position for position, architecture in enumerate(architectures) if architecture not in self.values]
        if unknown and self.values:
            scores[unknown] = self._features([architectures[position] for position in unknown]) @ self._regression()
        return scores

    def best(self, count: int) -> list[Architecture]:
        """The `count` known architectures of the highest mean rank, best first, earlier ones first among equals."""
        architectures = list(self.values)
        standing = scipy.special.ndtr(self.normal_scores(architectures)).mean(axis=1) if architectures else np.empty(0)
        return [architectures[index] for index in np.argsort(-standing, kind="stable")[:count]]

    def state_dict(self) -> StateDict:
        """Genes and values."""
        return {
            "genes": [list(architecture.genes) for architecture in self.values],
            "values": [values.tolist() for values in self.values.values()],
            "reference_size": self.reference_size,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        known = [Architecture(self._space.name, tuple(genes)) for genes in state["genes"]]
        self.values = dict(zip(known, map(np.array, state["values"]), strict=True))
        self.reference_size = int(state.get("reference_size", len(known)))  # before it was kept, all were compared
        self._sorted = self._weights = None

    def _ranked(self, values: Sequence[FloatArray]) -> FloatArray:
        if self._sorted is None:
            table = np.array(list(self.values.values())[: self.reference_size])
            self._sorted = [np.sort(column[~np.isnan(column)]) for column in table.T]
        return np.stack([_quantiles(*pair) for pair in zip(np.array(values).T, self._sorted, strict=True)], axis=1)

    def _features(self, architectures: Sequence[Architecture]) -> FloatArray:
        """A constant and the features of architectures, [n, 1 + features]."""
        summary = features_of(self._space).summary(self._space.genes(architectures))
        return np.concatenate([np.ones((len(summary), 1)), summary], axis=1)

    def _regression(self) -> FloatArray:
        """Weights [1 + features, proxies] of the ridge regression of all scores known, its penalty 1."""
        if self._weights is None:
            features = self._features(list(self.values))
            gram = features.T @ features + np.eye(features.shape[1])
            moments = features.T @ self._ranked(list(self.values.values()))
            self._weights = np.asarray(np.linalg.solve(gram, moments), dtype=np.float64)
        return self._weights


def _quantiles(values: FloatArray, reference: FloatArray) -> FloatArray:
    """Normal quantiles of the ranks of `values` [n] in the sorted `reference` [m], [n]; 0 for NaN or without any."""
    if not len(reference):
        return np.zeros(len(values))
    middle = (np.searchsorted(reference, values, "left") + np.searchsorted(reference, values, "right")) / 2
    rank = np.clip(middle / len(reference), 0.5 / len(reference), 1 - 0.5 / len(reference))
    normal: FloatArray = scipy.special.ndtri(rank)
    return np.where(np.isnan(values), 0.0, normal)
