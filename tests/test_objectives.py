"""Objectives against the formulas of their papers, and what failures and broken constraints get."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_engine import objectives, registry
from nas_engine.errors import ConfigError
from nas_engine.limits import Constraint
from nas_engine.objectives import Objective, constrained_reward
from nas_engine.ops.cost_estimate import cost_estimate, cost_estimate_reference
from nas_engine.ops.cost_table import CostTable, PriceList
from nas_engine.types import Failure, FailureKind, Metrics

OBJECTIVES: list[Objective] = [
    objectives.accuracy(),
    objectives.weighted_sum(accuracy_weight=0.6, latency_weight=0.3, energy_weight=0.1, latency_reference_ms=2),
    objectives.soft_power("latency_ms", target=2.0, exponent_below=0.0, exponent_above=-1.0),
    objectives.absolute("latency_ms", target=2.0, weight=-0.1),
]
IDS = [objective.component_name for objective in OBJECTIVES]
accuracies = st.floats(0, 1)
costs = st.floats(0, 20)


def metrics(accuracy: float, latency_ms: float, energy_mj: float = 1.0) -> Metrics:
    return Metrics({"accuracy": accuracy, "latency_ms": latency_ms, "energy_mj": energy_mj})


@pytest.mark.parametrize(
    "objective",
    [
        *OBJECTIVES,
        objectives.soft_power("macs", target=1e6),
        objectives.soft_power("macs", target=1e6, exponent_below=-50, exponent_above=-50),
        objectives.weighted_sum(accuracy_weight=0, latency_weight=1, latency_reference_ms=3),
        objectives.weighted_sum(accuracy_weight=1, latency_weight=0),
        objectives.weighted_sum(accuracy_weight=0.5, latency_weight=0, energy_weight=0.5),
    ],
)
@pytest.mark.parametrize("price", [cost_estimate, cost_estimate_reference])
def test_the_formula_rewards_many_as_the_objective_rewards_one(objective: Any, price: Any) -> None:
    """All accuracies with all latencies, among them NaN, infinite, zero, negative and far beyond every cap."""
    values = [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e-9, 0.3, 2.0, 2.0000001, 19.0, 20.0, 1e9]
    latency = np.array([[[[value] for value in values], [[0.0]] * len(values)]])
    energy = np.array([[[[0.0]] * len(values), [[value] for value in values]]])
    macs = np.array([[[[0]] * 12, [[10**choice] for choice in range(12)]]])
    nothing = np.zeros((1, 1))
    tables = [
        CostTable(("latency_ms",), (), nothing, latency),
        CostTable(("energy_mj",), (), nothing, energy),
        CostTable(("macs",), (), nothing.astype(np.int64), macs),
    ]
    prices = PriceList(tables, (len(values), len(values)))
    grid = np.array(list(itertools.product(range(len(values)), repeat=2)))
    for accuracy in (0.0, 0.731, 1.0, math.nan):
        counts, measures, rewards = price(grid, prices, objective.formula, np.full(len(grid), accuracy))
        rows = [
            Metrics({"accuracy": accuracy, "latency_ms": latency, "energy_mj": energy, "macs": float(count)})
            for (latency, energy), (count,) in zip(measures.tolist(), counts.tolist(), strict=True)
        ]
        np.testing.assert_allclose(rewards, [objective(row) for row in rows], rtol=1e-12, atol=0)


def test_accuracy() -> None:
    assert objectives.accuracy()(Metrics({"accuracy": 0.8})) == 0.8


def test_weighted_sum() -> None:
    reward = objectives.weighted_sum(
        accuracy_weight=0.5, latency_weight=0.3, energy_weight=0.2, latency_reference_ms=4, energy_reference_mj=10
    )
    assert reward(metrics(0.9, 2, 5)) == pytest.approx(-(0.5 * 0.1 + 0.3 * 0.5 + 0.2 * 0.5))
    assert reward.needs == ("accuracy", "latency_ms", "energy_mj")


def test_weighted_sum_reads_no_metric_of_weight_zero() -> None:
    reward = objectives.weighted_sum(accuracy_weight=1, latency_weight=0)
    assert reward.needs == ("accuracy",)
    assert reward(Metrics({"accuracy": 0.75})) == -0.25


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"accuracy_weight": 0.5}, "must be 1 but is 0.7: divide each by 0.7"),
        ({"accuracy_weight": 0, "latency_weight": 0}, "must be 1 but is 0"),
        ({"accuracy_weight": 1.2, "latency_weight": -0.2}, "latency_weight"),
        ({"latency_reference_ms": 0}, "latency_reference_ms"),
    ],
)
def test_weighted_sum_refuses_other_weights(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        objectives.weighted_sum(**weights)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_soft_power_is_the_rule_of_mnasnet() -> None:
    # Section 3.2 of the paper: 5 % more accuracy is worth twice the latency, so w = log(1.05) / log(0.5) = -0.07.
    reward = objectives.soft_power("latency_ms", target=2.0)
    assert reward(metrics(0.6, 2)) == 0.6
    assert reward(metrics(0.6 * 1.05, 4)) == pytest.approx(reward(metrics(0.6, 2)), rel=2e-3)
    assert reward(metrics(0.6, 1)) == pytest.approx(0.6 * 0.5**-0.07)


def test_soft_power_as_a_hard_limit() -> None:
    reward = objectives.soft_power("macs", target=1e6, exponent_below=0.0, exponent_above=-1.0)
    assert reward(Metrics({"accuracy": 0.6, "macs": 1e5})) == 0.6
    assert reward(Metrics({"accuracy": 0.6, "macs": 2e6})) == pytest.approx(0.3)
    assert reward.needs == ("accuracy", "macs")


def test_soft_power_of_a_cost_of_zero_is_finite() -> None:
    assert math.isfinite(objectives.soft_power("latency_ms", target=2.0)(metrics(0.6, 0.0)))


def test_absolute_is_the_rule_of_tunas() -> None:
    reward = objectives.absolute("latency_ms", target=2.0, weight=-0.1)
    assert reward(metrics(0.6, 2)) == 0.6
    assert reward(metrics(0.6, 3)) == reward(metrics(0.6, 1)) == pytest.approx(0.6 - 0.05)


@pytest.mark.parametrize("make", [objectives.soft_power, objectives.absolute])
def test_target_must_be_positive(make) -> None:
    with pytest.raises(ConfigError, match=r"target.*greater than 0"):
        make("latency_ms", target=0.0)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
@given(low=accuracies, high=accuracies, latency=costs)
def test_more_accuracy_is_never_worse(objective: Objective, low: float, high: float, latency: float) -> None:
    low, high = sorted((low, high))
    assert objective(metrics(low, latency)) <= objective(metrics(high, latency))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
@given(accuracy=accuracies, latency=costs)
def test_no_success_falls_below_a_failure(objective: Objective, accuracy: float, latency: float) -> None:
    assert objective(metrics(accuracy, latency)) >= objective.failure_reward


@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
def test_the_registry_makes_the_same_objective(objective: Objective) -> None:
    factory = registry.resolve("objective", objective.component_name)
    again = factory(objective.options)  # type: ignore[attr-defined]
    assert again(metrics(0.7, 3.0)) == objective(metrics(0.7, 3.0))
    assert factory().needs[0] == "accuracy"


@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
def test_constraints_that_are_met_change_nothing(objective: Objective) -> None:
    limits = [Constraint.parse("latency_ms <= 3"), Constraint.parse("accuracy > 0.5")]
    assert constrained_reward(objective, limits, metrics(0.7, 3.0)) == objective(metrics(0.7, 3.0))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=IDS)
@given(accuracy=accuracies, latency=st.floats(3.01, 1e6), more=st.floats(1, 10))
def test_breaking_a_limit_is_worse_than_failing_and_worse_the_further(
    objective: Objective, accuracy: float, latency: float, more: float
) -> None:
    limits = [Constraint.parse("latency_ms <= 3")]
    near, far = (constrained_reward(objective, limits, metrics(accuracy, x)) for x in (latency, latency * more))
    assert objective.failure_reward - 1 <= far <= near < objective.failure_reward


def test_what_failures_get() -> None:
    objective, limits = objectives.accuracy(), [Constraint.parse("macs <= 100"), Constraint.parse("accuracy > 0.5")]
    crashed = Failure(FailureKind.OOM, "out of memory", values={"macs": 500.0})
    too_large = Failure(FailureKind.INFEASIBLE, "breaks macs <= 100", values={"macs": 150.0})
    assert constrained_reward(objective, limits, crashed) == 0.0
    assert constrained_reward(objective, limits, too_large) == -0.5


def test_rewards_that_are_not_finite_count_as_failures() -> None:
    objective = objectives.absolute("latency_ms", target=2.0)
    for latency in (math.nan, math.inf):
        assert constrained_reward(objective, [], metrics(0.9, latency)) == objective.failure_reward
    assert constrained_reward(objectives.accuracy(), [], metrics(math.nan, 1.0)) == 0.0


@pytest.mark.parametrize(
    ("objective", "metrics"),
    [
        (objectives.weighted_sum(), {"accuracy": 0.0, "latency_ms": 1e6}),
        (
            objectives.weighted_sum(latency_weight=0.1, energy_weight=0.1),
            {"accuracy": 0.0, "latency_ms": 1e6, "energy_mj": 1e6},
        ),
        (objectives.absolute("macs", target=1e4), {"accuracy": 0.0, "macs": 1e9}),
        (objectives.soft_power("macs", target=1e4), {"accuracy": 0.0, "macs": 1e9}),
        (objectives.accuracy(), {"accuracy": 0.0}),
    ],
)
def test_no_success_is_worth_less_than_a_failure(objective: Objective, metrics: dict[str, float]) -> None:
    assert objective(Metrics(metrics)) >= objective.failure_reward - 1e-12
