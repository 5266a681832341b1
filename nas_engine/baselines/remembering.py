"""What baselines share whose whole state is what they have seen: only the choice of the next one is their own."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.seen import SeenArchitectures
from nas_engine.types import Architecture, StateDict


class RememberingController(ABC):
    """Proposes one architecture after the other and remembers rewards; subclasses choose in `_next`."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        """Start with nothing seen.

        Args:
            space: where architectures come from.
            seed: of all draws.
        """
        self.space = space
        self._seen = SeenArchitectures(space)
        self._rng = np.random.default_rng(seed)

    @abstractmethod
    def _next(self) -> Architecture:
        """The next proposal, claimed in `_seen`."""

    def propose(self, n: int) -> list[Architecture]:
        """`n` canonical architectures, unseen while there are any."""
        return [self._next() for _ in range(n)]

    def update(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> dict[str, float]:
        """Remember what was evaluated; there is nothing to report."""
        self._seen.tell(architectures, rewards)
        return {}

    def state_dict(self) -> StateDict:
        """Seen architectures and random state."""
        return {"seen": self._seen.state_dict(), "rng": json.dumps(self._rng.bit_generator.state)}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self._seen.load_state_dict(state["seen"])
        self._rng.bit_generator.state = json.loads(state["rng"])
