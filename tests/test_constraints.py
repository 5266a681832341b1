"""Constraints as text and as numbers, and the feasibility report against a complete enumeration."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from nas_engine.constraints import Estimate, feasibility_report, wilson_interval
from nas_engine.costs.analytic import AnalyticCost
from nas_engine.errors import ConfigError, InfeasibleError
from nas_engine.limits import Constraint
from nas_engine.spaces.base import SearchSpace
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.types import Architecture, ImageShape, Metrics

SHAPE = ImageShape(1, 8, 8, 10)
SMALL = BlockSpace(SHAPE, BlockSpaceOptions(blocks=4, widths=4, merge_skips=True))
LARGE = BlockSpace(SHAPE, BlockSpaceOptions(blocks=14, widths=5))


def parse(*texts: str) -> list[Constraint]:
    return [Constraint.parse(text) for text in texts]


def estimate_of(space: SearchSpace) -> Estimate:
    model = AnalyticCost(space)
    return lambda architectures: dict(zip(model.names, model.estimate(architectures).T, strict=True))


def report(space: SearchSpace, *texts: str, samples: int = 2000):
    rng = np.random.default_rng(0)
    return feasibility_report(space, parse(*texts), estimate=estimate_of(space), rng=rng, samples=samples)


def all_macs(space: SearchSpace) -> np.ndarray:
    return estimate_of(space)([space.canonical(a) for a in space])["macs"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("macs <= 2e6", Constraint("macs", "<=", 2e6)),
        ("  latency_ms<1.5 ", Constraint("latency_ms", "<", 1.5)),
        ("accuracy>=0.9", Constraint("accuracy", ">=", 0.9)),
        ("params > 2_000", Constraint("params", ">", 2000)),
    ],
)
def test_parse(text: str, expected: Constraint) -> None:
    assert Constraint.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "macs", "macs <=", "<= 3", "macs == 3", "macs =< 3", "macs <= many", "macs <= nan", "1 <= macs <= 2"]
)
def test_parse_says_what_is_allowed(text: str) -> None:
    with pytest.raises(ConfigError, match=r"write METRIC, one of <=, <, >=, >, and a number"):
        Constraint.parse(text)


@given(
    st.builds(
        Constraint,
        st.sampled_from(["macs", "latency_ms"]),
        st.sampled_from(["<=", "<", ">=", ">"]),
        st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_text_round_trip(constraint: Constraint) -> None:
    assert Constraint.parse(str(constraint)) == constraint


@given(st.sampled_from(["<=", "<", ">=", ">"]), st.floats(-100, 100), st.floats(-100, 100))
def test_violation_is_zero_exactly_where_the_limit_is_met(operator: str, limit: float, value: float) -> None:
    met = {"<=": value <= limit, "<": value < limit, ">=": value >= limit, ">": value > limit}[operator]
    violation = Constraint("macs", operator, limit).violation(Metrics({"macs": value}))
    assert (violation == 0) == met
    assert violation >= 0


def test_violation_is_relative() -> None:
    upper, lower = parse("macs <= 200", "accuracy >= 0.8")
    assert upper.violation(Metrics({"macs": 300})) == 0.5
    assert lower.violation(Metrics({"accuracy": 0.6})) == pytest.approx(0.25)
    assert upper.violation(Metrics({})) == upper.violation(Metrics({"macs": math.nan})) == math.inf


@pytest.mark.parametrize(("successes", "trials"), [(0, 50), (1, 50), (25, 50), (50, 50), (3, 2000)])
def test_wilson_interval_agrees_with_scipy(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_small_space_is_counted_exactly() -> None:
    macs = all_macs(SMALL)
    limit = float(np.median(macs))
    found = report(SMALL, f"macs <= {limit}")
    assert found.exhaustive
    assert found.looked_at == SMALL.size == 256
    assert found.share == (macs <= limit).mean()
    assert found.interval == (found.share, found.share)
    assert found.reachable == {"macs": (macs.min(), macs.max())}
    assert found.nearest_infeasible is not None
    assert found.nearest_infeasible.costs["macs"] == macs[macs > limit].min()
    assert f"{100 * found.share:.3g} % of 256 architectures meet macs <= {limit:.0f}" in str(found)
    assert found.nearest_infeasible.architecture.key in str(found)


def test_a_limit_that_all_meet_has_no_nearest_infeasible() -> None:
    found = report(SMALL, "macs <= 1e9")
    assert found.share == 1
    assert found.nearest_infeasible is None


def test_large_space_is_sampled() -> None:
    found = report(LARGE, "macs <= 2000", samples=500)
    assert not found.exhaustive
    assert found.looked_at == 500
    low, high = found.interval
    # Exact share: total width of 14 blocks, each uniform on 0..4, at most that of 2,000 MACs.
    exact = np.array([1.0])
    for _ in range(14):
        exact = np.convolve(exact, np.full(5, 0.2))
    base = AnalyticCost(LARGE).estimate([Architecture(LARGE.name, (0,) * 14)])[0, 1]
    share = exact[: int((2000 - base) // 32) + 1].sum()
    assert 0 < low < share < high < 1
    assert "500 uniform samples (95 % interval" in str(found)


def test_rare_feasible_architectures_are_found_by_descent() -> None:
    smallest = estimate_of(LARGE)([Architecture(LARGE.name, (0,) * 14)])["macs"][0]
    found = report(LARGE, f"macs <= {smallest}", samples=100)
    assert found.share == 0
    assert found.interval[1] > 0
    assert found.example.architecture.genes == (0,) * 14
    assert found.reachable["macs"][0] == smallest
    assert found.example.architecture.key in str(found)


@pytest.mark.parametrize("space", [SMALL, LARGE], ids=["listed", "sampled"])
@pytest.mark.parametrize(("operator", "gene", "extreme"), [("<=", 0, "smallest"), (">=", -1, "largest")])
def test_unreachable_limit_says_what_is_reachable(space: BlockSpace, operator: str, gene: int, extreme: str) -> None:
    genes = tuple(range(len(decision.choices))[gene] for decision in space.decisions)
    reached = Architecture(space.name, genes)
    macs = estimate_of(space)([reached])["macs"][0]
    limit = macs - 1 if extreme == "smallest" else macs + 1
    with pytest.raises(InfeasibleError) as caught:
        report(space, f"macs {operator} {limit}", samples=100)
    message = str(caught.value)
    assert f"macs {operator} {limit:.0f}" in message
    assert f"the {extreme}" in message
    assert f"macs = {macs:,.0f} ({reached.key})" in message
    assert "\n" not in message


def test_limits_that_exclude_each_other() -> None:
    macs = all_macs(SMALL)
    low, high = np.quantile(macs, [0.3, 0.7])
    with pytest.raises(InfeasibleError, match=r"together: the nearest reached is macs = .*; loosen one of them"):
        report(SMALL, f"macs <= {low}", f"macs >= {high}")


def test_accuracy_is_not_checked_before_evaluation() -> None:
    assert report(SMALL, "accuracy >= 2").constraints == ()
    assert "no constraint can be checked" in str(report(SMALL, "accuracy >= 2"))
    both = report(SMALL, "accuracy >= 2", "macs <= 1e9")
    assert [constraint.metric for constraint in both.constraints] == ["macs"]


def test_costs_that_are_not_known_meet_no_limit() -> None:
    def half_known(architectures: Sequence[Architecture]) -> dict[str, np.ndarray]:
        return {"latency_ms": np.array([1.0 if a.genes[0] > 1 else np.nan for a in architectures])}

    def unknown(architectures: Sequence[Architecture]) -> dict[str, np.ndarray]:
        return {"latency_ms": np.full(len(architectures), np.nan)}

    space, limits = BlockSpace(SHAPE, BlockSpaceOptions(blocks=2, widths=4)), parse("latency_ms <= 2")
    rng = np.random.default_rng(0)
    found = feasibility_report(space, limits, estimate=half_known, rng=rng)
    assert found.share == 0.5
    assert found.nearest_infeasible is None
    assert found.reachable == {"latency_ms": (1.0, 1.0)}
    with pytest.raises(InfeasibleError, match="latency_ms is not known for any"):
        feasibility_report(space, limits, estimate=unknown, rng=rng)
