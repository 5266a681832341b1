"""PPO: several clipped gradient steps on each batch, with a predicted value before every decision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_engine.controllers.advantages import clipped_surrogate, explained_variance, generalised_advantages
from nas_engine.controllers.base import Diagnostics
from nas_engine.controllers.learner import Learner, PolicyLoss, approx_kl, finite
from nas_engine.controllers.lstm import IntArray, Rollout
from nas_engine.controllers.options import PPOOptions
from nas_engine.scores import FloatArray
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, StateDict


class PPOController:
    """Proximal policy optimisation of an LSTM policy (Schulman et al. 2017), one episode for each architecture.

    The only reward of an episode is the score of the architecture, after its last decision.

    Diagnostics: those of `Learner.finish`, ``baseline`` (mean value predicted before the first decision),
    ``policy_loss``, ``value_loss``, ``clip_fraction`` (share of decisions beyond the clip, of the last step),
    ``explained_variance`` (of the returns, by the values before the update) and ``gradient_steps``.
    """

    Options = PPOOptions

    def __init__(self, space: SearchSpace, options: PPOOptions = PPOOptions(), seed: int = 0) -> None:
        """Build an untrained controller.

        Args:
            space: architectures to propose.
            options: of the algorithm.
            seed: of the initial weights and all draws.
        """
        self.options = options
        self._learner = Learner(space, options, seed)
        self.policy, self.proposer = self._learner.policy, self._learner.proposer

    def propose(self, n: int) -> list[Architecture]:
        """The next `n` architectures, drawn from the policy."""
        return self._learner.propose(n)

    def update(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> Diagnostics:
        """Several passes over the batch; returns the diagnostics."""
        if not architectures:
            return {}
        genes, scores = self._learner.collect(architectures, rewards)
        return self.learn(genes, scores)

    @np.errstate(over="ignore", invalid="ignore")  # raw rewards near the largest float: the NaN guard acts
    def learn(self, genes: IntArray, scores: FloatArray) -> Diagnostics:
        """Several passes over samples of the policy, whoever scored them.

        Args:
            genes: int64 [samples, decisions], valid.
            scores: [samples], higher is better, on a scale of about 1.
        """
        before = self._learner.begin(genes)
        values = before.values.astype(np.float64)
        earned = np.zeros(values.shape)
        earned[:, -1] = scores
        advantages = generalised_advantages(earned, values, self.options.gamma, self.options.gae_lambda)
        returns = advantages + values
        if self.options.normalise_advantages and len(genes) > 1:  # of a single episode, only the sign would be lost
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        last_step = self._learn(before, advantages, returns)
        self._learner.rehearse()
        return finite(
            {
                **self._learner.finish(before),
                "baseline": float(values[:, 0].mean()),
                "explained_variance": explained_variance(values, returns),
                **last_step,
            }
        )

    def state_dict(self) -> StateDict:
        """Everything that learning has changed, and the random states."""
        return self._learner.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self._learner.load_state_dict(state)

    def _learn(self, before: Rollout, advantages: FloatArray, returns: FloatArray) -> dict[str, float]:
        diagnostics: dict[str, float] = {}
        steps = 0
        for _ in range(self.options.epochs):
            order = self._learner.proposer.permutation(len(advantages))
            for chosen in np.array_split(order, min(self.options.minibatches, len(order))):
                old = before[chosen]
                rollout = self._learner.evaluate(old.genes)
                if self.options.target_kl and approx_kl(rollout, old) > self.options.target_kl:
                    return diagnostics
                log_ratio = np.where(old.open, rollout.log_probs - old.log_probs, 0.0)  # 0 where nothing was decided
                surrogate, slope, clipped = clipped_surrogate(log_ratio, advantages[chosen], self.options.clip_coef)
                policy_loss = -float(surrogate[old.open].sum()) / old.open_count
                errors = rollout.values - returns[chosen]
                value_loss = 0.5 * float(np.square(errors).mean())
                loss = policy_loss + self.options.value_weight * value_loss
                of_values = self.options.value_weight * errors / errors.size
                if not self._learner.step(PolicyLoss(loss, -slope * old.open / old.open_count, of_values)):
                    return diagnostics
                steps += 1
                diagnostics = {
                    "policy_loss": policy_loss,
                    "value_loss": value_loss,
                    "clip_fraction": float(np.count_nonzero(clipped)) / old.open_count,
                    "gradient_steps": float(steps),
                }
        return diagnostics
