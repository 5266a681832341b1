"""REINFORCE as published for tabular benchmarks: one independent categorical a decision, one architecture a step."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from nas_engine.options import Options
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, StateDict

FloatArray = npt.NDArray[np.float64]

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_INITIAL_SCALE = 1e-3
_LARGEST_GRADIENT = 1e150


class CategoricalReinforceOptions(Options):
    """Options of the published REINFORCE; the defaults are its settings."""

    learning_rate: float = Field(0.01, gt=0, description="step size of Adam")
    ema_decay: float = Field(0.9, ge=0, lt=1, description="share of its old value that the moving baseline keeps")


class CategoricalReinforceController:
    """The REINFORCE baseline of Dong et al. 2021, "NATS-Bench", on raw rewards.

    The baseline is a bias-corrected moving average that the reward enters before it is subtracted. Choices that no
    valid architecture continues with are masked, and the probabilities of the others renormalised.

    This departs from the promises of `nas_engine.controllers.base.Controller`: it proposes what it draws, known or
    not, so that a repeated architecture is paid for again, as in the publication. It is there to be compared with; a
    search that learns should use ``reinforce``.

    Attributes:
        logits: [decisions, most choices].
    """

    Options = CategoricalReinforceOptions

    def __init__(
        self,
        space: SearchSpace,
        options: CategoricalReinforceOptions = CategoricalReinforceOptions(),
        seed: int = 0,
    ) -> None:
        """Start from nearly uniform probabilities.

        Args:
            space: where architectures come from.
            options: step size and baseline.
            seed: of all draws.
        """
        self.space, self.options = space, options
        self._rng = np.random.default_rng(seed)
        self.logits: FloatArray = _INITIAL_SCALE * self._rng.standard_normal(
            (len(space.decisions), space.diagram.transitions.shape[1])
        )
        counts = np.array([len(decision.choices) for decision in space.decisions])
        self._exists = np.arange(self.logits.shape[1]) < counts[:, None]
        self._first, self._second = np.zeros_like(self.logits), np.zeros_like(self.logits)
        self._steps = 0
        self._average, self._weight = 0.0, 0.0

    def propose(self, n: int) -> list[Architecture]:
        """`n` architectures as drawn, in canonical form; known ones are repeated."""
        return [self.space.canonical(Architecture(self.space.name, self._draw())) for _ in range(n)]

    def update(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> dict[str, float]:
        """One step of Adam for each reward.

        Returns:
            ``entropy`` in nats a decision (of the unmasked distributions) and ``baseline``.
        """
        decay = self.options.ema_decay
        for architecture, reward in zip(architectures, rewards, strict=True):
            self._average = decay * self._average + (1 - decay) * float(reward)
            self._weight = decay * self._weight + (1 - decay)
            self._step(self._log_probability_gradient(architecture.genes) * (reward - self.baseline))
        return {"entropy": self._entropy(), "baseline": self.baseline}

    @property
    def baseline(self) -> float:
        """The moving average of the rewards."""
        return self._average / self._weight if self._weight else 0.0

    def state_dict(self) -> StateDict:
        """Logits, the state of Adam and of the baseline, and random state."""
        return {
            "logits": self.logits.tolist(),
            "first": self._first.tolist(),
            "second": self._second.tolist(),
            "steps": self._steps,
            "average": self._average,
            "weight": self._weight,
            "rng": json.dumps(self._rng.bit_generator.state),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self.logits, self._first, self._second = (np.array(state[name]) for name in ("logits", "first", "second"))
        self._steps, self._average, self._weight = int(state["steps"]), float(state["average"]), float(state["weight"])
        self._rng.bit_generator.state = json.loads(state["rng"])

    def _draw(self) -> tuple[int, ...]:
        diagram, state, genes = self.space.diagram, 0, []
        draws = self._rng.random(len(self.logits))
        for logits, draw in zip(self.logits, draws, strict=True):
            probabilities = _softmax(logits, diagram.allowed[state])
            cumulative = np.cumsum(probabilities)
            gene = int(np.searchsorted(cumulative, draw * cumulative[-1], side="right"))
            genes.append(gene)
            state = int(diagram.transitions[state, gene])
        return tuple(genes)

    def _log_probability_gradient(self, genes: Sequence[int]) -> FloatArray:
        diagram, state = self.space.diagram, 0
        gradient = np.empty_like(self.logits)
        for row, (logits, gene) in enumerate(zip(self.logits, genes, strict=True)):
            gradient[row] = -_softmax(logits, diagram.allowed[state])
            gradient[row, gene] += 1.0
            state = int(diagram.transitions[state, gene])
        return gradient

    def _step(self, ascent: FloatArray) -> None:
        if not (np.abs(ascent) < _LARGEST_GRADIENT).all():
            return  # its square would overflow; NaN and infinity fail too
        self._steps += 1
        self._first = _BETA1 * self._first - (1 - _BETA1) * ascent
        self._second = _BETA2 * self._second + (1 - _BETA2) * ascent**2
        mean = self._first / (1 - _BETA1**self._steps)
        deviation = np.sqrt(self._second / (1 - _BETA2**self._steps))
        self.logits = self.logits - self.options.learning_rate * mean / (deviation + _EPSILON)

    def _entropy(self) -> float:
        weights = np.where(self._exists, np.exp(self.logits - self.logits.max(axis=1, keepdims=True)), 0.0)
        probabilities = weights / weights.sum(axis=1, keepdims=True)
        logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
        return float(-(probabilities * logs).sum() / len(self.logits))


def _softmax(logits: FloatArray, allowed: npt.NDArray[np.bool_]) -> FloatArray:
    weights = np.where(allowed, np.exp(logits - logits[allowed].max()), 0.0)
    probabilities: FloatArray = weights / weights.sum()
    return probabilities
