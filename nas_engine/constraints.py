"""Hard limits on metrics, and how much of a space meets them before anything is paid for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas_engine.errors import InfeasibleError
from nas_engine.limits import Constraint
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, Metrics

Estimate = Callable[[Sequence[Architecture]], Mapping[str, npt.NDArray[np.float64]]]
"""Costs known without an evaluation, by name, [n] each; NaN where a cost is unknown."""

_Z95 = 1.959964  # 97.5 % quantile of the standard normal distribution


def total_violation(constraints: Iterable[Constraint], costs: Mapping[str, float]) -> float:
    """Sum of the relative excesses; 0 where all constraints are met."""
    metrics = Metrics(costs)
    return sum((constraint.violation(metrics) for constraint in constraints), 0.0)


@dataclass(frozen=True, slots=True)
class Priced:
    """An architecture with its costs by name."""

    architecture: Architecture
    costs: Mapping[str, float]

    def describe(self, metrics: Iterable[str]) -> str:
        """For example ``macs = 84,320 (nasbench201:0-0-1)``."""
        values = ", ".join(f"{name} = {_number(self.costs[name])}" for name in metrics)
        return f"{values} ({self.architecture.key})"


@dataclass(frozen=True, slots=True)
class FeasibilityReport:
    """How much of a space meets constraints on costs.

    Attributes:
        constraints: those on costs known before an evaluation.
        looked_at: architectures priced for the share.
        exhaustive: whether these are the whole space; otherwise they are uniform samples.
        share: fraction that meets all constraints.
        interval: Wilson 95 % interval of `share`; equal to it where exhaustive.
        reachable: smallest and largest cost seen, by metric (all there are only where exhaustive).
        nearest_infeasible: the architecture seen that breaks the constraints by least, if any does.
        example: an architecture that meets them.
    """

    constraints: tuple[Constraint, ...]
    looked_at: int
    exhaustive: bool
    share: float
    interval: tuple[float, float]
    reachable: Mapping[str, tuple[float, float]]
    nearest_infeasible: Priced | None
    example: Priced

    def __str__(self) -> str:
        """One line for people."""
        if not self.constraints:
            return "no constraint can be checked before an evaluation"
        low, high = (100 * bound for bound in self.interval)
        sampled = "" if self.exhaustive else f" uniform samples (95 % interval {low:.3g} to {high:.3g} %)"
        ranges = ", ".join(f"{name} {_number(a)} to {_number(b)}" for name, (a, b) in self.reachable.items())
        line = (
            f"{100 * self.share:.3g} % of {self.looked_at:,}{sampled or ' architectures'} meet "
            f"{_joined(self.constraints)} (seen: {ranges})"
        )
        if not self.share:
            line += f"; one that does: {self.example.describe(self.reachable)}"
        if self.nearest_infeasible is not None:
            line += f"; nearest that does not: {self.nearest_infeasible.describe(self.reachable)}"
        return line


def feasibility_report(
    space: SearchSpace,
    constraints: Sequence[Constraint],
    *,
    estimate: Estimate,
    rng: np.random.Generator,
    samples: int = 2000,
) -> FeasibilityReport:
    """Look how much of a space meets constraints, before anything is paid for.

    A space of at most ``10 * samples`` architectures is listed whole. Of a larger one uniform samples are priced; if
    none of them is feasible, a descent over neighbours looks for one that is. All architectures are priced in
    canonical form, which is what a search evaluates. Constraints on metrics that `estimate` does not give (accuracy)
    are left out: they are checked after each evaluation.

    Args:
        space: the space.
        constraints: the limits.
        estimate: prices architectures.
        rng: draws the samples.
        samples: how many.

    Raises:
        InfeasibleError: no architecture meets the constraints; the message says what is reachable.
    """
    exhaustive = space.size <= 10 * samples
    drawn = space if exhaustive else space.samples(rng, samples)
    survey = _Survey(space, [space.canonical(architecture) for architecture in drawn], estimate, exhaustive)
    known = tuple(constraint for constraint in constraints if constraint.metric in survey.columns)
    example = survey.closest(known, budget=10 * samples)
    if total_violation(known, example.costs) > 0:
        raise InfeasibleError(_unreachable(survey, known, example, budget=10 * samples))
    violations = survey.violations(known)
    met = int((violations == 0).sum())
    broken = np.where(violations > 0, violations, np.inf)
    nearest = survey.priced(int(np.argmin(broken))) if np.isfinite(broken).any() else None
    count = len(survey.architectures)
    return FeasibilityReport(
        constraints=known,
        looked_at=count,
        exhaustive=exhaustive,
        share=met / count,
        interval=(met / count, met / count) if exhaustive else wilson_interval(met, count),
        reachable={name: survey.range_of(name, example) for name in dict.fromkeys(c.metric for c in known)},
        nearest_infeasible=nearest,
        example=example,
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927), which stays sound near 0 and 1."""
    share, z2 = successes / trials, _Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


