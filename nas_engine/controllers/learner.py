"""The parts that REINFORCE and PPO share, put together: policy, proposals, guarded optimiser, entropy, imitation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nas_engine.controllers.advantages import path_consistency
from nas_engine.controllers.guards import EntropyFloor, GuardedAdam
from nas_engine.controllers.lstm import IntArray, LSTMPolicy, Rollout
from nas_engine.controllers.options import LearnerOptions
from nas_engine.controllers.proposing import Proposer
from nas_engine.scores import FloatArray, log_rank_scores, score
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, StateDict

_FEWEST_TO_REHEARSE = 8
_HIGHEST_FLOOR = 0.8  # of the entropy of a fresh policy: a floor above that would let it learn nothing
_FRESH_DRAWS = 64  # to measure that, under the masks


@dataclass(frozen=True)
class PolicyLoss:
    """A loss of what the policy says about n samples, and its gradient with respect to that.

    Attributes:
        value: the loss.
        log_probs: gradient with respect to the log-probabilities, [n, decisions], or [n, 1] where it is the same for
            all decisions of a sample.
        values: gradient with respect to the predicted values, [n, decisions]; 0: the loss has none.
    """

    value: float
    log_probs: npt.NDArray[np.floating[Any]]
    values: npt.NDArray[np.floating[Any]] | float = 0.0


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
        self._adam = GuardedAdam(self.policy.vector, options.learning_rate, options.max_grad_norm)
        uniform = self.policy.evaluate(self.policy.sample(_FRESH_DRAWS, torch.Generator().manual_seed(0))).mean_entropy
        self._floor = EntropyFloor(min(options.entropy_floor, _HIGHEST_FLOOR * uniform))
        self._best = np.empty((0, len(space.decisions)), dtype=np.int64)
        self._start = self._restarts = 0

    def collect(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> tuple[IntArray, FloatArray]:
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

    def sample(self, count: int, generator: torch.Generator) -> IntArray:
        """Draw for proposals: from the policy, drawn towards the incumbent."""
        return self.policy.sample(count, generator, self._bonus())

    def _log_probs(self, genes: IntArray) -> FloatArray:
        # Up to what each draw's own normalisation adds: how likely the policy finds it, and how near the incumbent is.
        log_probs: FloatArray = self.policy.evaluate(genes).log_probs.sum(axis=1, dtype=np.float64)
        bonus = self._bonus()
        return log_probs if bonus is None else log_probs + bonus[np.arange(genes.shape[1]), genes].sum(axis=1)

    def _bonus(self) -> npt.NDArray[np.float32] | None:
        best = self.proposer.best(1, self._start) if self._options.incumbent_bonus else []
        if not best:
            return None
        bonus = np.zeros(self.policy.weights.logit_bias.shape, dtype=np.float32)
        bonus[np.arange(len(bonus)), best[0].genes] = self._options.incumbent_bonus
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
            self.policy.vector[:] = self._fresh_policy(self.proposer.new_seed()).vector
            self._adam.reset()

    def begin(self, genes: IntArray) -> Rollout:
        """Mark the policy that an update may have to go back to; returns what it says about `genes`."""
        self._adam.begin()
        if self._options.self_imitation_weight:
            best = self.proposer.best(self._options.self_imitation_size, self._start)
            self._best = self._space.genes(best)
        return self.policy.evaluate(genes)

    def evaluate(self, genes: IntArray) -> Rollout:
        """What the policy says about `genes` now; `step` goes back through it."""
        both, self._evaluation = self.policy.follow(np.concatenate([genes, self._best]))
        self._rollout, self._imitated = both[: len(genes)], both[len(genes) :]
        return self._rollout

    def step(self, loss: PolicyLoss) -> bool:
        """Descend once from what `evaluate` returned last; False where a NaN or an infinity undid the update.

        Added to `loss` is what every algorithm has: the entropy bonus and, where it is on, the mean negative
        log-probability a decision of the best architectures known (the imitation term of Oh et al. 2018,
        "Self-imitation learning", with the best of all episodes in place of a prioritised buffer).
        """
        rollout, imitated = self._rollout, self._imitated
        imitation, bonus = self._options.self_imitation_weight, self.entropy_weight
        value = loss.value - bonus * rollout.mean_entropy - imitation * imitated.log_probs.sum() / imitated.open_count
        n, upstream = len(rollout.genes), np.zeros_like(self._evaluation.outputs)
        of_log_probs, of_entropies, of_values = upstream
        of_log_probs[:n], of_values[:n] = loss.log_probs, loss.values
        of_log_probs[n:] = -imitation / imitated.open_count
        of_entropies[:n] = -bonus / rollout.open_count
        return self._adam.step(value, self.policy.gradient(self._evaluation, upstream))

    def rehearse(self) -> None:
        """Learn from what is known, whoever chose it: `path_consistency` on a replay, and imitation of the best."""
        known = self.proposer.seen.rewards
        if not self._options.replay or len(known) < _FEWEST_TO_REHEARSE or self._adam.undone:
            return
        scores = log_rank_scores(np.array(list(known.values())))
        chosen = self.proposer.replay(scores, self._options.replay)
        genes = self._space.genes(list(known))[chosen]
        for _ in range(self._options.replay_steps):
            log_probs = self.evaluate(genes).log_probs.sum(axis=1)
            loss, gradient = path_consistency(log_probs, scores[chosen], self._options.replay_scale)
            if not self.step(PolicyLoss(loss, gradient[:, None])):
                return

    def finish(self, before: Rollout) -> dict[str, float]:
        """Apply the entropy floor and report.

        Args:
            before: what `begin` returned.

        Returns:
            ``entropy`` (nats a decision after the update, over the decisions that had more than one open choice),
            ``entropy_floored`` (the same once the floor has acted: of the policy that proposes next),
            ``entropy_collapsed`` (1 where ``entropy`` is below the floor), ``entropy_weight``,
            ``approx_kl`` (nats a decision, of the whole update), ``grad_norm`` (before clipping),
            ``repeated_proposals`` (share of draws that were known already), ``nan_guard`` (1 where the update was
            undone) and ``restarts`` (fresh starts so far, see `patience`).
        """
        after = self.policy.evaluate(before.genes)
        entropy, entropy_weight = after.mean_entropy, self.entropy_weight
        return {
            "entropy": entropy,
            "entropy_floored": self._floor.apply(self.policy, after),
            "entropy_collapsed": float(entropy < self._floor.floor),
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
            "policy": self.policy.state_dict(),
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
    log_ratio = after.log_probs - before.log_probs
    return float((np.expm1(log_ratio) - log_ratio).sum() / before.open_count)


def finite(diagnostics: dict[str, float]) -> dict[str, float]:
    """Without the entries that an undone update left non-finite."""
    return {name: value for name, value in diagnostics.items() if math.isfinite(value)}
