"""What keeps learning alive: steps that a NaN undoes, and an entropy floor against collapse."""

from __future__ import annotations

import math

import numpy as np
import torch

from nas_engine.controllers.lstm import FloatArray, LSTMPolicy, Rollout
from nas_engine.types import StateDict

_BETAS = (0.9, 0.999)
_EPSILON = 1e-5
_LARGEST_BOOST = 1e3
_MOST_HALVINGS = 60


class GuardedAdam:
    """Adam (Kingma & Ba 2015, algorithm 1) with a clipped gradient that never leaves a non-finite weight behind.

    In NumPy: of a step of so small a network, `torch.optim.Adam` would take most of the time for its own bookkeeping.

    `begin` marks the state to go back to; a step that meets or makes a NaN or an infinity returns there.

    Attributes:
        grad_norm: L2 norm of the last gradient, before clipping.
        undone: whether everything since `begin` was undone.
    """

    def __init__(self, weights: FloatArray, learning_rate: float, max_grad_norm: float) -> None:
        """Start without moments.

        Args:
            weights: what is trained, in place; float32 [weights].
            learning_rate: step size of Adam.
            max_grad_norm: gradients are scaled down to this L2 norm.
        """
        self._weights, self._learning_rate, self._max_grad_norm = weights, learning_rate, max_grad_norm
        self.reset()

    def reset(self) -> None:
        """Forget all moments: the weights are new."""
        self._steps, self._mean, self._square = 0, np.zeros_like(self._weights), np.zeros_like(self._weights)
        self.begin()

    def begin(self) -> None:
        """Mark the current weights and moments as the ones to go back to."""
        self._saved = self._steps, self._mean.copy(), self._square.copy(), self._weights.copy()
        self.grad_norm, self.undone = 0.0, False

    @np.errstate(over="ignore", invalid="ignore")  # that is what it guards against
    def step(self, loss: float, gradient: FloatArray) -> bool:
        """Descend once.

        Args:
            loss: what is descended.
            gradient: of it, with respect to the weights.

        Returns:
            False where a weight would have become non-finite: everything since `begin` is undone.
        """
        self.grad_norm = float(np.linalg.norm(gradient))
        if math.isfinite(loss) and math.isfinite(self.grad_norm):
            self._descend(gradient * min(self._max_grad_norm / (self.grad_norm + 1e-6), 1.0))
            if math.isfinite(float(np.abs(self._weights).max())):
                return True
        self._steps, mean, square, self._weights[:] = self._saved
        self._mean, self._square = mean.copy(), square.copy()
        self.undone = True
        return False

    def state_dict(self) -> StateDict:
        """A copy of moments and step count."""
        mean, square = torch.from_numpy(self._mean.copy()), torch.from_numpy(self._square.copy())
        return {"steps": self._steps, "mean": mean, "square": square}

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self._steps = int(state["steps"])
        self._mean, self._square = state["mean"].numpy().copy(), state["square"].numpy().copy()

    def _descend(self, gradient: FloatArray) -> None:
        self._steps += 1
        self._mean += (1 - _BETAS[0]) * (gradient - self._mean)
        self._square += (1 - _BETAS[1]) * (np.square(gradient) - self._square)
        mean = self._mean / (1 - _BETAS[0] ** self._steps)
        deviation = np.sqrt(self._square / (1 - _BETAS[1] ** self._steps))
        self._weights -= self._learning_rate * mean / (deviation + _EPSILON)


class EntropyFloor:
    """Keeps a policy from collapsing onto one architecture.

    Where an update leaves the entropy below the floor, the logits are halved until it is not: a saturated softmax has
    no gradient that an entropy bonus could follow. The bonus doubles at each such update, and halves back to its base
    at others.

    Attributes:
        floor: nats a decision; 0 switches it off.
        boost: factor on the entropy bonus, 1 to 1,000.
    """

    def __init__(self, floor: float) -> None:
        """Start without a boost."""
        self.floor, self.boost = floor, 1.0

    def apply(self, policy: LSTMPolicy, rollout: Rollout) -> float:
        """Act where the policy has become too certain; returns its entropy then, nats a decision.

        Args:
            policy: its logits may be scaled down.
            rollout: what `policy` says now about the architectures along which the entropy is measured.
        """
        entropy = rollout.mean_entropy
        self.boost = min(2 * self.boost, _LARGEST_BOOST) if entropy < self.floor else max(self.boost / 2, 1.0)
        for _ in range(_MOST_HALVINGS):
            if not entropy < self.floor:
                break
            policy.scale_logits(0.5)
            before, entropy = entropy, policy.evaluate(rollout.genes).mean_entropy
            if 0 < before == entropy:  # uniform already; at 0 the logits are only too large to show the halving
                break
        return entropy
