"""What the learning controllers share: a guarded optimiser, the entropy floor, and self-imitation."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas_engine.controllers.lstm import LSTMPolicy, Rollout
from nas_engine.controllers.memory import Memory
from nas_engine.types import StateDict

_LARGEST_BOOST = 1e3
_HARD_FLOOR = 0.5
_MOST_HALVINGS = 60


class GuardedAdam:
    """Adam with a clipped gradient that never leaves a non-finite weight behind.

    `begin` marks the state to go back to; a step that meets or makes a NaN or infinity returns there.
    """

    def __init__(self, policy: nn.Module, learning_rate: float, max_grad_norm: float) -> None:
        """Set up Adam.

        Args:
            policy: the network whose parameters are trained.
            learning_rate: step size of Adam.
            max_grad_norm: gradients are scaled down to this L2 norm.
        """
        self._policy, self._max_grad_norm = policy, max_grad_norm
        self._adam = torch.optim.Adam(policy.parameters(), lr=learning_rate, eps=1e-5)
        self._saved: StateDict = {}
        self.grad_norm = 0.0

    def begin(self) -> None:
        """Mark the current weights and moments as the ones to go back to."""
        self._saved = copy.deepcopy({"policy": self._policy.state_dict(), "adam": self._adam.state_dict()})

    def step(self, loss: Tensor) -> bool:
        """Descend once.

        Args:
            loss: scalar.

        Returns:
            False where the step would have made a weight non-finite: everything since `begin` is undone.
        """
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self._policy.parameters(), self._max_grad_norm))
        if math.isfinite(float(loss.detach())) and math.isfinite(norm):
            self._adam.step()
            if all(bool(weight.isfinite().all()) for weight in self._policy.parameters()):
                self.grad_norm = norm
                return True
        self._policy.load_state_dict(self._saved["policy"])
        self._adam.load_state_dict(self._saved["adam"])
        return False

    def state_dict(self) -> StateDict:
        """Moments and step count of Adam."""
        return copy.deepcopy(self._adam.state_dict())

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self._adam.load_state_dict(state)


class EntropyFloor:
    """Keeps a policy from collapsing onto one architecture.

    While the entropy is below the floor, the entropy bonus doubles at each update; above it, it halves back to its
    base. A saturated softmax has no gradient to follow, so below half the floor the logits are halved outright until
    the entropy is back.
    """

    def __init__(self, floor: float) -> None:
        """Set the floor, in nats a decision; 0 switches it off."""
        self.floor = floor
        self.boost = 1.0

    def apply(self, policy: LSTMPolicy, genes: Tensor) -> tuple[float, bool]:
        """Look at the policy after an update, and act where it is too certain.

        Args:
            policy: logits may be scaled down.
            genes: int64 [n, decisions]; the entropy is measured along these.

        Returns:
            Entropy found, in nats a decision, before acting; and whether it was below the floor.
        """
        found = _entropy(policy, genes)
        collapsed = found < self.floor
        self.boost = min(2 * self.boost, _LARGEST_BOOST) if collapsed else max(self.boost / 2, 1.0)
        entropy = found
        for _ in range(_MOST_HALVINGS):
            if entropy >= _HARD_FLOOR * self.floor:
                break
            policy.scale_logits(0.5)
            entropy = _entropy(policy, genes)
        return found, collapsed


def imitation_loss(policy: LSTMPolicy, memory: Memory, size: int) -> Tensor:
    """Mean negative log-probability a decision of the `size` best architectures known, nats.

    Source: the imitation term of Oh et al. 2018, "Self-imitation learning", with the best of all episodes in place
    of a prioritised buffer.
    """
    best: Rollout = policy.evaluate(torch.tensor(memory.best(size), dtype=torch.long))
    return -best.log_probs.sum() / best.open.sum().clamp(min=1)


def finite(diagnostics: dict[str, float]) -> dict[str, float]:
    """Without the entries that an undone update left non-finite."""
    return {name: value for name, value in diagnostics.items() if math.isfinite(value)}


@torch.no_grad()
def _entropy(policy: LSTMPolicy, genes: Tensor) -> float:
    return float(policy.evaluate(genes).mean_entropy)


__all__ = ["EntropyFloor", "GuardedAdam", "Sequence", "finite", "imitation_loss"]
