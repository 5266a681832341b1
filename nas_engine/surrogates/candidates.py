"""Which architectures a model-based baseline looks at before it chooses one, and what it remembers of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.seen import SeenArchitectures
from nas_engine.types import Architecture

FeatureArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_DRAWN = 1_000
_BEST_WITH_NEIGHBOURS = 10


def some_unseen(seen: SeenArchitectures, rng: np.random.Generator) -> list[Architecture]:
    """Canonical forms of a thousand random architectures and of the neighbours of the ten best known, if unseen."""
    best = heapq.nlargest(_BEST_WITH_NEIGHBOURS, seen.rewards, key=seen.rewards.__getitem__)
    around = [neighbour for architecture in best for neighbour in seen.space.neighbours(architecture)]
    drawn = seen.space.samples(rng, _DRAWN)
    forms = list(dict.fromkeys(seen.space.canonical(architecture) for architecture in [*around, *drawn]))
    return [forms[position] for position in seen.unseen_among(forms)]


class ListedSpace:
    """All canonical architectures of a space small enough, and their features.

    Attributes:
        architectures: in lexicographic order of the first member of each class.
        positions: where each stands.
        features: float32 [architectures, features].
        sparse_features: the same, for products with it: of one-hot features most are 0.
    """

    def __init__(self, space: SearchSpace, features: Callable[[IntArray], FeatureArray]) -> None:
        """List `space` and compute the features of genes [n, decisions]."""
        self.architectures = list(dict.fromkeys(space.canonical(architecture) for architecture in space))
        self.positions = {architecture: position for position, architecture in enumerate(self.architectures)}
        self.features = features(space.genes(self.architectures))
        self.sparse_features = csr_array(self.features)

    def seen_positions(self, seen: SeenArchitectures) -> list[int]:
        """Where those stand that were proposed or told."""
        return [self.positions[architecture] for architecture in (*seen.rewards, *seen.waiting)]
