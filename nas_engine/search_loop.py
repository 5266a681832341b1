"""The search loop: propose, remember, price, evaluate, reward, store, learn, checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nas_engine.context import RunContext
from nas_engine.controllers.base import Controller, Diagnostics, SecondsLearner
from nas_engine.costs.base import CostModel
from nas_engine.evaluators.base import Evaluator
from nas_engine.limits import Constraint
from nas_engine.objectives import Objective, constrained_reward
from nas_engine.proxies.base import ProxyScores
from nas_engine.proxies.scoring import NetworkProxies
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, Failure, FailureKind, Metrics, Outcome, Trial

_IDLE_STEPS = 5  # a controller repeats itself only when a space is exhausted, so a few steps settle it
_PROPOSALS_PER_EVALUATION = 200  # bounds a search whose constraints almost nothing meets
_PROXY_SECONDS = "proxies_in_search"


@dataclass(frozen=True)
class SearchParts:
    """The components a search is made of, each behind its protocol."""

    space: SearchSpace
    controller: Controller
    evaluator: Evaluator
    cost_models: tuple[CostModel, ...]
    objective: Objective
    constraints: tuple[Constraint, ...]
    controller_name: str
    proxies: ProxyScores | None = None


def price(cost_models: Sequence[CostModel], architectures: Sequence[Architecture]) -> list[dict[str, float]]:
    """Costs of each architecture by name, from all models; a cost that a model does not know is NaN."""
    columns = {
        name: column
        for model in cost_models
        for name, column in zip(model.names, np.asarray(model.estimate(architectures)).T, strict=True)
    }
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(len(architectures))]


class Search:
    """Runs search steps until the evaluations are spent; each step survives a crash at any point.

    A resumed search replays the step whose learning was cut off: the controller, restored to the state before that
    step, proposes the same architectures, and the trials already in the store are used instead of new evaluations.
    """

    def __init__(
        self, parts: SearchParts, context: RunContext, *, evaluations: int, proposals: int, every: int
    ) -> None:
        """Set up, and continue from the checkpoint in the store if there is one.

        Args:
            parts: the components.
            context: store, events and progress.
            evaluations: architectures to score in all.
            proposals: architectures a step.
            every: steps between checkpoints.
        """
        self.parts = parts
        self.context = context
        self.evaluations = evaluations
        self.proposals = proposals
        self.every = every
        self.step = 0
        self._idle = 0
        checkpoint = context.store.load_checkpoint("search")
        if checkpoint is not None:
            self.step, self._idle = checkpoint["step"], checkpoint["idle"]
            parts.controller.load_state_dict(checkpoint["controller"])
        past = [trial for trial in context.store.trials(phase="search") if trial.step < self.step]
        self.proposed = len(past)
        self.paid = sum(map(_is_paid, past))
        self.best = max((trial.reward for trial in past), default=-math.inf)

    def prepare(self) -> None:
        """Let the evaluator do what precedes the first evaluation (train a supernet), with a checkpoint a unit."""
        evaluator, store = self.parts.evaluator, self.context.store
        state = store.load_checkpoint("evaluator")
        if state is not None:
            evaluator.load_state_dict(state)
        with self.context.phase("prepare", "prepare evaluator") as advance:
            for progress in evaluator.prepare():
                store.save_checkpoint("evaluator", evaluator.state_dict())
                self.context.events.write("prepared", done=progress.done, total=progress.total, **progress.values)
                advance(progress.done, progress.total, progress.values)
                self.context.check_stop()

    def explore(self) -> None:
        """Search until the evaluations are spent or nothing new is left to propose."""
        proxies = self.parts.proxies
        if isinstance(proxies, NetworkProxies):
            proxies.before_each = self.context.check_stop
        if proxies is not None and self.step == 0:
            names = ", ".join(proxies.names)
            self.context.reporter.message(f"search: first proxies ({names}) of random architectures, then evaluations")
        with self.context.phase("search", "search") as advance:
            while self.paid < self.evaluations and not self._exhausted():
                self.context.check_stop()
                diagnostics = self._run_step()
                advance(self.paid, self.evaluations, {"best reward": self.best, **diagnostics})

    def _run_step(self) -> Diagnostics:
        started = time.perf_counter()
        proposals = self._propose(min(self.proposals, self.evaluations - self.paid))
        trials = self._collect(proposals)
        diagnostics = self._learn(trials)
        if self.parts.proxies is not None:
            diagnostics = {**diagnostics, _PROXY_SECONDS: self.context.store.meta("seconds")[_PROXY_SECONDS]}
        self.proposed += len(trials)
        self.paid += sum(map(_is_paid, trials))
        self._idle = 0 if any(not trial.cached for trial in trials) else self._idle + 1
        self.best = max(self.best, *(trial.reward for trial in trials))
        self._log_step(trials, diagnostics, time.perf_counter() - started)
        self.step += 1
        if self.step % self.every == 0 or self.paid >= self.evaluations:
            state = {"step": self.step, "idle": self._idle, "controller": self.parts.controller.state_dict()}
            self.context.store.save_checkpoint("search", state)
        return diagnostics

    def _learn(self, trials: Sequence[Trial]) -> Diagnostics:
        architectures, controller = [trial.architecture for trial in trials], self.parts.controller
        if isinstance(controller, SecondsLearner):
            took = [trial.outcome.seconds if isinstance(trial.outcome, Metrics) else 0.0 for trial in trials]
            controller.learn_seconds(architectures, took)  # a failure does not say how long a success takes
        return controller.update(architectures, [trial.reward for trial in trials])

    def _propose(self, count: int) -> list[Architecture]:
        """Proposals of the controller; seconds that it spends on zero-cost proxies are added to those of the run."""
        proxies = self.parts.proxies
        if proxies is None:
            return self.parts.controller.propose(count)
        before = proxies.seconds
        proposals = self.parts.controller.propose(count)
        total: dict[str, float] = self.context.store.meta("seconds") or {}
        total[_PROXY_SECONDS] = total.get(_PROXY_SECONDS, 0.0) + proxies.seconds - before
        self.context.store.set_meta("seconds", total)
        return proposals

    def _collect(self, proposals: Sequence[Architecture]) -> list[Trial]:
        """Trials of this step: those a former process has paid for already, then the rest."""
        trials = self.context.store.trials(phase="search", step=self.step)
        # Where one evaluation is expensive each is stored at once; where it is cheap a batch is faster.
        chunk = 1 if self.parts.evaluator.fidelity.epochs else len(proposals)
        for start in range(len(trials), len(proposals), chunk):
            if trials:
                self.context.check_stop()
            batch = self._evaluate(proposals[start : start + chunk])
            self.context.store.append(batch)  # before learning: a paid-for result is never lost
            trials += batch
        return trials

    def _evaluate(self, architectures: Sequence[Architecture]) -> list[Trial]:
        started = time.time()
        fidelity = self.parts.evaluator.fidelity
        known = {a: t.outcome for a in architectures if (t := self.context.store.find(a, fidelity)) is not None}
        unknown = [a for a in dict.fromkeys(architectures) if a not in known]
        fresh = self._score(unknown)
        first = len(self.context.store)
        trials = []
        for offset, architecture in enumerate(architectures):
            cached = architecture in known
            outcome = known.setdefault(architecture, fresh.get(architecture, known.get(architecture)))  # type: ignore[arg-type]
            trials.append(
                Trial(
                    number=first + offset,
                    architecture=architecture,
                    fidelity=fidelity,
                    outcome=outcome,
                    reward=self._reward(outcome),
                    proposed_by=self.parts.controller_name,
                    step=self.step,
                    phase="search",
                    cached=cached,
                    started_at=started,
                    finished_at=time.time(),
                )
            )
        return trials

    def _score(self, architectures: Sequence[Architecture]) -> dict[Architecture, Outcome]:
        """Outcomes of new architectures; those that break a limit on costs are not evaluated at all."""
        costs = dict(zip(architectures, price(self.parts.cost_models, architectures), strict=True))
        outcomes: dict[Architecture, Outcome] = {}
        for architecture, values in costs.items():
            broken = [c for c in self.parts.constraints if c.metric in values and c.violation(Metrics(values)) > 0]
            if broken:
                message = "breaks " + ", ".join(map(str, broken))
                outcomes[architecture] = Failure(FailureKind.INFEASIBLE, message, values=values)
        feasible = [a for a in architectures if a not in outcomes]
        for architecture, outcome in zip(feasible, self.parts.evaluator.evaluate(feasible), strict=True):
            values = costs[architecture]
            merged = outcome.merged(values) if isinstance(outcome, Metrics) else replace(outcome, values=values)
            outcomes[architecture] = _checked(merged)
        return outcomes

    def _reward(self, outcome: Outcome) -> float:
        return constrained_reward(self.parts.objective, self.parts.constraints, outcome)

    def _exhausted(self) -> bool:
        idle = self._idle >= _IDLE_STEPS
        if idle or self.proposed > _PROPOSALS_PER_EVALUATION * self.evaluations:
            why = "no unseen architecture is left" if idle else "almost every proposal breaks a constraint"
            self.context.events.write("stopped_early", reason=why, evaluations=self.paid)
            self.context.reporter.message(f"search stopped after {self.paid} evaluations: {why}")
            return True
        return False

    def _log_step(self, trials: Sequence[Trial], diagnostics: Diagnostics, seconds: float) -> None:
        events = self.context.events
        top = max(trials, key=lambda trial: trial.reward)
        costs: Mapping[str, float] = top.outcome.values
        rewards = [trial.reward for trial in trials]
        failures = [trial.outcome.kind.value for trial in trials if isinstance(trial.outcome, Failure)]
        entry: dict[str, Any] = {
            "step": self.step,
            "evaluations": self.paid,
            "reward": float(np.mean(rewards)),
            "reward_max": max(rewards),
            "reward_best": self.best,
            "best_of_step": top.architecture.key,
            **{name: value for name, value in costs.items() if name != "loss"},
            "cached": sum(trial.cached for trial in trials),
            "failures": failures,
            **diagnostics,
            "seconds": round(seconds, 4),
        }
        events.write("step", **entry)
        if diagnostics.get("entropy_collapsed"):
            events.write("entropy_collapsed", step=self.step, entropy=diagnostics.get("entropy"))
        if diagnostics.get("nan_guard"):
            events.write("nan_guard", step=self.step)


def best_trials(trials: Sequence[Trial], constraints: Sequence[Constraint], count: int) -> list[Trial]:
    """The `count` best distinct architectures that meet all constraints; equal rewards: lower loss, then fewer MACs."""
    met = [t for t in trials if t.metrics is not None and all(c.violation(t.metrics) == 0 for c in constraints)]
    met.sort(key=lambda t: (-t.reward, t.outcome.values.get("loss", 0.0), t.outcome.values.get("macs", 0.0), t.number))
    unique = {trial.architecture: trial for trial in reversed(met)}
    return sorted(unique.values(), key=met.index)[:count]


def _is_paid(trial: Trial) -> bool:
    infeasible = isinstance(trial.outcome, Failure) and trial.outcome.kind is FailureKind.INFEASIBLE
    return not trial.cached and not infeasible


def _checked(outcome: Outcome) -> Outcome:
    """An evaluator that reports a NaN accuracy has failed, whatever it says."""
    if isinstance(outcome, Metrics) and not math.isfinite(outcome.accuracy):
        message = f"accuracy is {outcome.accuracy}"
        return Failure(FailureKind.NAN, message, seconds=outcome.seconds, values=outcome.values)
    return outcome
