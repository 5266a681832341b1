"""Regularised evolution: the best of a random sample of the population is mutated, and the oldest member dies."""

from __future__ import annotations

import json
import statistics
from collections import deque
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from nas_engine.options import Options
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.seen import SeenArchitectures
from nas_engine.types import Architecture, StateDict

_MOST_MUTATIONS = 100


class EvolutionOptions(Options):
    """Options of regularised evolution."""

    population_size: int = Field(30, ge=1, description="members alive; the first so many architectures are random")
    sample_size: int = Field(10, ge=1, description="members, drawn with replacement, of which the best is the parent")


class EvolutionController:
    """Ageing evolution.

    Source: Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search", algorithm 1. A child is
    its parent with one gene changed: one of `SearchSpace.neighbours`, uniformly. Where the child is known already it
    is mutated further, so that nothing is evaluated twice. Children of one proposal share the population they come
    from, as those of parallel workers do in the paper; they enter it in the order of `update`.

    Attributes:
        population: members and their rewards, oldest first.
    """

    Options = EvolutionOptions

    def __init__(self, space: SearchSpace, options: EvolutionOptions = EvolutionOptions(), seed: int = 0) -> None:
        """Start with an empty population.

        Args:
            space: where architectures come from.
            options: sizes of population and tournament.
            seed: of all draws.
        """
        self.space, self.options = space, options
        self.population: deque[tuple[Architecture, float]] = deque(maxlen=options.population_size)
        self._seen = SeenArchitectures(space)
        self._rng = np.random.default_rng(seed)

    def propose(self, n: int) -> list[Architecture]:
        """`n` canonical architectures, unseen while there are any: random ones first, then children."""
        return [self._next() for _ in range(n)]

    def update(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> dict[str, float]:
        """Let the evaluated architectures into the population; the oldest members leave it.

        Returns:
            Best and median reward of the population, and its size.
        """
        self._seen.tell(architectures, rewards)
        self.population.extend(zip(map(self.space.canonical, architectures), map(float, rewards), strict=True))
        alive = [reward for _, reward in self.population] or [0.0]
        return {
            "population_best": max(alive),
            "population_median": statistics.median_low(alive),
            "population_size": float(len(self.population)),
        }

    def state_dict(self) -> StateDict:
        """Population, seen architectures and random state."""
        return {
            "population": [[list(architecture.genes), reward] for architecture, reward in self.population],
            "seen": self._seen.state_dict(),
            "rng": json.dumps(self._rng.bit_generator.state),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self.population.clear()
        self.population.extend((Architecture(self.space.name, tuple(g)), reward) for g, reward in state["population"])
        self._seen.load_state_dict(state["seen"])
        self._rng.bit_generator.state = json.loads(state["rng"])

    def _next(self) -> Architecture:
        founders = len(self.population) + len(self._seen.waiting)
        if founders < self.options.population_size or not self.population or self._seen.exhausted:
            return self._seen.draw(self._rng)
        child = self._parent()
        for _ in range(_MOST_MUTATIONS):
            neighbours = self.space.neighbours(child)
            if not neighbours:
                break
            child = neighbours[self._rng.integers(len(neighbours))]
            canonical = self._seen.claim(child)
            if canonical is not None:
                return canonical
        return self._seen.draw(self._rng)

    def _parent(self) -> Architecture:
        drawn = self._rng.integers(len(self.population), size=self.options.sample_size)
        return max((self.population[index] for index in drawn), key=lambda member: member[1])[0]
