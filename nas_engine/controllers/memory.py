"""What is known about a space so far: rewards by canonical genes, proposals that wait, and the way to unseen ones."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, StateDict

Genes = tuple[int, ...]

_UNIFORM_DRAWS = 1_000
_LARGEST_LISTED_SPACE = 1_000_000


@dataclass
class Memory:
    """Architectures by canonical genes.

    Attributes:
        rewards: the reward last told for each.
        waiting: proposed and not told yet; the genes that the policy drew, before canonicalisation.
    """

    rewards: dict[Genes, float] = field(default_factory=dict)
    waiting: dict[Genes, Genes] = field(default_factory=dict)

    def __contains__(self, canonical: object) -> bool:
        """Whether an architecture was proposed or told."""
        return canonical in self.rewards or canonical in self.waiting

    def tell(self, canonical: Genes, reward: float) -> Genes:
        """Remember a reward; returns the genes to learn from.

        These are the genes that the policy drew, whose probability the proposal depended on, or the canonical genes
        where somebody else proposed the architecture.
        """
        self.rewards[canonical] = reward
        return self.waiting.pop(canonical, canonical)

    def best(self, count: int) -> list[Genes]:
        """Canonical genes of the `count` highest rewards, best first, earlier ones first among equals."""
        return heapq.nlargest(count, self.rewards, key=self.rewards.__getitem__)

    def state_dict(self) -> StateDict:
        """Tensors in order of arrival."""
        return {
            "genes": torch.tensor(list(self.rewards), dtype=torch.long),
            "rewards": torch.tensor(list(self.rewards.values()), dtype=torch.float64),
            "waiting": torch.tensor(list(self.waiting.items()), dtype=torch.long),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        genes = map(tuple, state["genes"].tolist())
        self.rewards = dict(zip(genes, state["rewards"].tolist(), strict=True))
        self.waiting = {tuple(canonical): tuple(drawn) for canonical, drawn in state["waiting"].tolist()}


def unseen(space: SearchSpace, memory: Memory, rng: np.random.Generator) -> Iterator[Genes]:
    """Genes of architectures to try when the policy repeats itself, most promising first.

    Neighbours of the best known architectures in random order, then uniform samples, then, where the space is small
    enough to list, all of it from a random point. The caller skips what it knows; the iterator ends when no
    reasonable effort is left.
    """
    for genes in memory.best(len(memory.rewards)):
        neighbours = space.neighbours(Architecture(space.name, genes))
        for index in rng.permutation(len(neighbours)):
            yield neighbours[index].genes
    for _ in range(_UNIFORM_DRAWS):
        yield space.diagram.sample(rng)
    if space.size <= _LARGEST_LISTED_SPACE:
        start = int(rng.integers(space.size))
        for offset in range(space.size):
            yield space.diagram.unrank((start + offset) % space.size)
