"""PPO: several clipped gradient steps on each batch, with a predicted value before every decision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nas_engine.controllers.advantages import explained_variance, generalised_advantages
from nas_engine.controllers.base import Diagnostics
from nas_engine.controllers.learner import Learner, approx_kl, finite
from nas_engine.controllers.lstm import Rollout
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

    def learn(self, genes: Tensor, scores: FloatArray) -> Diagnostics:
        """Several passes over samples of the policy, whoever scored them.

        Args:
            genes: int64 [samples, decisions], valid.
            scores: [samples], higher is better, on a scale of about 1.
        """
        before = self._learner.begin(genes)
        earned = torch.zeros_like(before.values)
        earned[:, -1] = torch.as_tensor(scores, dtype=torch.float32)
        advantages = generalised_advantages(earned, before.values, self.options.gamma, self.options.gae_lambda)
        returns = advantages + before.values
        if self.options.normalise_advantages and len(genes) > 1:  # of a single episode, only the sign would be lost
            advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
        last_step = self._learn(before, advantages, returns)
        self._learner.rehearse()
        return finite(
            {
                **self._learner.finish(before),
                "baseline": float(before.values[:, 0].mean()),
                "explained_variance": explained_variance(before.values, returns),
                **last_step,
            }
        )

    def state_dict(self) -> StateDict:
        """Everything that learning has changed, and the random states."""
        return self._learner.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self._learner.load_state_dict(state)

    def _learn(self, before: Rollout, advantages: Tensor, returns: Tensor) -> dict[str, float]:
        diagnostics: dict[str, float] = {}
        steps = 0
        for _ in range(self.options.epochs):
            order = self._learner.proposer.permutation(len(advantages))
            for chosen in order.tensor_split(min(self.options.minibatches, len(order))):
                old = before[chosen]
                rollout, shared_loss = self._learner.evaluate(old.genes)
                if self.options.target_kl and approx_kl(rollout, old) > self.options.target_kl:
                    return diagnostics
                policy_loss, clip_fraction = self._policy_loss(rollout, old, advantages[chosen])
                value_loss = 0.5 * (rollout.values - returns[chosen]).square().mean()
                if not self._learner.step(policy_loss + self.options.value_weight * value_loss + shared_loss):
                    return diagnostics
                steps += 1
                diagnostics = {
                    "policy_loss": policy_loss.item(),
                    "value_loss": value_loss.item(),
                    "clip_fraction": clip_fraction,
                    "gradient_steps": float(steps),
                }
        return diagnostics

    def _policy_loss(self, rollout: Rollout, old: Rollout, advantages: Tensor) -> tuple[Tensor, float]:
        # Schulman et al. 2017, equation 7, over the decisions that were decisions: a forced one has ratio 1.
        ratio = (rollout.log_probs - old.log_probs).exp()
        clipped = ratio.clamp(1 - self.options.clip_coef, 1 + self.options.clip_coef)
        loss = -(torch.min(advantages * ratio, advantages * clipped) * old.open).sum() / old.open.sum().clamp(min=1)
        return loss, float((ratio != clipped)[old.open].float().mean()) if bool(old.open.any()) else 0.0
