"""The rewards of the built-in objectives as numbers that native code can compute with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from types import ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nas_engine.errors import NativeError

FloatArray = npt.NDArray[np.float64]
RewardKind = Literal["accuracy", "weighted_sum", "soft_power", "absolute"]
_OP = "cost_estimate"
_KINDS: tuple[RewardKind, ...] = ("accuracy", "weighted_sum", "soft_power", "absolute")  # as natively numbered
_MOST_METRICS = 2
_SIZES: dict[RewardKind, tuple[tuple[int, int, int], ...]] = {  # allowed numbers of metrics, targets and weights
    "accuracy": ((0, 0, 0),),
    "weighted_sum": ((0, 0, 0), (1, 1, 1), (2, 2, 2)),
    "soft_power": ((1, 1, 2),),
    "absolute": ((1, 1, 1),),
}


@dataclass(frozen=True)
class RewardFormula:
    """A reward of an accuracy and up to two costs; `nas_engine.objectives` says what the formulas mean.

    With ``ratio[i] = cost[i] / targets[i]`` and ``capped(r)`` at most `largest_ratio` where r is finite, it is

    - "accuracy": accuracy
    - "weighted_sum": ``-(accuracy_weight * (1 - accuracy) + sum of weights[i] * capped(ratio[i]))``; an accuracy of
      weight 0 is not read
    - "soft_power": ``accuracy * max(ratio, smallest_ratio) ** w``, w = weights[0] up to the target, weights[1] above it
    - "absolute": ``accuracy + weights[0] * capped(abs(ratio - 1))``

    Attributes:
        kind: which of the four.
        metrics: names of the costs it reads.
        targets: one for each cost.
        weights: as the kind needs them.
        accuracy_weight: of "weighted_sum".
        largest_ratio: the cap.
        smallest_ratio: the floor of "soft_power".
    """

    kind: RewardKind
    metrics: tuple[str, ...] = ()
    targets: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    accuracy_weight: float = 1.0
    largest_ratio: float = math.inf
    smallest_ratio: float = 0.0

    def columns(self, names: Sequence[str]) -> list[int]:
        """Positions of its metrics in `names`.

        Raises:
            NativeError: one is not there, or the numbers are not what the kind of the formula needs.
        """
        if self.kind not in _KINDS:
            raise NativeError(f"{_OP}: formula must be one of {', '.join(_KINDS)}, got {self.kind!r}")
        wanted = {
            "accuracy": (0, 0),
            "weighted_sum": (len(self.metrics),) * 2,
            "soft_power": (1, 2),
            "absolute": (1, 1),
        }
        sizes = (len(self.metrics), len(self.weights))
        if sizes != wanted[self.kind] or len(self.targets) != len(self.metrics) or len(self.metrics) > _MOST_METRICS:
            raise NativeError(
                f"{_OP}: formula {self.kind!r} does not go with {sizes[0]} metrics, {len(self.targets)} targets and "
                f"{sizes[1]} weights"
            )
        numbers = (*self.targets, *self.weights, self.accuracy_weight, self.largest_ratio, self.smallest_ratio)
        if not all(isinstance(number, Real) for number in numbers):
            raise NativeError(f"{_OP}: formula must have numbers as targets and weights, got {numbers}")
        missing = [metric for metric in self.metrics if metric not in names]
        if missing:
            raise NativeError(f"{_OP}: formula needs {missing[0]!r}, but the tables have {', '.join(names)}")
        return [names.index(metric) for metric in self.metrics]

    def to_native(self, module: ModuleType, names: Sequence[str]) -> Any:
        """The formula for native code, which finds its metrics in columns in the order of `names`.

        Raises:
            NativeError: as `columns`.
        """
        columns = self.columns(names)
        filled = [(*values, 0, 0)[:_MOST_METRICS] for values in (columns, self.targets, self.weights)]
        others = (self.accuracy_weight, self.largest_ratio, self.smallest_ratio)
        return module.RewardFormula(_KINDS.index(self.kind), len(columns), *filled, *others)


def reward_reference(formula: RewardFormula, accuracy: FloatArray, costs: FloatArray) -> FloatArray:
    """The rewards in NumPy, the oracle of the native ones.

    Args:
        formula: which, with its coefficients.
        accuracy: float64 [n].
        costs: float64 [n, metrics of the formula].

    Returns:
        float64 [n]; NaN where something that is read is NaN.
    """
    with np.errstate(all="ignore"):
        ratios = (costs / np.array(formula.targets, dtype=np.float64)).T
        rewards = _REWARDS[formula.kind](formula, accuracy, ratios)
    return np.asarray(rewards, dtype=np.float64)


def _weighted_sum(formula: RewardFormula, accuracy: FloatArray, ratios: FloatArray) -> FloatArray:
    total = np.zeros_like(accuracy)
    if formula.accuracy_weight > 0:
        total += formula.accuracy_weight * (1 - accuracy)
    for weight, ratio in zip(formula.weights, ratios, strict=True):
        total += weight * _capped(formula, ratio)
    return -total


def _soft_power(formula: RewardFormula, accuracy: FloatArray, ratios: FloatArray) -> FloatArray:
    below, above = formula.weights
    exponents = np.where(ratios[0] <= 1, below, above)
    bases: FloatArray = np.maximum(ratios[0], formula.smallest_ratio)
    return accuracy * bases**exponents


def _absolute(formula: RewardFormula, accuracy: FloatArray, ratios: FloatArray) -> FloatArray:
    return accuracy + formula.weights[0] * _capped(formula, np.abs(ratios[0] - 1))


def _capped(formula: RewardFormula, ratio: FloatArray) -> FloatArray:
    return np.where(np.isfinite(ratio), np.minimum(ratio, formula.largest_ratio), ratio)


_REWARDS: dict[RewardKind, Callable[[RewardFormula, FloatArray, FloatArray], FloatArray]] = {
    "accuracy": lambda _, accuracy, __: accuracy,
    "weighted_sum": _weighted_sum,
    "soft_power": _soft_power,
    "absolute": _absolute,
}