class _Survey:
    """Architectures with their costs, and the search for the one that is closest to meeting constraints."""

    def __init__(
        self, space: SearchSpace, architectures: Sequence[Architecture], estimate: Estimate, exhaustive: bool
    ) -> None:
        self.space, self.architectures, self.estimate, self.exhaustive = space, architectures, estimate, exhaustive
        self.columns = {name: np.asarray(column, dtype=np.float64) for name, column in estimate(architectures).items()}

    def priced(self, index: int) -> Priced:
        return Priced(self.architectures[index], {name: float(c[index]) for name, c in self.columns.items()})

    def violations(self, constraints: Sequence[Constraint]) -> npt.NDArray[np.float64]:
        rows = (self.priced(index).costs for index in range(len(self.architectures)))
        return np.array([total_violation(constraints, row) for row in rows])

    def range_of(self, metric: str, example: Priced) -> tuple[float, float]:
        costs = np.append(self.columns[metric], example.costs[metric])  # a descent may have left the samples
        return float(np.nanmin(costs)), float(np.nanmax(costs))

    def closest(self, constraints: Sequence[Constraint], budget: int) -> Priced:
        """Least violation: exact where exhaustive, else of the samples and a descent of `budget` prices from there."""
        best = self.priced(int(np.argmin(self.violations(constraints))))
        while not self.exhaustive and budget > 0 and total_violation(constraints, best.costs) > 0:
            around = [self.space.canonical(a) for a in self.space.neighbours(best.architecture)]
            nearby = _Survey(self.space, around, self.estimate, exhaustive=True).closest(constraints, 0)
            if total_violation(constraints, nearby.costs) >= total_violation(constraints, best.costs):
                break
            best, budget = nearby, budget - len(around)
        return best


def _unreachable(survey: _Survey, constraints: Sequence[Constraint], nearest: Priced, budget: int) -> str:
    none = f"no architecture of {survey.space.name!r} " + ("meets" if survey.exhaustive else "was found that meets")
    found = "reached" if survey.exhaustive else "found"
    for constraint in constraints:
        alone = survey.closest([constraint], budget)
        if constraint.violation(Metrics(alone.costs)) > 0:
            start = f"{none} {constraint}: "
            if math.isnan(alone.costs[constraint.metric]):
                return start + f"{constraint.metric} is not known for any; use another source of costs"
            extreme = "smallest" if constraint.is_upper else "largest"
            advice = "raise the limit to at least that" if constraint.is_upper else "lower the limit to at most that"
            return start + f"the {extreme} {found} is {alone.describe([constraint.metric])}; {advice}"
    return (
        f"{none} {_joined(constraints)} together: the nearest {found} is "
        f"{nearest.describe(dict.fromkeys(c.metric for c in constraints))}; loosen one of them"
    )


def _joined(constraints: Iterable[Constraint]) -> str:
    return " and ".join(map(str, constraints))


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"
