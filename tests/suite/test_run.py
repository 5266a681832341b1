"""One repetition: what counts within a budget, and what is remembered."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest

from nas_engine import registry
from nas_engine.errors import ConfigError
from nas_engine.options import Options
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.table import TableSpace
from nas_engine.suite.methods import METHODS, Method, parse_methods
from nas_engine.suite.run import Budget, run_seed
from nas_engine.types import Architecture


class Listed:
    """Proposes what a test wrote down, and remembers what it was told."""

    Options = Options
    plan: Sequence[tuple[int, ...]] = ()
    told: list[tuple[tuple[int, ...], float]] = []  # noqa: RUF012
    took: list[tuple[tuple[int, ...], float]] = []  # noqa: RUF012

    def __init__(self, space: SearchSpace, options: Options, seed: int) -> None:
        self.space = space
        self.position = 0
        type(self).told, type(self).took = [], []

    def propose(self, n: int) -> list[Architecture]:
        chosen = [self.plan[(self.position + offset) % len(self.plan)] for offset in range(n)]
        self.position += n
        return [Architecture(self.space.name, genes) for genes in chosen]

    def learn_seconds(self, architectures: Sequence[Architecture], seconds: Sequence[float]) -> None:
        assert len(self.told) == len(self.took), "seconds are told before the rewards of the same architectures"
        type(self).took += [(a.genes, s) for a, s in zip(architectures, seconds, strict=True)]

    def update(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> dict[str, float]:
        type(self).told += [(a.genes, r) for a, r in zip(architectures, rewards, strict=True)]
        return {"entropy": 2.0 - 0.5 * len(self.told) if len(self.told) < 4 else 1.0}


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> type[Listed]:
    monkeypatch.setitem(registry._registered, ("controller", "listed"), Listed)
    return Listed


FAR, NEAR, BEST = (0, 0, 0, 3), (3, 2, 1, 1), (3, 2, 1, 0)


def test_a_controller_that_asks_for_seconds_is_told_what_the_table_says(
    space: TableSpace, listed: type[Listed]
) -> None:
    listed.plan = [FAR, NEAR, BEST]
    run_seed(space, Method("m", "listed"), 0, Budget(evaluations=2))
    costs = space.table.costs
    assert costs is not None
    assert listed.took == [(genes, costs[space.row_of(genes)]) for genes, _ in listed.told]
    assert listed.took


def test_an_evaluation_that_would_end_late_is_not_counted(space: TableSpace, listed: type[Listed]) -> None:
    listed.plan = [FAR, NEAR, BEST]
    result = run_seed(space, Method("m", "listed"), 0, Budget(seconds=29.9))
    assert (result.evaluations, result.simulated_seconds, result.genes) == (2, 20.0, list(NEAR))
    assert result.evaluations_to_optimum is None
    exact = run_seed(space, Method("m", "listed"), 0, Budget(seconds=30))
    assert (exact.evaluations, exact.genes, exact.evaluations_to_optimum) == (3, list(BEST), 3)
    assert exact.seconds_to_optimum == 30


def test_rewards_to_minimise_are_told_negative_and_reported_as_they_stand(
    space: TableSpace, listed: type[Listed]
) -> None:
    listed.plan = [FAR, NEAR, BEST, FAR]
    result = run_seed(space, Method("m", "listed"), 0, Budget(evaluations=4))
    assert listed.told[1] == (NEAR, -2.03)
    assert (result.reward, result.reports) == (1.0, [100.0, 1.0])
    assert [step[0] for step in result.improvements] == [1, 2, 3]
    assert [step[2] for step in result.improvements] == [10.0, 2.03, 1.0]
    assert (result.evaluations, result.unique_evaluations) == (4, 3)


def test_a_search_goes_on_to_the_optimum_after_its_budget(space: TableSpace, listed: type[Listed]) -> None:
    listed.plan = [FAR, NEAR, FAR, FAR, BEST, FAR]
    result = run_seed(space, Method("m", "listed"), 0, Budget(evaluations=2, until_optimum=True))
    assert (result.evaluations, result.genes, result.unique_evaluations) == (2, list(NEAR), 2)
    assert (result.evaluations_to_optimum, result.spent) == (5, 5)
    alone = run_seed(space, Method("m", "listed"), 0, Budget(until_optimum=True))
    assert (alone.evaluations, alone.genes) == (5, list(BEST))


def test_it_gives_up_at_the_cap(space: TableSpace, listed: type[Listed]) -> None:
    listed.plan = [FAR, NEAR]
    result = run_seed(space, Method("m", "listed", batch=3), 0, Budget(until_optimum=True, cap=7))
    assert (result.spent, result.evaluations_to_optimum) == (7, None)


def test_a_batch_is_counted_one_by_one(space: TableSpace, listed: type[Listed]) -> None:
    listed.plan = [FAR, BEST, NEAR, FAR, NEAR]
    result = run_seed(space, Method("m", "listed", batch=5), 0, Budget(evaluations=3))
    assert (result.evaluations, result.evaluations_to_optimum) == (3, 2)


def test_entropies_are_remembered(space: TableSpace, listed: type[Listed]) -> None:
    listed.plan = [FAR, NEAR]
    result = run_seed(space, Method("m", "listed"), 0, Budget(evaluations=6))
    assert (result.entropy_last, result.entropy_lowest) == (1.0, 0.5)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_runs_and_repeats_itself(space: TableSpace, name: str) -> None:
    budget = Budget(evaluations=30)
    first, again, other = (run_seed(space, METHODS[name], seed, budget) for seed in (3, 3, 4))
    assert first.evaluations == 30
    assert dataclasses.replace(first, wall_seconds=0) == dataclasses.replace(again, wall_seconds=0)
    assert first.improvements != other.improvements
    if name != "reinforce-published":
        assert first.unique_evaluations == 30


def test_a_whole_table_is_seen_once(space: TableSpace) -> None:
    result = run_seed(space, METHODS["random"], 0, Budget(evaluations=10_000))
    assert result.evaluations == result.unique_evaluations == space.size
    assert result.reward == 1.0
    assert math.isclose(result.simulated_seconds, 10 * space.size)


def test_methods_take_options() -> None:
    random, evolution = parse_methods("random, evolution:population_size=5:batch=4")
    assert (random.label, random.batch) == ("random", 1)
    assert evolution == Method(
        "evolution:population_size=5:batch=4", "evolution", {"population_size": 5, "sample_size": 10}, 4
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("evolutoin", "did you mean 'evolution'"),
        ("random,random", "named twice"),
        (" , ", "no method"),
        ("evolution:population=5", "did you mean 'population_size'"),
        ("evolution:sample_size=0", "sample_size"),
        ("evolution:batch=0", "batch must be"),
        ("evolution:fast", "NAME=VALUE"),
    ],
)
def test_methods_that_are_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_methods(text)


def test_labels_decide_the_draws(space: TableSpace) -> None:
    def found(label: str) -> Any:
        return run_seed(space, Method(label, "random"), 0, Budget(evaluations=20)).improvements

    assert found("a") == found("a") != found("b")
