"""Optuna's samplers (TPE, Gaussian process, NSGA-II) as search baselines, through Optuna's ask-and-tell interface."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import Field

from nas_engine.errors import MissingExtraError
from nas_engine.options import Options
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.seen import SeenArchitectures
from nas_engine.types import Architecture, StateDict

_STUDY = "nas_engine"
_ASKS = 5
_LARGEST_REWARD = 1e100  # the Gaussian process squares rewards


class CategoricalDistribution(optuna.distributions.CategoricalDistribution):
    """Choices that are compared and copied at once; Optuna does both for every parameter of every trial.

    Under Optuna's name for it, which is what a study is written down with.
    """

    choices: tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        """Whether the choices are the same."""
        if self is other:
            return True
        return isinstance(other, optuna.distributions.CategoricalDistribution) and self.choices == other.choices

    __hash__ = optuna.distributions.CategoricalDistribution.__hash__

    def __deepcopy__(self, memo: dict[int, Any]) -> CategoricalDistribution:
        """Itself: it does not change."""
        return self


class _TPESampler(optuna.samplers.TPESampler):
    """TPE that can be seeded again: to build it takes a sixth of a search, to seed it nothing.

    What it remembers besides is what all trials have in common, which is a function of the trials.
    """

    def reseed(self, seed: int) -> _TPESampler:
        """Draw from now on as a new sampler of this seed does; returns itself."""
        self._rng.rng.seed(seed)
        self._random_sampler._rng.rng.seed(seed)
        return self


class OptunaOptions(Options):
    """Options of the Optuna baselines."""

    sampler: Literal["tpe", "gp", "nsga2"] = Field(
        "tpe", description="tpe: tree-structured Parzen estimator; gp: Gaussian process; nsga2: genetic algorithm"
    )
    n_startup: int = Field(
        10, ge=2, description="random architectures before the model is used; for nsga2 also the population size"
    )


class OptunaController:
    """Lets an Optuna sampler choose the architectures.

    Each decision is a categorical parameter over all its choices, under the decision's name. Where a suggestion is
    masked (no valid architecture continues with it) the nearest open choice takes its place, the lower of two: the
    study optimises ``reward(canonical(project(params)))`` over the full product of all choices, which keeps every
    sampler's joint model intact; spaces whose parameters come and go would reduce them to independent sampling.

    A suggestion whose architecture is known costs nothing. Where the study knows its reward under other parameters
    only, it is told the remembered reward: a new point for the model. Otherwise the trial is no news and counts as
    failed. After five such suggestions in a row a random unseen architecture is enqueued.

    Each question is put to a sampler freshly seeded by the controller's seed and the number of the trial, so that the
    trials are the whole state and a resumed search continues exactly.

    Attributes:
        study: the in-memory study; ``optuna.visualization`` and ``optuna.importance`` take it.
    """

    Options = OptunaOptions

    def __init__(self, space: SearchSpace, options: OptunaOptions = OptunaOptions(), seed: int = 0) -> None:
        """Create an empty study.

        Args:
            space: where architectures come from.
            options: which sampler, and how many random architectures precede it.
            seed: of all draws.

        Raises:
            MissingExtraError: the sampler needs a package that is not installed.
        """
        self.space, self.options, self.seed = space, options, seed
        self._distributions: dict[str, BaseDistribution] = {
            decision.name: CategoricalDistribution(decision.choices) for decision in space.decisions
        }
        self._rng = np.random.default_rng(seed)
        self._clear()
        self._sampler()  # a sampler that cannot be built must fail now, not in the middle of a search

    def propose(self, n: int) -> list[Architecture]:
        """`n` canonical architectures, unseen while there are any."""
        return [self._next() for _ in range(n)]

    def update(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> dict[str, float]:
        """Tell the study.

        Returns:
            Number of trials of the study and how many of them were repetitions.
        """
        for architecture, reward in zip(map(self.space.canonical, architectures), rewards, strict=True):
            if architecture in self._running:
                self._tell(self._running.pop(architecture), reward)
            elif architecture not in self._seen.rewards:
                self._add_foreign(architecture, reward)
        self._seen.tell(architectures, rewards)
        trials = self.study.get_trials(deepcopy=False)
        failed = sum(trial.state is TrialState.FAIL for trial in trials)
        return {"study_trials": float(len(trials)), "repeated_trials": float(failed)}

    def state_dict(self) -> StateDict:
        """Trials, bookkeeping of the sampler, seen architectures and random state."""
        attributes = self._storage.get_study_system_attrs(self._study_id)
        return {
            "trials": [self._pack(trial) for trial in self.study.get_trials(deepcopy=False)],
            "attributes": json.dumps(attributes),
            "seen": self._seen.state_dict(),
            "seed": self.seed,
            "rng": json.dumps(self._rng.bit_generator.state),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Replay the trials of `state` into a new study, and continue."""
        self._clear()
        for packed in state["trials"]:
            self._add(self._unpack(packed))
        for name, value in json.loads(state["attributes"]).items():
            self._storage.set_study_system_attr(self._study_id, name, value)
        self._seen.load_state_dict(state["seen"])
        self.seed = int(state["seed"])
        self._rng.bit_generator.state = json.loads(state["rng"])

    def _clear(self) -> None:
        self._storage = optuna.storages.InMemoryStorage()
        with _quiet():
            self.study = optuna.create_study(storage=self._storage, study_name=_STUDY, direction="maximize")
        self._study_id = self._storage.get_study_id_from_name(_STUDY)
        self._seen = SeenArchitectures(self.space)
        self._tpe = _TPESampler(n_startup_trials=self.options.n_startup)
        self._running: dict[Architecture, int] = {}
        self._answered: set[tuple[int, ...]] = set()  # suggestions that the study knows the reward of

    def _next(self) -> Architecture:
        started = len(self._seen.rewards) + len(self._seen.waiting) >= self.options.n_startup
        for _ in range(_ASKS if started and not self._seen.exhausted else 0):
            trial = self._ask()
            suggested = self._genes(trial.params)
            canonical = self._seen.claim(self._project(suggested))
            if canonical is not None:
                self._running[canonical] = trial.number
                return canonical
            self._answer(trial.number, suggested)
        return self._enqueue(self._seen.draw(self._rng))

    def _ask(self) -> optuna.Trial:
        self.study.sampler = self._sampler(len(self.study.get_trials(deepcopy=False)))
        return self.study.ask(self._distributions)

    def _answer(self, number: int, suggested: tuple[int, ...]) -> None:
        remembered = self._seen.rewards.get(self.space.canonical(self._project(suggested)))
        if remembered is None or suggested in self._answered:
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self._tell(number, remembered)

    def _tell(self, number: int, reward: float) -> None:
        self.study.tell(number, _bounded(reward))
        self._answered.add(self._genes(self.study.get_trials(deepcopy=False)[number].params))

    def _enqueue(self, architecture: Architecture) -> Architecture:
        # Only what is new becomes a trial: an exhausted space repeats itself.
        if architecture in self._seen.waiting and architecture not in self._running:
            self.study.enqueue_trial(self._params(architecture.genes))
            self._running[architecture] = self._ask().number
        return architecture

    def _add_foreign(self, architecture: Architecture, reward: float) -> None:
        params = self._params(architecture.genes)
        self._add(create_trial(params=params, distributions=self._distributions, value=_bounded(reward)))

    def _add(self, trial: FrozenTrial) -> None:
        self.study.add_trial(trial)
        genes = self._genes(trial.params)
        if trial.state is TrialState.RUNNING:
            number = len(self.study.get_trials(deepcopy=False)) - 1
            self._running[self.space.canonical(self._project(genes))] = number
        elif trial.state is TrialState.COMPLETE:
            self._answered.add(genes)

    def _sampler(self, trial_number: int = 0) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, trial_number]).generate_state(1)[0])
        n_startup = self.options.n_startup
        if self.options.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=n_startup, seed=seed)
        if self.options.sampler == "tpe":
            return self._tpe.reseed(seed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                # No architecture is evaluated twice, so there is no noise to be seen; a process that assumes some
                # keeps asking for what it knows.
                return optuna.samplers.GPSampler(n_startup_trials=n_startup, seed=seed, deterministic_objective=True)
        except ImportError as error:
            raise MissingExtraError(
                "sampler 'gp' needs torch and scipy: pip install torch scipy, or choose 'tpe'"
            ) from error

    def _project(self, genes: Sequence[int]) -> Architecture:
        diagram, state, valid = self.space.diagram, 0, []
        for gene in genes:
            if not diagram.allowed[state, gene]:
                allowed = np.flatnonzero(diagram.allowed[state])
                gene = int(allowed[np.abs(allowed - gene).argmin()])
            state = int(diagram.transitions[state, gene])
            valid.append(gene)
        return Architecture(self.space.name, tuple(valid))

    def _genes(self, params: dict[str, Any]) -> tuple[int, ...]:
        return tuple(decision.choices.index(params[decision.name]) for decision in self.space.decisions)

    def _params(self, genes: Sequence[int]) -> dict[str, Any]:
        return {d.name: d.choices[gene] for d, gene in zip(self.space.decisions, genes, strict=True)}

    def _pack(self, trial: FrozenTrial) -> list[Any]:
        return [list(self._genes(trial.params)), trial.state.name, trial.value, json.dumps(trial.system_attrs)]

    def _unpack(self, packed: list[Any]) -> FrozenTrial:
        genes, state, value, attributes = packed
        return create_trial(
            params=self._params(genes),
            distributions=self._distributions,
            state=TrialState[state],
            value=value,
            system_attrs=json.loads(attributes),
        )


def _bounded(reward: float) -> float:
    return float(np.clip(reward, -_LARGEST_REWARD, _LARGEST_REWARD))


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna announces every study it creates, on stderr."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
