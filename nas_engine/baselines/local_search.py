"""Local search: climb to the best neighbour until there is none better, then start again somewhere else."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from nas_engine.options import Options
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.seen import SeenArchitectures
from nas_engine.types import Architecture, StateDict


class LocalSearchOptions(Options):
    """Options of local search."""

    starts: int = Field(10, ge=1, description="random architectures, of which the best is where a climb starts")
    full_neighbourhood: bool = Field(
        False, description="whether all neighbours are evaluated before a step; False: step as soon as one is better"
    )


class LocalSearchController:
    """Hill climbing with random restarts.

    Source: White et al. 2021, "Exploring the Loss Landscape in Neural Architecture Search", algorithm 1. A climb ends
    at a local optimum: every neighbour is evaluated and none is better. Proposals that the neighbourhood cannot fill
    are random; they count as starts of the next climb.

    Attributes:
        position: where the current climb stands; None while starts are being evaluated.
        optima: the local optimum that each finished climb ended at, in order.
    """

    Options = LocalSearchOptions

    def __init__(
        self,
        space: SearchSpace,
        options: LocalSearchOptions = LocalSearchOptions(),
        seed: int = 0,
    ) -> None:
        """Start without a position.

        Args:
            space: where architectures come from.
            options: number of starts, size of a step's neighbourhood.
            seed: of all draws.
        """
        self.space, self.options = space, options
        self.position: Architecture | None = None
        self.optima: list[Architecture] = []
        self._starts: list[Architecture] = []
        self._neighbours: list[Architecture] = []
        self._seen = SeenArchitectures(space)
        self._rng = np.random.default_rng(seed)

    def propose(self, n: int) -> list[Architecture]:
        """`n` canonical architectures, unseen while there are any: neighbours first, then random ones."""
        fresh = [a for a in self._neighbours if a not in self._seen]
        chosen = [fresh[index] for index in self._rng.permutation(len(fresh))[:n]]
        for architecture in chosen:
            self._seen.claim(architecture)
        return chosen + [self._seen.draw(self._rng) for _ in range(n - len(chosen))]

    def update(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> dict[str, float]:
        """Climb as far as what is known allows.

        Returns:
            Reward of the position (of the last optimum between climbs), and how many local optima were found.
        """
        self._seen.tell(architectures, rewards)
        around = set(self._neighbours)
        self._starts += [a for a in map(self.space.canonical, architectures) if a not in around]
        while self._step():
            pass
        place = self.position or (self.optima[-1] if self.optima else None)
        known = {"position_reward": self._seen.rewards[place]} if place else {}
        return {**known, "local_optima": float(len(self.optima))}

    def state_dict(self) -> StateDict:
        """Position, optima, starts, seen architectures and random state."""
        return {
            "position": list(self.position.genes) if self.position else None,
            "optima": [list(architecture.genes) for architecture in self.optima],
            "starts": [list(architecture.genes) for architecture in self._starts],
            "seen": self._seen.state_dict(),
            "rng": json.dumps(self._rng.bit_generator.state),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self._move(self._architecture(state["position"]) if state["position"] else None)
        self.optima = [self._architecture(genes) for genes in state["optima"]]
        self._starts = [self._architecture(genes) for genes in state["starts"]]
        self._seen.load_state_dict(state["seen"])
        self._rng.bit_generator.state = json.loads(state["rng"])

    def _step(self) -> bool:
        """Start, climb, or end a climb; False where more must be evaluated first."""
        rewards = self._seen.rewards
        if self.position is None:
            if len(self._starts) < self.options.starts:
                return False
            self._move(max(self._starts, key=rewards.__getitem__))
            self._starts = []
            return True
        known = [a for a in self._neighbours if a in rewards]
        complete = len(known) == len(self._neighbours)
        best = max(known, key=rewards.__getitem__, default=self.position)
        if rewards[best] > rewards[self.position] and (complete or not self.options.full_neighbourhood):
            self._move(best)
            return True
        if complete:
            self.optima.append(self.position)
            self._move(None)
        return complete

    def _move(self, position: Architecture | None) -> None:
        self.position = position
        around = self.space.neighbours(position) if position else []
        self._neighbours = list(dict.fromkeys(map(self.space.canonical, around)))

    def _architecture(self, genes: Sequence[int]) -> Architecture:
        return Architecture(self.space.name, tuple(genes))
