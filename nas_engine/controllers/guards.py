"""What keeps learning alive: steps that a NaN undoes, and an entropy floor against collapse."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from nas_engine.controllers.lstm import LSTMPolicy, Rollout
from nas_engine.types import StateDict

_LARGEST_BOOST = 1e3
_MOST_HALVINGS = 60


class GuardedAdam:
    """Adam with a clipped gradient that never leaves a non-finite weight behind.

    `begin` marks the state to go back to; a step that meets or makes a NaN or an infinity returns there.
    """

    def __init__(self, module: nn.Module, learning_rate: float, max_grad_norm: float) -> None:
        """Set up Adam for the parameters of `module`.

        Args:
            module: what is trained.
            learning_rate: step size of Adam.
            max_grad_norm: gradients are scaled down to this L2 norm.
        """
        self._weights, self._max_grad_norm = list(module.parameters()), max_grad_norm
        self._adam = torch.optim.Adam(self._weights, lr=learning_rate, eps=1e-5)
        self.begin()

    def reset(self) -> None:
        """Forget all moments: the weights are new."""
        self._adam.state.clear()
        self.begin()

    def begin(self) -> None:
        """Mark the current weights and moments as the ones to go back to."""
        moments = [{name: value.clone() for name, value in self._adam.state[w].items()} for w in self._weights]
        self._saved = [(weight.detach().clone(), kept) for weight, kept in zip(self._weights, moments, strict=True)]
        self.grad_norm, self.undone = 0.0, False

    def step(self, loss: Tensor) -> bool:
        """Descend once.

        Args:
            loss: scalar.

        Returns:
            False where a weight would have become non-finite: everything since `begin` is undone.
        """
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.grad_norm = float(nn.utils.clip_grad_norm_(self._weights, self._max_grad_norm))
        if math.isfinite(loss.item()) and math.isfinite(self.grad_norm):
            self._adam.step()
            if all(bool(weight.isfinite().all()) for weight in self._weights):
                return True
        self._undo()
        return False

    def state_dict(self) -> StateDict:
        """Moments and step counts."""
        return copy.deepcopy(self._adam.state_dict())

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self._adam.load_state_dict(copy.deepcopy(state))

    @torch.no_grad()
    def _undo(self) -> None:
        for weight, (value, moments) in zip(self._weights, self._saved, strict=True):
            weight.copy_(value)
            self._adam.state[weight] = moments
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

    @torch.no_grad()
    def apply(self, policy: LSTMPolicy, rollout: Rollout) -> None:
        """Act where the policy has become too certain.

        Args:
            policy: its logits may be scaled down.
            rollout: what `policy` says now about the architectures along which the entropy is measured.
        """
        entropy = rollout.mean_entropy.item()
        self.boost = min(2 * self.boost, _LARGEST_BOOST) if entropy < self.floor else max(self.boost / 2, 1.0)
        for _ in range(_MOST_HALVINGS):
            if entropy >= self.floor / 2:
                break
            policy.scale_logits(0.5)
            entropy = policy.evaluate(rollout.genes).mean_entropy.item()
