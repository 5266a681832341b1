"""Thompson sampling with a Bayesian linear model: what a draw from the posterior holds for best is evaluated next."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.special import ndtri

from nas_engine.baselines.remembering import RememberingController
from nas_engine.options import Options
from nas_engine.scores import middles
from nas_engine.spaces.base import SearchSpace
from nas_engine.surrogates.candidates import ListedSpace, some_unseen
from nas_engine.surrogates.linear import LinearBasis, posterior_weights
from nas_engine.types import Architecture

_MOST_LISTED = 50_000
_LARGEST_LIST = 100_000_000  # numbers of four bytes


class ThompsonOptions(Options):
    """Options of linear Thompson sampling."""

    random_first: int = Field(5, ge=1, description="random architectures before the model is asked")
    noise: float = Field(0.1, gt=0, description="variance of the noise of a score, where scores have variance 1")


class ThompsonController(RememberingController):
    """Linear Thompson sampling over choices, pairs of choices and paths (see `LinearBasis`).

    Source: Agrawal & Goyal 2013, "Thompson Sampling for Contextual Bandits with Linear Payoffs". Scores are the normal
    quantiles of the ranks of the rewards. Spaces of up to 50,000 architectures (and 100 million features of them)
    are looked at as a whole, of larger ones a thousand random architectures and the neighbours of the ten best.
    """

    Options = ThompsonOptions

    def __init__(self, space: SearchSpace, options: ThompsonOptions = ThompsonOptions(), seed: int = 0) -> None:
        """Start with the prior.

        Args:
            space: where architectures come from.
            options: size of the random start, noise.
            seed: of all draws.
        """
        super().__init__(space, seed)
        self.options = options
        self._basis, self._listed = _prepared(space)

    def _next(self) -> Architecture:
        if len(self._seen.rewards) < self.options.random_first or self._seen.exhausted:
            return self._seen.draw(self._rng)
        best = self._best_for(self._draw_weights())
        claimed = self._seen.claim(best) if best is not None else None
        return claimed or self._seen.draw(self._rng)

    def _best_for(self, weights: npt.NDArray[np.float32]) -> Architecture | None:
        if self._listed is not None:
            values = self._listed.sparse_features @ weights
            values[self._listed.seen_positions(self._seen)] = -np.inf
            return self._listed.architectures[int(np.argmax(values))]
        unseen = some_unseen(self._seen, self._rng)
        return unseen[int(np.argmax(self._features(unseen) @ weights))] if unseen else None

    def _draw_weights(self) -> npt.NDArray[np.float32]:
        known = self._seen.rewards
        rewards = np.array(list(known.values()))
        scores = ndtri(middles(rewards, rewards) / len(rewards))
        scores = (scores - scores.mean()) / max(float(scores.std()), 1e-9)
        return posterior_weights(self._features(list(known)), scores, self.options.noise, self._rng)

    def _features(self, architectures: list[Architecture]) -> npt.NDArray[np.float32]:
        if self._listed is not None:
            return self._listed.features[[self._listed.positions[architecture] for architecture in architectures]]
        return self._basis(self.space.genes(architectures))


@lru_cache(maxsize=2)
def _prepared(space: SearchSpace) -> tuple[LinearBasis, ListedSpace | None]:
    """Basis and listed architectures of a space, which are the same for every seed."""
    basis = LinearBasis(space)
    listed = space.size <= _MOST_LISTED and space.size * basis.size <= _LARGEST_LIST
    return basis, ListedSpace(space, basis) if listed else None
