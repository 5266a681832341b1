"""Random search: architectures drawn uniformly from all valid ones, each form once."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from nas_engine.options import Options
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.seen import SeenArchitectures
from nas_engine.types import Architecture, StateDict


class RandomOptions(Options):
    """Random search has no options."""


class RandomController:
    """Proposes architectures uniformly at random: the baseline every other method has to beat.

    Uniform means over all valid architectures, not over the choices of each decision; an architecture whose
    canonical form stands for many is that much likelier, as it is for whoever samples the space by hand.
    """

    Options = RandomOptions

    def __init__(self, space: SearchSpace, options: RandomOptions = RandomOptions(), seed: int = 0) -> None:
        """Set up.

        Args:
            space: where architectures come from.
            options: none so far.
            seed: of all draws.
        """
        self._seen = SeenArchitectures(space)
        self._rng = np.random.default_rng(seed)

    def propose(self, n: int) -> list[Architecture]:
        """`n` canonical architectures, unseen while there are any."""
        return [self._seen.draw(self._rng) for _ in range(n)]

    def update(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> dict[str, float]:
        """Remember what was evaluated; random search learns nothing and reports nothing."""
        self._seen.tell(architectures, rewards)
        return {}

    def state_dict(self) -> StateDict:
        """Seen architectures and random state."""
        return {"seen": self._seen.state_dict(), "rng": json.dumps(self._rng.bit_generator.state)}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self._seen.load_state_dict(state["seen"])
        self._rng.bit_generator.state = json.loads(state["rng"])
