"""Pure functions from metrics to one reward: accuracy alone, weighted sum, soft power, absolute, hard constraints."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from pydantic import Field, model_validator

from nas_engine.config import checked
from nas_engine.constraints import FeasibilityReport, feasibility_report, total_violation
from nas_engine.limits import Constraint
from nas_engine.ops.reward import RewardFormula
from nas_engine.options import Options
from nas_engine.types import Failure, FailureKind, Metrics, Outcome

__all__ = [
    "Absolute",
    "AbsoluteOptions",
    "Accuracy",
    "AccuracyOptions",
    "Constraint",
    "FeasibilityReport",
    "Objective",
    "SoftPower",
    "SoftPowerOptions",
    "WeightedSum",
    "WeightedSumOptions",
    "absolute",
    "accuracy",
    "constrained_reward",
    "feasibility_report",
    "soft_power",
    "weighted_sum",
]

_FAILURE_RATIO = 10.0  # a failure counts as ten times the reference, and so does all that is dearer
_SMALLEST_RATIO = 1e-6  # a cost of 0 has no negative power
_LARGEST_PENALTY = 1.0


def _capped(ratio: float) -> float:
    """At most what a failure counts as, so that no success falls below a failure; NaN and infinity come through."""
    return min(ratio, _FAILURE_RATIO) if math.isfinite(ratio) else ratio


class Objective(Protocol):
    """Turns metrics into a reward, higher is better.

    Attributes:
        component_name: the name in YAML and on the command line.
        needs: names of the metrics it reads.
        failure_reward: what a failed evaluation gets; no success falls below it.
    """

    component_name: str
    needs: tuple[str, ...]
    failure_reward: float

    def __call__(self, metrics: Metrics) -> float:
        """The reward; NaN where a metric it needs is NaN. KeyError where one is missing."""
        ...


class AccuracyOptions(Options):
    """Accuracy alone has no options."""


class Accuracy:
    """Reward = accuracy."""

    Options = AccuracyOptions
    component_name = "accuracy"

    def __init__(self, options: AccuracyOptions = AccuracyOptions()) -> None:
        """Nothing to choose."""
        self.options = options
        self.needs: tuple[str, ...] = ("accuracy",)
        self.failure_reward = 0.0

    def __call__(self, metrics: Metrics) -> float:
        """The accuracy, in [0, 1]."""
        return metrics["accuracy"]

    @property
    def formula(self) -> RewardFormula:
        """The same reward for `ops.cost_estimate`, which prices and rewards many architectures in one call."""
        return RewardFormula("accuracy")


class WeightedSumOptions(Options):
    """Weights (at least 0, together 1) and the references that make the terms comparable."""

    accuracy_weight: float = Field(0.8, ge=0, description="alpha, weight of the error 1 - accuracy")
    latency_weight: float = Field(0.2, ge=0, description="beta, weight of latency / latency_reference_ms")
    energy_weight: float = Field(0.0, ge=0, description="gamma, weight of energy / energy_reference_mj")
    latency_reference_ms: float = Field(1.0, gt=0, description="latency that counts as 1, in milliseconds")
    energy_reference_mj: float = Field(1.0, gt=0, description="energy that counts as 1, in millijoules")

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> WeightedSumOptions:
        total = self.accuracy_weight + self.latency_weight + self.energy_weight
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(
                f"accuracy_weight + latency_weight + energy_weight must be 1 but is {total:g}: divide each by {total:g}"
                if total
                else "accuracy_weight + latency_weight + energy_weight must be 1 but is 0: raise one of them"
            )
        return self


class WeightedSum:
    """Reward = -(alpha * (1 - accuracy) + beta * latency / reference + gamma * energy / reference)."""

    Options = WeightedSumOptions
    component_name = "weighted_sum"

    def __init__(self, options: WeightedSumOptions = WeightedSumOptions()) -> None:
        """Read only the metrics whose weight is not 0."""
        self.options = options
        weights = {
            "accuracy": options.accuracy_weight,
            "latency_ms": options.latency_weight,
            "energy_mj": options.energy_weight,
        }
        self._references = {"latency_ms": options.latency_reference_ms, "energy_mj": options.energy_reference_mj}
        self._weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.needs: tuple[str, ...] = tuple(self._weights)
        self.failure_reward = -options.accuracy_weight - _FAILURE_RATIO * (
            options.latency_weight + options.energy_weight
        )

    def __call__(self, metrics: Metrics) -> float:
        """The negative weighted sum; 0 is the best that can be."""
        return -sum(weight * self._term(name, metrics) for name, weight in self._weights.items())

    @property
    def formula(self) -> RewardFormula:
        """The same reward for `ops.cost_estimate`."""
        costs = tuple(name for name in self._weights if name != "accuracy")
        return RewardFormula(
            "weighted_sum",
            metrics=costs,
            targets=tuple(self._references[name] for name in costs),
            weights=tuple(self._weights[name] for name in costs),
            accuracy_weight=self.options.accuracy_weight,
            largest_ratio=_FAILURE_RATIO,
        )

    def _term(self, name: str, metrics: Metrics) -> float:
        return 1.0 - metrics[name] if name == "accuracy" else _capped(metrics[name] / self._references[name])


class SoftPowerOptions(Options):
    """The cost, its target, and how strongly a cost on either side of the target counts."""

    metric: str = Field("latency_ms", min_length=1, description="cost to trade, for example latency_ms or macs")
    target: float = Field(1.0, gt=0, description="wanted cost, in the unit of the metric")
    exponent_below: float = Field(
        -0.07, ge=-50, le=0, description="exponent up to the target; 0: no reward for being cheaper"
    )
    exponent_above: float = Field(
        -0.07, ge=-50, le=0, description="exponent above the target; -1: close to a hard limit"
    )


class SoftPower:
    """Reward = accuracy * (cost / target) ** w (Tan et al. 2019, "MnasNet", equations 2 and 3)."""

    Options = SoftPowerOptions
    component_name = "soft_power"

    def __init__(self, options: SoftPowerOptions = SoftPowerOptions()) -> None:
        """Trade accuracy against one cost."""
        self.options = options
        self.needs: tuple[str, ...] = ("accuracy", options.metric)
        self.failure_reward = 0.0

    def __call__(self, metrics: Metrics) -> float:
        """The product, at least 0."""
        ratio = metrics[self.options.metric] / self.options.target
        exponent = self.options.exponent_below if ratio <= 1 else self.options.exponent_above
        # NaN must come through: max(NaN, floor) is NaN, max(floor, NaN) is not.
        return float(metrics["accuracy"] * max(ratio, _SMALLEST_RATIO) ** exponent)

    @property
    def formula(self) -> RewardFormula:
        """The same reward for `ops.cost_estimate`."""
        return RewardFormula(
            "soft_power",
            metrics=(self.options.metric,),
            targets=(self.options.target,),
            weights=(self.options.exponent_below, self.options.exponent_above),
            smallest_ratio=_SMALLEST_RATIO,
        )


class AbsoluteOptions(Options):
    """The cost, its target, and the price of missing it on either side."""

    metric: str = Field("latency_ms", min_length=1, description="cost to hold, for example latency_ms or macs")
    target: float = Field(1.0, gt=0, description="wanted cost, in the unit of the metric")
    weight: float = Field(-0.07, lt=0, description="accuracy given up for missing the target by 100 %")


class Absolute:
    """Reward = accuracy + weight * |cost / target - 1| (Bender et al. 2020, "TuNAS", section 3.2)."""

    Options = AbsoluteOptions
    component_name = "absolute"

    def __init__(self, options: AbsoluteOptions = AbsoluteOptions()) -> None:
        """Hold one cost near its target."""
        self.options = options
        self.needs: tuple[str, ...] = ("accuracy", options.metric)
        self.failure_reward = options.weight * _FAILURE_RATIO

    def __call__(self, metrics: Metrics) -> float:
        """Accuracy less the price of missing the target."""
        miss = abs(metrics[self.options.metric] / self.options.target - 1)
        return metrics["accuracy"] + self.options.weight * _capped(miss)

    @property
    def formula(self) -> RewardFormula:
        """The same reward for `ops.cost_estimate`."""
        return RewardFormula(
            "absolute",
            metrics=(self.options.metric,),
            targets=(self.options.target,),
            weights=(self.options.weight,),
            largest_ratio=_FAILURE_RATIO,
        )


def accuracy() -> Accuracy:
    """Reward = accuracy."""
    return Accuracy()


def weighted_sum(
    *,
    accuracy_weight: float = 0.8,
    latency_weight: float = 0.2,
    energy_weight: float = 0.0,
    latency_reference_ms: float = 1.0,
    energy_reference_mj: float = 1.0,
) -> WeightedSum:
    """Reward of `WeightedSum`; the arguments are those of `WeightedSumOptions`.

    Raises:
        ConfigError: a weight is negative, the weights do not sum to 1, or a reference is not positive.
    """
    settings = {
        "accuracy_weight": accuracy_weight,
        "latency_weight": latency_weight,
        "energy_weight": energy_weight,
        "latency_reference_ms": latency_reference_ms,
        "energy_reference_mj": energy_reference_mj,
    }
    return WeightedSum(checked(WeightedSumOptions, settings, "weighted_sum."))


def soft_power(
    metric: str, *, target: float, exponent_below: float = -0.07, exponent_above: float = -0.07
) -> SoftPower:
    """Reward of `SoftPower`; the arguments are those of `SoftPowerOptions`.

    Raises:
        ConfigError: the target is not positive or an exponent is.
    """
    settings = {
        "metric": metric,
        "target": target,
        "exponent_below": exponent_below,
        "exponent_above": exponent_above,
    }
    return SoftPower(checked(SoftPowerOptions, settings, "soft_power."))


def absolute(metric: str, *, target: float, weight: float = -0.07) -> Absolute:
    """Reward of `Absolute`; the arguments are those of `AbsoluteOptions`.

    Raises:
        ConfigError: the target is not positive or the weight not negative.
    """
    settings = {"metric": metric, "target": target, "weight": weight}
    return Absolute(checked(AbsoluteOptions, settings, "absolute."))


def constrained_reward(objective: Objective, constraints: Iterable[Constraint], outcome: Outcome) -> float:
    """Reward of an outcome, always finite.

    What meets all constraints gets the reward of the objective. What does not gets
    ``failure_reward - min(total violation, 1)``, below every success but rising towards the limits, so that a
    controller can learn where the feasible architectures are. Every other failure, and a reward that is not finite,
    gets ``failure_reward``.

    Args:
        objective: scores what is feasible.
        constraints: those on metrics that a failure does not have are left out for it.
        outcome: what an evaluation gave.
    """
    if isinstance(outcome, Failure):
        if outcome.kind is not FailureKind.INFEASIBLE:
            return objective.failure_reward
        constraints = [c for c in constraints if c.metric in outcome.values]
    violation = total_violation(constraints, outcome.values)
    if violation > 0 or isinstance(outcome, Failure):
        return objective.failure_reward - min(violation, _LARGEST_PENALTY)
    reward = objective(outcome)
    return reward if math.isfinite(reward) else objective.failure_reward
