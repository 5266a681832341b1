"""Which architectures of a space a search has met: rewards by canonical form, and the way to unseen ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, StateDict

_DRAWS = 1_000
_LARGEST_LISTED_SPACE = 1_000_000


class SeenArchitectures:
    """Canonical architectures that were proposed or told, so that none is paid for twice.

    Attributes:
        space: the space they belong to.
        rewards: the reward last told for each canonical architecture, in order of arrival.
        waiting: canonical architectures that were proposed and not told yet, in order of arrival (values are None).
        exhausted: whether `draw` found that nothing unseen is left.
    """

    def __init__(self, space: SearchSpace) -> None:
        """Start with nothing seen."""
        self.space = space
        self.rewards: dict[Architecture, float] = {}
        self.waiting: dict[Architecture, None] = {}  # a set would not keep the order that exact resuming needs
        self.exhausted = False
        self._listed = False
        self._unseen: list[Architecture] | None = None

    def __contains__(self, canonical: object) -> bool:
        """Whether a canonical architecture was proposed or told."""
        return canonical in self.rewards or canonical in self.waiting

    def unseen_among(self, architectures: Iterable[Architecture]) -> list[int]:
        """Positions of those of canonical `architectures` that were neither proposed nor told."""
        met = {**self.rewards, **self.waiting}
        return [position for position, architecture in enumerate(architectures) if architecture not in met]

    def claim(self, architecture: Architecture) -> Architecture | None:
        """Mark an architecture as proposed.

        Args:
            architecture: any valid architecture of the space.

        Returns:
            Its canonical form, or None where that was seen before.
        """
        canonical = self.space.canonical(architecture)
        if canonical in self:
            return None
        self.waiting[canonical] = None
        return canonical

    def draw(self, rng: np.random.Generator) -> Architecture:
        """Propose the canonical form of an architecture drawn uniformly from the valid ones with an unseen form.

        Where a thousand draws find nothing new, a space of up to a million architectures is listed, so that the last
        unseen one is found too. Where nothing is left or found, an architecture seen before is returned.

        Args:
            rng: source of randomness.
        """
        for _ in range(0 if self._listed else _DRAWS):
            canonical = self.claim(self.space.sample(rng))
            if canonical is not None:
                return canonical
        self._listed = self.space.size <= _LARGEST_LISTED_SPACE
        candidates = self._remaining()
        chosen = candidates[rng.integers(len(candidates))] if candidates else self.space.sample(rng)
        return self.claim(chosen) or self.space.canonical(chosen)

    def tell(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> None:
        """Remember `rewards` [n] of valid `architectures` [n], whoever proposed them."""
        for architecture, reward in zip(architectures, rewards, strict=True):
            canonical = self.space.canonical(architecture)
            self.waiting.pop(canonical, None)
            self.rewards[canonical] = float(reward)

    def state_dict(self) -> StateDict:
        """Genes and rewards as lists."""
        return {
            "genes": [list(architecture.genes) for architecture in self.rewards],
            "rewards": list(self.rewards.values()),
            "waiting": [list(architecture.genes) for architecture in self.waiting],
            "listed": self._listed,
            "exhausted": self.exhausted,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self.rewards = dict(zip(self._architectures(state["genes"]), state["rewards"], strict=True))
        self.waiting = dict.fromkeys(self._architectures(state["waiting"]))
        self._listed, self.exhausted = bool(state["listed"]), bool(state["exhausted"])
        self._unseen = None

    def _remaining(self) -> list[Architecture]:
        """All valid architectures with an unseen form; the list is kept, because it only ever shrinks."""
        if not self._listed or self.exhausted:
            return []
        candidates: Iterable[Architecture] = self.space if self._unseen is None else self._unseen
        self._unseen = [a for a in candidates if self.space.canonical(a) not in self]
        self.exhausted = not self._unseen
        return self._unseen

    def _architectures(self, genes: Iterable[Iterable[int]]) -> list[Architecture]:
        return [Architecture(self.space.name, tuple(row)) for row in genes]
