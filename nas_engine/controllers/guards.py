"""What keeps learning alive: steps that a NaN undoes, and an entropy floor against collapse."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from nas_engine.controllers.lstm import LSTMPolicy
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
        self._module, self._max_grad_norm = module, max_grad_norm
        self._adam = torch.optim.Adam(module.parameters(), lr=learning_rate, eps=1e-5)
        self.begin()

    def begin(self) -> None:
        """Mark the current weights and moments as the ones to go back to."""
        self._saved = copy.deepcopy((self._module.state_dict(), self._adam.state_dict()))
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
        self.grad_norm = float(nn.utils.clip_grad_norm_(self._module.parameters(), self._max_grad_norm))
        if math.isfinite(loss.item()) and math.isfinite(self.grad_norm):
            self._adam.step()
            if all(bool(weight.isfinite().all()) for weight in self._module.parameters()):
                return True
        weights, moments = self._saved
        self._module.load_state_dict(weights)
        self._adam.load_state_dict(moments)
        self.undone = True
        return False

    def state_dict(self) -> StateDict:
        """Moments and step counts."""
        return copy.deepcopy(self._adam.state_dict())

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self._adam.load_state_dict(copy.deepcopy(state))


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
    def apply(self, policy: LSTMPolicy, genes: Tensor) -> float:
        """Look at the policy after an update, and act where it is too certain.

        Args:
            policy: its logits may be scaled down.
            genes: int64 [n, decisions]; the entropy is measured along these.

        Returns:
            The entropy before acting, nats a decision.
        """
        found = entropy = float(policy.evaluate(genes).mean_entropy)
        self.boost = min(2 * self.boost, _LARGEST_BOOST) if found < self.floor else max(self.boost / 2, 1.0)
        for _ in range(_MOST_HALVINGS):
            if entropy >= self.floor / 2:
                break
            policy.scale_logits(0.5)
            entropy = float(policy.evaluate(genes).mean_entropy)
        return found
