"""The values of proxies that a search has paid for, and how each architecture stands among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.special

from nas_engine.proxies.base import ProxyScores
from nas_engine.scores import FloatArray
from nas_engine.types import Architecture, StateDict


class ProxyMemory:
    """Values of proxies by architecture, each paid for once.

    Attributes:
        values: [proxies] of each canonical architecture, in order of arrival.
    """

    def __init__(self, scores: ProxyScores) -> None:
        """Start with none."""
        self.values: dict[Architecture, FloatArray] = {}
        self._scores = scores
        self._sorted: list[FloatArray] | None = None

    def compute(self, architectures: Sequence[Architecture]) -> None:
        """Pay for those of the canonical `architectures` that are not known yet."""
        missing = [a for a in dict.fromkeys(architectures) if a not in self.values]
        if missing:
            self.values.update(zip(missing, self._scores(missing), strict=True))
            self._sorted = None

    def normal_scores(self, architectures: Sequence[Architecture]) -> FloatArray:
        """Standing of canonical architectures among all values known, [n, proxies]; 0 where there is no value.

        A value becomes the quantile of the standard normal distribution at its relative rank, equal values sharing
        theirs: the scale of a proxy, its outliers and minus infinity do not count. Unknown is as good as the median.
        """
        absent = np.full(len(self._scores.names), np.nan)
        found = np.array([self.values.get(architecture, absent) for architecture in architectures])
        columns = [_normal(column, known) for column, known in zip(found.T, self._known(), strict=True)]
        return np.stack(columns, axis=1)

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
        }

    def load_state_dict(self, state: StateDict, space: str) -> None:
        """Inverse of `state_dict` for architectures of the space of this name."""
        known = [Architecture(space, tuple(genes)) for genes in state["genes"]]
        self.values = dict(zip(known, map(np.array, state["values"]), strict=True))
        self._sorted = None

    def _known(self) -> list[FloatArray]:
        if self._sorted is None:
            table = np.array(list(self.values.values())).reshape(-1, len(self._scores.names))
            self._sorted = [np.sort(column[~np.isnan(column)]) for column in table.T]
        return self._sorted


def _normal(values: FloatArray, known: FloatArray) -> FloatArray:
    if not len(known):
        return np.zeros(len(values))
    middle = (np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")) / 2
    rank = np.clip(middle / len(known), 0.5 / len(known), 1 - 0.5 / len(known))
    normal: FloatArray = scipy.special.ndtri(rank)
    return np.where(np.isnan(values), 0.0, normal)
