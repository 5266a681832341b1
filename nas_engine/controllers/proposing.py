"""From a policy to proposals that nobody has paid for yet, and from their rewards back to samples to learn from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas_engine.controllers.lstm import LSTMPolicy
from nas_engine.controllers.memory import Genes, Memory, unseen
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, StateDict

_DRAWS_AT_ONCE = 64
_ROUNDS = 8


@dataclass(frozen=True)
class Samples:
    """What one update learns from.

    Attributes:
        genes: int64 [samples, decisions], as drawn from the policy.
        rewards: float64 [samples].
        paid: how many of them, at the front, were evaluated for this update; the others were drawn again while
            proposing and their rewards remembered.
    """

    genes: Tensor
    rewards: npt.NDArray[np.float64]
    paid: int


class Proposer:
    """Draws from a policy until `n` unseen architectures are found, and keeps what was drawn on the way.

    Rejecting known architectures would bias learning: a policy that is rightly certain of a known optimum would be
    judged only by its rare other draws. The known ones drawn meanwhile cost nothing and are remembered as samples.
    """

    def __init__(self, space: SearchSpace, policy: LSTMPolicy, seed: int) -> None:
        """Start with an empty memory.

        Args:
            space: where architectures come from.
            policy: drawn from; whoever owns it trains it.
            seed: of all draws.
        """
        self.space, self.policy = space, policy
        self.memory = Memory()
        self.repeated_share = 0.0
        self._generator = torch.Generator().manual_seed(seed)
        self._rng = np.random.default_rng(seed)
        self._redrawn: list[Genes] = []

    def propose(self, n: int) -> list[Architecture]:
        """`n` canonical architectures, unseen as long as unseen ones are found with reasonable effort."""
        found = self._draw(n)
        if len(found) < n:
            self._complete(found, n)
        self.memory.waiting.update(found)
        proposals = [Architecture(self.space.name, genes) for genes in found]
        while len(proposals) < n:
            proposals += self._repeat(n - len(proposals))
        return proposals

    def collect(self, architectures: Sequence[Architecture], rewards: Sequence[float], most_redrawn: int) -> Samples:
        """Remember `rewards` of `architectures`; returns them with at most `most_redrawn` free samples."""
        paid = [
            self.memory.tell(self._canonical(architecture.genes), float(reward))
            for architecture, reward in zip(architectures, rewards, strict=True)
        ]
        redrawn, self._redrawn = self._redrawn[:most_redrawn], []
        remembered = [(genes, self.memory.rewards.get(self._canonical(genes))) for genes in redrawn]
        free = [(genes, reward) for genes, reward in remembered if reward is not None]
        return Samples(
            genes=torch.tensor([*paid, *(genes for genes, _ in free)], dtype=torch.long),
            rewards=np.array([*rewards, *(reward for _, reward in free)], dtype=np.float64),
            paid=len(paid),
        )

    def state_dict(self) -> StateDict:
        """Memory, free samples that wait for the next update, and both random states."""
        return {
            "memory": self.memory.state_dict(),
            "redrawn": torch.tensor(self._redrawn, dtype=torch.long),
            "repeated_share": self.repeated_share,
            "generator": self._generator.get_state(),
            "rng": json.dumps(self._rng.bit_generator.state),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self.memory.load_state_dict(state["memory"])
        self._redrawn = [tuple(genes) for genes in state["redrawn"].tolist()]
        self.repeated_share = float(state["repeated_share"])
        self._generator.set_state(state["generator"])
        self._rng.bit_generator.state = json.loads(state["rng"])

    def _draw(self, n: int) -> dict[Genes, Genes]:
        found: dict[Genes, Genes] = {}
        draws = repeated = 0
        for _ in range(_ROUNDS):
            for row in self.policy.sample(max(_DRAWS_AT_ONCE, 2 * n), self._generator).tolist():
                if len(found) == n:
                    break
                drawn = tuple(row)
                canonical = self._canonical(drawn)
                draws += 1
                if canonical in found or canonical in self.memory:
                    repeated += 1
                    self._redrawn.append(drawn)
                else:
                    found[canonical] = drawn
        self.repeated_share = repeated / draws if draws else 0.0
        return found

    def _complete(self, found: dict[Genes, Genes], n: int) -> None:
        for genes in unseen(self.space, self.memory, self._rng):
            canonical = self._canonical(genes)
            if canonical not in found and canonical not in self.memory:
                found[canonical] = canonical
            if len(found) == n:
                break

    def _repeat(self, n: int) -> list[Architecture]:
        drawn = self.policy.sample(n, self._generator).tolist()
        return [Architecture(self.space.name, self._canonical(tuple(genes))) for genes in drawn]

    def _canonical(self, genes: Genes) -> Genes:
        return self.space.canonical(Architecture(self.space.name, genes)).genes
