"""One method with one seed on one table, under a budget: the ask-and-tell loop, and what is remembered of it."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from nas_engine.controllers.base import SecondsLearner
from nas_engine.errors import ConfigError
from nas_engine.spaces.table import TableSpace
from nas_engine.suite.methods import Method
from nas_engine.suite.proxies import SimulatedProxies
from nas_engine.types import Architecture

DEFAULT_CAP = 2_000


@dataclass(frozen=True)
class Budget:
    """How long a method may search.

    Attributes:
        seconds: simulated seconds; an evaluation that would end later is not counted. None: no limit.
        evaluations: evaluations, repeated ones included. None: no limit.
        until_optimum: whether a search goes on after its budget until it has found the optimum of the reward.
        cap: evaluations after which it gives up, where it goes on.
    """

    seconds: float | None = None
    evaluations: int | None = None
    until_optimum: bool = False
    cap: int = DEFAULT_CAP

    def allows(self, evaluations: int, seconds: float) -> bool:
        """Whether so many evaluations that take so long are within the budget."""
        within = self.evaluations is None or evaluations <= self.evaluations
        return within and (self.seconds is None or seconds <= self.seconds)


@dataclass
class SeedResult:
    """What one method found with one seed.

    Attributes:
        method: label of the method.
        seed: number of the repetition.
        evaluations: within the budget, repeated ones included.
        unique_evaluations: different architectures among them.
        simulated_seconds: what they cost, proxies included; None where the table does not say.
        proxy_seconds: what zero-cost proxies cost until the last of them.
        genes: the best architecture by reward that was seen within the budget (the first of equals).
        reward: its reward, higher is better.
        reports: its report columns.
        evaluations_to_optimum: number of the evaluation that found the optimum of the reward, or None.
        seconds_to_optimum: simulated seconds until then, or None.
        spent: evaluations in all, those after the budget included.
        improvements: (evaluations, simulated seconds, reward) whenever a better reward was seen.
        entropy_last: entropy, nats a decision, of the policy that the last update left, where the method reports it.
        entropy_lowest: the lowest that any update left.
        wall_seconds: what it took here.
    """

    method: str
    seed: int
    evaluations: int = 0
    unique_evaluations: int = 0
    simulated_seconds: float | None = None
    proxy_seconds: float = 0.0
    genes: list[int] = field(default_factory=list)
    reward: float = -np.inf
    reports: list[float] = field(default_factory=list)
    evaluations_to_optimum: int | None = None
    seconds_to_optimum: float | None = None
    spent: int = 0
    improvements: list[tuple[int, float, float]] = field(default_factory=list)
    entropy_last: float | None = None
    entropy_lowest: float | None = None
    wall_seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def run_seed(space: TableSpace, method: Method, seed: int, budget: Budget) -> SeedResult:
    """Let a method search.

    Args:
        space: the table.
        method: which method.
        seed: number of the repetition; with the label of the method it decides all draws.
        budget: how long.
    """
    started = time.perf_counter()
    proxies = SimulatedProxies(space, method.proxies) if method.proxies else None
    controller = method.build(space, _seed_of(method, seed), proxies)
    _use_one_thread()
    run = _Run(space, budget, SeedResult(method.label, seed), proxies)
    while not run.finished:
        proposals = controller.propose(method.batch)
        counted = [a for a in proposals if run.evaluate(a)]
        if counted and not run.finished:
            rows = [space.row_of(architecture.genes) for architecture in counted]
            if space.table.costs is not None and isinstance(controller, SecondsLearner):
                controller.learn_seconds(counted, [float(space.table.costs[row]) for row in rows])
            run.note(controller.update(counted, [float(space.table.rewards[row]) for row in rows]))
    return run.result(time.perf_counter() - started)


class _Run:
    def __init__(
        self, space: TableSpace, budget: Budget, result: SeedResult, proxies: SimulatedProxies | None = None
    ) -> None:
        self._table, self._space, self._budget, self._result = space.table, space, budget, result
        self._optimum = space.optimum
        self._unique: set[int] = set()
        self._best_row, self._best = -1, -np.inf
        self._proxies = proxies
        self._evaluated_seconds = self._seconds = 0.0  # without and with those of proxies
        self._over = False  # the budget is spent; the search may go on to the optimum
        self.finished = False
        self._distinct = space.distinct

    def evaluate(self, architecture: Architecture) -> bool:
        """Pay for an architecture; False where that is not possible any more."""
        if self.finished:
            return False
        row, result = self._space.row_of(architecture.genes), self._result
        evaluated = self._evaluated_seconds + (0.0 if self._table.costs is None else float(self._table.costs[row]))
        proxy_seconds = 0.0 if self._proxies is None else self._proxies.seconds
        seconds = evaluated + proxy_seconds
        if not self._over and not self._budget.allows(result.spent + 1, seconds):
            self._close_budget()
            if self.finished:
                return False
        result.spent += 1
        self._evaluated_seconds, self._seconds = evaluated, seconds
        if not self._over:
            result.proxy_seconds = proxy_seconds
        self._unique.add(row)
        self._keep(row)
        self._stop_where_nothing_is_left()
        return True

    def note(self, diagnostics: Any) -> None:
        entropy = diagnostics.get("entropy_floored", diagnostics.get("entropy"))
        if entropy is not None:
            self._result.entropy_last = float(entropy)
            lowest = self._result.entropy_lowest
            self._result.entropy_lowest = float(entropy) if lowest is None else min(lowest, float(entropy))

    def result(self, wall_seconds: float) -> SeedResult:
        if not self._over:
            self._close_budget()
        self._result.wall_seconds = wall_seconds
        return self._result

    def _keep(self, row: int) -> None:
        reward = float(self._table.rewards[row])
        if reward <= self._best:
            return
        self._best_row, self._best = row, reward
        result = self._result
        result.improvements.append((result.spent, self._seconds, self._table.reward_of(reward)))
        if reward >= self._optimum:
            result.evaluations_to_optimum = result.spent
            result.seconds_to_optimum = None if self._table.costs is None else self._seconds

    def _stop_where_nothing_is_left(self) -> None:
        budget, result = self._budget, self._result
        bounded = budget.seconds is not None or budget.evaluations is not None
        found = result.evaluations_to_optimum is not None
        if self._over or not bounded:
            self.finished = found or result.spent >= budget.cap
        elif budget.evaluations is not None and result.spent >= budget.evaluations:
            self._close_budget()
        self.finished = self.finished or len(self._unique) >= self._distinct

    def _close_budget(self) -> None:
        result, table = self._result, self._table
        self._over = True
        result.evaluations, result.unique_evaluations = result.spent, len(self._unique)
        result.simulated_seconds = None if table.costs is None else self._seconds
        if self._best_row < 0:
            raise ConfigError(
                f"method {result.method!r}: no evaluation fits {self._budget.seconds} s beside what its proxies cost: "
                "raise --budget-seconds, or lower its proxy_pool"
            )
        result.genes = table.genes[self._best_row].tolist()
        result.reward = table.reward_of(self._best)
        result.reports = table.reports[self._best_row].tolist()
        goes_on = self._budget.until_optimum and result.spent < self._budget.cap
        self.finished = not goes_on or result.evaluations_to_optimum is not None


def _seed_of(method: Method, seed: int) -> int:
    """Distinct streams for methods and seeds; the label and not the position, so that others may come and go."""
    return int(np.random.SeedSequence([seed, zlib.crc32(method.label.encode())]).generate_state(1)[0])


def _use_one_thread() -> None:
    """Of what a controller has loaded: its matrices are too small to share, and sums depend on how they are split."""
    threadpool_limits(1)
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def run_block(space: TableSpace, method: Method, seeds: Sequence[int], budget: Budget) -> list[SeedResult]:
    """Several seeds of one method, one after the other."""
    return [run_seed(space, method, seed, budget) for seed in seeds]
