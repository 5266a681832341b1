"""A Gaussian process on features of the graph, with expected improvement: the usual Bayesian optimisation."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nas_engine.baselines.remembering import RememberingController
from nas_engine.options import Options
from nas_engine.scores import log_rank_scores
from nas_engine.spaces.base import SearchSpace
from nas_engine.surrogates.acquisition import log_expected_improvement
from nas_engine.surrogates.candidates import some_unseen
from nas_engine.surrogates.ensemble import RewardModel
from nas_engine.types import Architecture

_LENGTH_SCALE = 1.0


class GaussianProcessOptions(Options):
    """Options of Bayesian optimisation with a Gaussian process."""

    random_first: int = Field(10, ge=1, description="random architectures before the model is asked")


class GaussianProcessController(RememberingController):
    """Bayesian optimisation: the unseen candidate of the highest expected improvement is evaluated next.

    Source: Jones et al. 1998, "Efficient Global Optimization of Expensive Black-Box Functions". The
    model is one member of `RewardModel`; candidates are a thousand random architectures and the neighbours of the ten
    best.
    """

    Options = GaussianProcessOptions

    def __init__(
        self, space: SearchSpace, options: GaussianProcessOptions = GaussianProcessOptions(), seed: int = 0
    ) -> None:
        """Start with the prior.

        Args:
            space: where architectures come from.
            options: size of the random start.
            seed: of all draws.
        """
        super().__init__(space, seed)
        self.options = options
        self._model = RewardModel(space, length_scales=(_LENGTH_SCALE,))

    def _next(self) -> Architecture:
        known = self._seen.rewards
        unseen = some_unseen(self._seen, self._rng) if len(known) >= self.options.random_first else []
        if not unseen:
            return self._seen.draw(self._rng)
        scores = log_rank_scores(np.array(list(known.values())))
        self._model.fit(self.space.genes(list(known)), scores)
        mean, deviation = self._model.predict(self.space.genes(unseen))
        best = unseen[int(np.argmax(log_expected_improvement(mean - scores.max(), deviation)))]
        self._seen.claim(best)
        return best
