"""REINFORCE: make what scored above the baseline more likely, one gradient step for each batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_engine.controllers.advantages import leave_one_out
from nas_engine.controllers.base import Diagnostics
from nas_engine.controllers.learner import Learner, PolicyLoss, finite
from nas_engine.controllers.options import ReinforceOptions
from nas_engine.scores import FloatArray
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, StateDict


class ReinforceController:
    """Policy gradient on an LSTM policy (Williams 1992; Zoph & Le 2017, section 3.2).

    Diagnostics: those of `Learner.finish`, ``baseline`` and ``policy_loss``.
    """

    Options = ReinforceOptions

    def __init__(self, space: SearchSpace, options: ReinforceOptions = ReinforceOptions(), seed: int = 0) -> None:
        """Build an untrained controller.

        Args:
            space: architectures to propose.
            options: of the algorithm.
            seed: of the initial weights and all draws.
        """
        self.options = options
        self._learner = Learner(space, options, seed)
        self.policy = self._learner.policy
        self._average: float | None = None

    def propose(self, n: int) -> list[Architecture]:
        """The next `n` architectures, drawn from the policy."""
        return self._learner.propose(n)

    @np.errstate(over="ignore", invalid="ignore")  # raw rewards near the largest float: the NaN guard acts
    def update(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> Diagnostics:
        """One policy-gradient step; returns the diagnostics."""
        if not architectures:
            return {}
        genes, scores = self._learner.collect(architectures, rewards)
        baseline = self._baseline(scores)
        weights = (baseline - scores) / len(scores)  # of each architecture's log-probability in the loss

        before = self._learner.begin(genes)
        policy_loss = float((weights * self._learner.evaluate(genes).log_probs.sum(axis=1)).sum())
        self._learner.step(PolicyLoss(policy_loss, weights[:, None]))
        self._learner.rehearse()
        return finite(
            {
                **self._learner.finish(before),
                "baseline": float((baseline / len(baseline)).sum()),
                "policy_loss": policy_loss,
            }
        )

    def state_dict(self) -> StateDict:
        """Everything that learning has changed, and the random states."""
        return {**self._learner.state_dict(), "average": self._average}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self._learner.load_state_dict(state)
        self._average = state["average"]

    def _baseline(self, scores: FloatArray) -> FloatArray:
        if self.options.baseline == "leave_one_out":
            return leave_one_out(scores)
        mean = float((scores / len(scores)).sum())  # divided first: no overflow near the largest float
        before = mean if self._average is None else self._average
        self._average = self.options.ema_decay * before + (1 - self.options.ema_decay) * mean
        return np.full(len(scores), before)
