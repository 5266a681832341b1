"""The parts that REINFORCE and PPO share, put together: policy, proposals, guarded optimiser, entropy, imitation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nas_engine.controllers.advantages import path_consistency
from nas_engine.controllers.guards import EntropyFloor, GuardedAdam
from nas_engine.controllers.lstm import LSTMPolicy, Rollout
from nas_engine.controllers.options import LearnerOptions
from nas_engine.controllers.proposing import Proposer
from nas_engine.scores import FloatArray, log_rank_scores, score
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, StateDict

_FEWEST_TO_REHEARSE = 8


class Learner:
    """An update is `collect`, `begin`, any number of `evaluate` and `step`, `rehearse`, and `finish`."""

    def __init__(self, space: SearchSpace, options: LearnerOptions, seed: int) -> None:
        """Build an untrained policy.

        Args:
            space: architectures to propose.
            options: of the algorithm.
            seed: of the initial weights and all draws.
        """
        self._space, self._options = space, options
        self.policy = self._fresh_policy(seed)
        self.proposer = Proposer(space, self, seed, options.likeliest_of, self._log_probs)
        self._adam = GuardedAdam(self.policy, options.learning_rate, options.max_grad_norm)
        self._floor = EntropyFloor(options.entropy_floor)
        self._best = torch.empty(0, len(space.decisions), dtype=torch.long)
        self._start = self._restarts = 0

    def collect(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> tuple[Tensor, FloatArray]:
        """Remember what was paid for.

        Returns:
            Genes int64 [samples, decisions] to learn from, as `Proposer.collect` gives them, and their scores
            [samples].
        """
        genes, sampled = self.proposer.collect(architectures, rewards, self._options.free_samples)
        known = np.array(list(self.proposer.seen.rewards.values()))
        self._watch(known)
        return genes, score(sampled, known, self._options.advantages)

    def propose(self, n: int) -> list[Architecture]:
        """`n` unseen architectures: random ones while a start still lacks some, then those of the policy."""
        seen = self.proposer.seen
        missing = self._options.initial_design - (len(seen.rewards) + len(seen.waiting) - self._start)
        count = min(max(missing, 0), n)
        return self.proposer.random(count) + self.proposer.propose(n - count)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw for proposals: from the policy, drawn towards the incumbent."""
        return self.policy.sample(count, generator, self._bonus())

    @torch.no_grad()
    def _log_probs(self, genes: Tensor) -> Tensor:
        # Up to what each draw's own normalisation adds: how likely the policy finds it, and how near the incumbent is.
        log_probs, bonus = self.policy.evaluate(genes).log_probs.sum(dim=1), self._bonus()
        return log_probs if bonus is None else log_probs + bonus[torch.arange(genes.shape[1]), genes].sum(dim=1)

    def _bonus(self) -> Tensor | None:
        best = self.proposer.best(1, self._start) if self._options.incumbent_bonus else []
        if not best:
            return None
        bonus = torch.zeros(self.policy.logit_bias.shape)
        bonus[torch.arange(len(bonus)), torch.tensor(best[0].genes)] = self._options.incumbent_bonus
        return bonus

    def _fresh_policy(self, seed: int) -> LSTMPolicy:
        options = self._options
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return LSTMPolicy(
                self._space.diagram,
                options.embedding_size,
                options.hidden_size,
                options.temperature,
                options.tanh_constant,
            )

    def _watch(self, known: FloatArray) -> None:
        """Where the best since the last start is too long ago, start with new weights and imitate only what follows.

        What is known stays known, and a replay teaches it to the new weights.
        """
        here = known[self._start :]
        # The random design does not count: a start that is short of patience would never come to ask the policy.
        last = max(int(np.argmax(here)), self._options.initial_design - 1) if len(here) else 0
        if self._options.patience and len(here) - 1 - last >= self._options.patience:
            self._start, self._restarts = len(known), self._restarts + 1
            self.policy.load_state_dict(self._fresh_policy(self.proposer.new_seed()).state_dict())
            self._adam.reset()

    def begin(self, genes: Tensor) -> Rollout:
        """Mark the policy that an update may have to go back to; returns what it says about `genes`."""
        self._adam.begin()
        if self._options.self_imitation_weight:
            best = self.proposer.best(self._options.self_imitation_size, self._start)
            self._best = torch.from_numpy(self._space.genes(best))
        with torch.no_grad():
            return self.policy.evaluate(genes)

    def evaluate(self, genes: Tensor) -> tuple[Rollout, Tensor]:
        """What the policy says about `genes` now, and the part of the loss that every algorithm has.

        That part is the entropy bonus and, where it is on, the mean negative log-probability a decision of the best
        architectures known (the imitation term of Oh et al. 2018, "Self-imitation learning", with the best of all
        episodes in place of a prioritised buffer).
        """
        both = self.policy.evaluate(torch.cat([genes, self._best]))
        rollout, best = both[: len(genes)], both[len(genes) :]
        imitation = -best.log_probs.sum() / best.open.sum().clamp(min=1)
        shared = self._options.self_imitation_weight * imitation - self.entropy_weight * rollout.mean_entropy
        return rollout, shared

    def rehearse(self) -> None:
        """Learn from what is known, whoever chose it: `path_consistency` on a replay, and imitation of the best."""
        known = self.proposer.seen.rewards
        if not self._options.replay or len(known) < _FEWEST_TO_REHEARSE or self._adam.undone:
            return
        scores = log_rank_scores(np.array(list(known.values())))
        chosen = self.proposer.replay(scores, self._options.replay)
        genes = torch.from_numpy(self._space.genes(list(known)))[chosen]
        for _ in range(self._options.replay_steps):
            rollout, shared_loss = self.evaluate(genes)
            consistency = path_consistency(
                rollout.log_probs.sum(dim=1), torch.from_numpy(scores[chosen]).float(), self._options.replay_scale
            )
            if not self.step(consistency + shared_loss):
                return

    def step(self, loss: Tensor) -> bool:
        """Descend once; False where a NaN or an infinity undid the update."""
        return self._adam.step(loss)

    def finish(self, before: Rollout) -> dict[str, float]:
        """Apply the entropy floor and report.

        Args:
            before: what `begin` returned.

        Returns:
            ``entropy`` (nats a decision after the update, over the decisions that had more than one open choice),
            ``entropy_collapsed`` (1 where that is below the floor), ``entropy_weight``,
            ``approx_kl`` (nats a decision, of the whole update), ``grad_norm`` (before clipping),
            ``repeated_proposals`` (share of draws that were known already), ``nan_guard`` (1 where the update was
            undone) and ``restarts`` (fresh starts so far, see `patience`).
        """
        with torch.no_grad():
            after = self.policy.evaluate(before.genes)
        entropy, entropy_weight = after.mean_entropy.item(), self.entropy_weight
        self._floor.apply(self.policy, after)
        return {
            "entropy": entropy,
            "entropy_collapsed": float(entropy < self._options.entropy_floor),
            "entropy_weight": entropy_weight,
            "approx_kl": approx_kl(after, before),
            "grad_norm": self._adam.grad_norm,
            "repeated_proposals": self.proposer.repeated_share,
            "nan_guard": float(self._adam.undone),
            "restarts": float(self._restarts),
        }

    @property
    def entropy_weight(self) -> float:
        """Weight of the entropy bonus, with the boost of the floor."""
        return self._options.entropy_weight * self._floor.boost

    def state_dict(self) -> StateDict:
        """Weights, optimiser, entropy boost, memory and random states."""
        return {
            "policy": {name: weight.clone() for name, weight in self.policy.state_dict().items()},
            "adam": self._adam.state_dict(),
            "entropy_boost": self._floor.boost,
            "proposer": self.proposer.state_dict(),
            "start": self._start,
            "restarts": self._restarts,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self.policy.load_state_dict(state["policy"])
        self._adam.load_state_dict(state["adam"])
        self._floor.boost = float(state["entropy_boost"])
        self.proposer.load_state_dict(state["proposer"])
        self._start, self._restarts = int(state["start"]), int(state["restarts"])


def approx_kl(after: Rollout, before: Rollout) -> float:
    """KL(before || after) in nats a decision, estimated on samples drawn from `before`.

    Source: Schulman 2020, "Approximating KL divergence", estimator k3: (r - 1) - log r, never negative.
    """
    log_ratio = (after.log_probs - before.log_probs).detach()
    return float((log_ratio.exp() - 1 - log_ratio).sum() / before.open.sum().clamp(min=1))


def finite(diagnostics: dict[str, float]) -> dict[str, float]:
    """Without the entries that an undone update left non-finite."""
    return {name: value for name, value in diagnostics.items() if math.isfinite(value)}
