"""What keeps learning alive: steps that a NaN undoes, and an entropy floor against collapse."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from nas_engine.controllers.lstm import LSTMPolicy, Rollout
from nas_engine.types import StateDict

_LARGEST_BOOST = 1e3
_MOST_HALVINGS = 60


class GuardedAdam:
    """Adam with a clipped gradient that never leaves a non-finite weight behind.

    `begin` marks the state to go back to; a step that meets or makes a NaN or an infinity returns there.
    """

    def __init__(self, weights: Tensor, learning_rate: float, max_grad_norm: float) -> None:
        """Set up Adam.

        Args:
            weights: what is trained, in place; one vector, because a step of a small network would otherwise spend most
                of its time on going through its parameters one by one.
            learning_rate: step size of Adam.
            max_grad_norm: gradients are scaled down to this L2 norm.
        """
        self._weights = weights
        self._max_grad_norm = max_grad_norm
        self._adam = torch.optim.Adam([weights], lr=learning_rate, eps=1e-5, fused=True)
        self.begin()

    def reset(self) -> None:
        """Forget all moments: the weights are new."""
        self._adam.state.clear()
        self.begin()

    def begin(self) -> None:
        """Mark the current weights and moments as the ones to go back to."""
        moments = {name: value.clone() for name, value in self._adam.state[self._weights].items()}
        self._saved = self._weights.clone(), moments
        self.grad_norm, self.undone = 0.0, False

    def step(self, loss: float, gradient: Tensor) -> bool:
        """Descend once.

        Args:
            loss: what is descended.
            gradient: of it, with respect to the weights; scaled in place.

        Returns:
            False where a weight would have become non-finite: everything since `begin` is undone.
        """
        self.grad_norm = float(torch.linalg.vector_norm(gradient))
        if math.isfinite(loss) and math.isfinite(self.grad_norm):
            self._weights.grad = gradient.mul_(min(self._max_grad_norm / (self.grad_norm + 1e-6), 1.0))
            self._adam.step()
            if math.isfinite(float(self._weights.abs().max())):
                return True
        self._undo()
        return False

    def state_dict(self) -> StateDict:
        """Moments and step counts."""
        return copy.deepcopy(self._adam.state_dict())

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self._adam.load_state_dict(copy.deepcopy(state))

    def _undo(self) -> None:
        weights, moments = self._saved
        self._weights.copy_(weights)
        self._adam.state[self._weights] = moments
        self.undone = True


class EntropyFloor:
    """Keeps a policy from collapsing onto one architecture.

    While the entropy is below the floor, the entropy bonus doubles at each update; above, it halves back to its base.
    A saturated softmax has no gradient to follow, so below half the floor the logits are halved outright until the
    entropy is above that.

    Attributes:
        floor: nats a decision; 0 switches it off.
        boost: factor on the entropy bonus, 1 to 1,000.
    """

    def __init__(self, floor: float) -> None:
        """Start without a boost."""
        self.floor, self.boost = floor, 1.0

    def apply(self, policy: LSTMPolicy, rollout: Rollout) -> None:
        """Act where the policy has become too certain.

        Args:
            policy: its logits may be scaled down.
            rollout: what `policy` says now about the architectures along which the entropy is measured.
        """
        entropy = rollout.mean_entropy
        self.boost = min(2 * self.boost, _LARGEST_BOOST) if entropy < self.floor else max(self.boost / 2, 1.0)
        for _ in range(_MOST_HALVINGS):
            if entropy >= self.floor / 2:
                break
            policy.scale_logits(0.5)
            entropy = policy.evaluate(rollout.genes).mean_entropy
