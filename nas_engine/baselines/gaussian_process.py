"""A Gaussian process on features of the graph, with expected improvement: the usual Bayesian optimisation."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from pydantic import Field
from scipy.stats import norm

from nas_engine.options import Options
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.seen import SeenArchitectures
from nas_engine.surrogates.candidates import genes_of, some_unseen
from nas_engine.surrogates.ensemble import RewardModel, log_rank_scores
from nas_engine.types import Architecture, StateDict

_LENGTH_SCALE = 1.0


class GaussianProcessOptions(Options):
    """Options of Bayesian optimisation with a Gaussian process."""

    random_first: int = Field(10, ge=1, description="random architectures before the model is asked")


class GaussianProcessController:
    """Bayesian optimisation: the unseen candidate of the highest expected improvement is evaluated next.

    Source: Jones et al. 1998, "Efficient Global Optimization of Expensive Black-Box Functions", equation 15. The
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
        self.space, self.options = space, options
        self._model = RewardModel(space, length_scales=(_LENGTH_SCALE,))
        self._seen = SeenArchitectures(space)
        self._rng = np.random.default_rng(seed)

    def propose(self, n: int) -> list[Architecture]:
        """`n` canonical architectures, unseen while there are any."""
        return [self._next() for _ in range(n)]

    def update(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> dict[str, float]:
        """Remember the rewards."""
        self._seen.tell(architectures, rewards)
        return {}

    def state_dict(self) -> StateDict:
        """Seen architectures and random state."""
        return {"seen": self._seen.state_dict(), "rng": json.dumps(self._rng.bit_generator.state)}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self._seen.load_state_dict(state["seen"])
        self._rng.bit_generator.state = json.loads(state["rng"])

    def _next(self) -> Architecture:
        known = self._seen.rewards
        unseen = some_unseen(self._seen, self._rng) if len(known) >= self.options.random_first else []
        if not unseen:
            return self._seen.draw(self._rng)
        scores = log_rank_scores(np.array(list(known.values())))
        self._model.fit(genes_of(list(known)), scores)
        mean, deviation = self._model.predict(genes_of(unseen))
        gain = (mean - scores.max()) / deviation
        improvement = deviation * (gain * norm.cdf(gain) + norm.pdf(gain))
        best = unseen[int(np.argmax(improvement))]
        self._seen.claim(best)
        return best
