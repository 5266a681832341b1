"""From a policy to proposals that nobody has paid for yet, and from their rewards back to samples to learn from."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from nas_engine.scores import FloatArray
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.seen import SeenArchitectures
from nas_engine.types import Architecture, StateDict

Genes = tuple[int, ...]
IntArray = npt.NDArray[np.int64]
LogProbs = Callable[[IntArray], FloatArray]

_DRAWS = (64, 128, 256)  # one round after the other, until enough is found
_BEST_WITH_NEIGHBOURS = 32


class ArchitecturePolicy(Protocol):
    """What a `Proposer` draws from."""

    def sample(self, count: int, generator: torch.Generator, /) -> IntArray:
        """Genes of `count` architectures, int64 [count, decisions]."""
        ...


class Proposer:
    """Draws from a policy until `n` unseen architectures are found.

    The policy draws genes, the search pays for their canonical form, and both are learned from. The genes as drawn are
    the sample that a policy gradient asks for, so they are kept until the reward comes. But one function may have many
    names: were each credited by itself, what is learned of a decision would be spread over them, the policy pulled
    towards whichever twin it happened to draw, and away from the names that imitation of the best goes by.

    Known architectures that are drawn on the way are not proposed
    again, but kept as samples that cost nothing: without them a policy that is rightly certain of a known optimum is
    judged only by its rare other draws.

    Attributes:
        seen: rewards of all architectures known.
        repeated_share: share of the draws of the last call of `propose` that were known already.
    """

    def __init__(
        self,
        space: SearchSpace,
        policy: ArchitecturePolicy,
        seed: int,
        likeliest_of: Sequence[int] = (1,),
        log_probs: LogProbs = lambda genes: np.zeros(len(genes)),
    ) -> None:
        """Start with nothing seen.

        Args:
            space: where architectures come from.
            policy: drawn from; whoever owns it trains it.
            seed: of all draws.
            likeliest_of: number of unseen draws of which the likeliest is proposed, one after the other; with 1 the
                proposals are distributed as the draws are.
            log_probs: of genes [n, decisions] under the policy, [n]; asked where there is more than one draw.
        """
        self.space, self.policy = space, policy
        self._likeliest_of, self._log_probs = tuple(likeliest_of), log_probs
        self.seen = SeenArchitectures(space)
        self.repeated_share = 0.0
        self._drawn: dict[Architecture, Genes] = {}
        self._redrawn: list[Genes] = []
        self._generator = torch.Generator().manual_seed(seed)
        self._rng = np.random.default_rng(seed)

    def propose(self, n: int) -> list[Architecture]:
        """`n` canonical architectures, unseen while there are any.

        Where the policy repeats itself for too long, unseen neighbours of the best known architectures fill up, and
        after those random ones.
        """
        proposals = self._from_policy(n)
        if len(proposals) < n:
            proposals += itertools.islice(self._neighbours_of_best(), n - len(proposals))
        return proposals + self.random(n - len(proposals))

    def random(self, n: int) -> list[Architecture]:
        """`n` canonical architectures drawn uniformly, unseen while there are any."""
        return [self.seen.draw(self._rng) for _ in range(n)]

    def collect(
        self, architectures: Sequence[Architecture], rewards: Sequence[float], most_free: int
    ) -> tuple[IntArray, FloatArray]:
        """Remember the `rewards` of `architectures`.

        Args:
            architectures: evaluated since the last call, at least one.
            rewards: theirs, in order.
            most_free: most samples to add that were drawn again while proposing and whose rewards are known.

        Returns:
            Genes int64 [samples, decisions] and their rewards [samples]: of each architecture the canonical genes,
            then of each that was drawn under another name the genes as drawn, then the free samples.
        """
        self.seen.tell(architectures, rewards)
        canonical = [self.space.canonical(architecture) for architecture in architectures]
        samples = [architecture.genes for architecture in canonical]
        sampled = [float(reward) for reward in rewards]
        for architecture, reward in zip(canonical, rewards, strict=True):
            drawn = self._drawn.pop(architecture, architecture.genes)
            if drawn != architecture.genes:
                samples.append(drawn)
                sampled.append(float(reward))
        for genes in self._redrawn[:most_free]:
            remembered = self.seen.rewards.get(self._canonical(genes))
            if remembered is not None:
                samples.append(genes)
                sampled.append(remembered)
        self._redrawn = []
        return np.array(samples, dtype=np.int64), np.array(sampled, dtype=np.float64)

    def replay(self, scores: FloatArray, count: int) -> IntArray:
        """Positions of at most `count` known architectures: the best quarter of them, and others at random.

        Args:
            scores: of all known, [n].
            count: most positions.
        """
        order = np.argsort(-scores, kind="stable")
        best, others = np.split(order, [count // 4])
        return np.concatenate([best, self._rng.permutation(others)[: count - len(best)]])

    def best(self, count: int, since: int = 0) -> list[Architecture]:
        """The `count` architectures of the highest rewards known, best first, earlier ones first among equals.

        The `since` earliest known architectures are left out.
        """
        known = itertools.islice(self.seen.rewards, since, None)
        return heapq.nlargest(count, known, key=self.seen.rewards.__getitem__)

    def permutation(self, n: int) -> IntArray:
        """A random order of n samples, int64 [n]."""
        return torch.randperm(n, generator=self._generator).numpy()

    def new_seed(self) -> int:
        """A seed for whatever else is random; part of the state as all draws are."""
        return int(self._rng.integers(2**31))

    def state_dict(self) -> StateDict:
        """Seen architectures, draws that wait for their reward, and both random states."""
        return {
            "seen": self.seen.state_dict(),
            "drawn": [[list(architecture.genes), list(genes)] for architecture, genes in self._drawn.items()],
            "redrawn": [list(genes) for genes in self._redrawn],
            "repeated_share": self.repeated_share,
            "generator": self._generator.get_state(),
            "rng": json.dumps(self._rng.bit_generator.state),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self.seen.load_state_dict(state["seen"])
        self._drawn = {Architecture(self.space.name, tuple(key)): tuple(genes) for key, genes in state["drawn"]}
        self._redrawn = [tuple(genes) for genes in state["redrawn"]]
        self.repeated_share = float(state["repeated_share"])
        self._generator.set_state(state["generator"])
        self._rng.bit_generator.state = json.loads(state["rng"])

    def _from_policy(self, n: int) -> list[Architecture]:
        draws = itertools.chain.from_iterable(map(self._draws, _DRAWS))
        found: list[Architecture] = []
        unseen: dict[Architecture, Genes] = {}
        drawn = repeated = 0
        while len(found) < n:
            of = self._likeliest_of[(len(self.seen.rewards) + len(self.seen.waiting)) % len(self._likeliest_of)]
            while len(unseen) < of and (genes := next(draws, None)) is not None:
                drawn += 1
                canonical = self._canonical(genes)
                if canonical in self.seen:
                    repeated += 1
                    self._redrawn.append(genes)
                else:
                    unseen.setdefault(canonical, genes)
            if not unseen:
                break
            chosen = self._likeliest(dict(itertools.islice(unseen.items(), of)))
            self._drawn[chosen] = unseen.pop(chosen)
            self.seen.claim(chosen)
            found.append(chosen)
        self.repeated_share = repeated / max(drawn, 1)
        return found

    def _likeliest(self, unseen: dict[Architecture, Genes]) -> Architecture:
        if len(unseen) == 1:
            return next(iter(unseen))
        log_probs = self._log_probs(np.array(list(unseen.values())))
        return list(unseen)[int(log_probs.argmax())]

    def _draws(self, count: int) -> list[Genes]:
        return [tuple(row) for row in self.policy.sample(count, self._generator).tolist()]

    def _neighbours_of_best(self) -> Iterator[Architecture]:
        for architecture in self.best(_BEST_WITH_NEIGHBOURS):
            neighbours = self.space.neighbours(architecture)
            for index in self._rng.permutation(len(neighbours)):
                canonical = self.seen.claim(neighbours[index])
                if canonical is not None:
                    yield canonical

    def _canonical(self, genes: Genes) -> Architecture:
        return self.space.canonical(Architecture(self.space.name, genes))
