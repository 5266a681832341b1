"""PPO with a learned reward model: between evaluations the policy is trained on what the model expects."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from nas_engine.controllers.base import Diagnostics
from nas_engine.controllers.lstm import IntArray
from nas_engine.controllers.options import PPOOptions
from nas_engine.controllers.ppo import PPOController
from nas_engine.errors import ConfigError
from nas_engine.options import Options
from nas_engine.proxies.base import ProxyScores
from nas_engine.proxies.memory import ProxyMemory
from nas_engine.scores import FloatArray, log_rank_scores, ranks
from nas_engine.spaces.base import SearchSpace
from nas_engine.surrogates.acquisition import log_expected_improvement
from nas_engine.surrogates.ensemble import RewardModel
from nas_engine.surrogates.seconds import SecondsModel
from nas_engine.types import Architecture, StateDict

_DEFAULTS_WITH_PROXIES: Mapping[str, Any] = {"random_first": 1, "optimism": [1.0, 2.0]}


class PPOModelOptions(Options):
    """Options of `PPOModelController`."""

    random_first: int = Field(
        3,
        ge=1,
        description="architectures before the model is asked: random ones; with proxies the best by these, and 1 "
        "unless said otherwise",
    )
    optimism: list[float] = Field(
        [1.0, 2.0, 4.0],
        min_length=1,
        description="standard deviations added to the expected score, one after the other, in what the policy learns "
        "from and in ucb: larger explores more; with proxies, which tell much beforehand, 1, 2 unless said otherwise",
    )
    acquisition: Literal["ucb", "ei", "ei_per_second"] = Field(
        "ucb",
        description="what the proposal has most of: ucb, the expected score plus optimism; ei, expected improvement on "
        "the best known; or ei_per_second, for a budget of time where evaluations differ in cost; the policy learns "
        "from ucb in any case",
    )
    imagined: int = Field(48, ge=2, description="architectures that the policy imagines, and the model scores, a round")
    rounds: int = Field(1, ge=1, description="rounds of imagining and learning at a time")
    every: int = Field(4, ge=1, description="evaluations from one time that the policy learns to the next")
    climbs: int = Field(
        4, ge=0, description="best imagined and best known architectures whose neighbours are considered too; 0: none"
    )
    model_size: int = Field(400, ge=2, description="most evaluations the model is fitted to: the best and the latest")
    learning_rate: float = Field(0.007, gt=0, description="step size of Adam")
    epochs: int = Field(2, ge=1, description="passes of PPO over each round")
    entropy_floor: float = Field(
        0.3,
        ge=0,
        description="entropy, nats a decision, that an update leaves at least, by scaling logits down; 0: any",
    )
    hidden_size: int = Field(48, ge=1, description="size of the LSTM state")
    proxies: tuple[str, ...] = Field(
        (), description="zero-cost proxies that the model sees too: naswot, synflow, grad_norm; none: off"
    )
    proxy_pool: int = Field(
        1000,
        ge=1,
        description="random architectures whose proxies are computed first: the best is evaluated, and all others are "
        "compared with them",
    )
    proxy_candidates: int = Field(
        16, ge=1, description="most promising architectures whose proxies are computed before each proposal"
    )

    @model_validator(mode="before")
    @classmethod
    def _with_proxies(cls, given: Any) -> Any:
        """With proxies the model knows much before the first evaluation, so other defaults serve it better."""
        return {**_DEFAULTS_WITH_PROXIES, **given} if isinstance(given, dict) and given.get("proxies") else given


@dataclass(frozen=True)
class Candidates:
    """Architectures that may be proposed, and what the model expects of them.

    Attributes:
        architectures: in canonical form, no two equal.
        mean: of the score that is expected, [n].
        deviation: standard deviation of it, [n].
    """

    architectures: list[Architecture]
    mean: FloatArray
    deviation: FloatArray

    def bounds(self, optimism: float) -> FloatArray:
        """Upper confidence bounds, [n]: `optimism` deviations above the mean."""
        return self.mean + optimism * self.deviation

    def at(self, positions: list[int]) -> Candidates:
        """Those at `positions`, in that order."""
        architectures = [self.architectures[position] for position in positions]
        return Candidates(architectures, self.mean[positions], self.deviation[positions])

    def __add__(self, more: Candidates) -> Candidates:
        """These and others."""
        return Candidates(
            self.architectures + more.architectures,
            np.concatenate([self.mean, more.mean]),
            np.concatenate([self.deviation, more.deviation]),
        )


class PPOModelController:
    """PPO whose policy learns from a model of the reward, so that one evaluation teaches many steps.

    Before each proposal the `RewardModel` is fitted to all evaluations; the policy imagines architectures, the model
    scores them by the expected score plus some standard deviations (an upper confidence bound, Srinivas et al. 2010),
    and PPO learns from these scores. The proposal is the unseen architecture with the highest bound, or expected
    improvement, or that per expected second, among those imagined and the neighbours of the best of them and of the
    best known. Architectures that still wait for their reward count with the score that the model expects, so that
    several proposals at once differ.

    Diagnostics: those of `nas_engine.controllers.ppo.PPOController.learn`, with ``repeated_proposals`` as the share of
    what was imagined that is known already, and of the model: ``model_error`` (root mean square of expected minus
    actual score of the architectures just evaluated, in standard deviations of all scores; what a model without
    knowledge would have is 1).
    """

    Options = PPOModelOptions

    def __init__(
        self,
        space: SearchSpace,
        options: PPOModelOptions = PPOModelOptions(),
        seed: int = 0,
        proxies: ProxyScores | None = None,
    ) -> None:
        """Build an untrained policy and a model without data.

        Args:
            space: architectures to propose.
            options: of the algorithm.
            seed: of the initial weights and all draws.
            proxies: computes those that the options name.

        Raises:
            ConfigError: the options name proxies that `proxies` does not compute.
        """
        if options.proxies != (proxies.names if proxies is not None else ()):
            raise ConfigError(
                f"controller.proxies are {', '.join(options.proxies) or 'none'}, but the controller was handed "
                f"{'none' if proxies is None else ', '.join(proxies.names)}: build it with proxies of the same names"
            )
        self.space, self.options = space, options
        ppo = PPOOptions(
            learning_rate=options.learning_rate,
            epochs=options.epochs,
            entropy_floor=options.entropy_floor,
            hidden_size=options.hidden_size,
        )
        self._ppo = PPOController(space, ppo, seed)
        self.policy = self._ppo.policy
        self._seen = self._ppo.proposer.seen
        self._model = RewardModel(space)
        self._proxies = None if proxies is None else ProxyMemory(proxies, space)
        self._expected: dict[Architecture, float] = {}
        self._seconds: dict[Architecture, float] = {}
        self._seconds_model = SecondsModel(space)
        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._learned: Diagnostics = {}
        self._learned_at = 0

    def propose(self, n: int) -> list[Architecture]:
        """The next `n` architectures."""
        return [self._next() for _ in range(n)]

    def learn_seconds(self, architectures: Sequence[Architecture], seconds: Sequence[float]) -> None:
        """Remember how long evaluations took; what is not positive and finite says nothing."""
        for architecture, took in zip(architectures, seconds, strict=True):
            if 0 < took < math.inf:
                self._seconds[self.space.canonical(architecture)] = float(took)

    def update(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> Diagnostics:
        """Remember the rewards; the learning is done when the next proposal is asked for."""
        self._seen.tell(architectures, rewards)
        known = self._seen.rewards
        canonical = [self.space.canonical(architecture) for architecture in architectures]
        scores = dict(zip(known, log_rank_scores(np.array(list(known.values()))), strict=True)) if known else {}
        errors = [self._expected.pop(a) - scores[a] for a in canonical if a in self._expected]
        error = {"model_error": float(np.sqrt(np.mean(np.square(errors))))} if errors else {}
        return {**self._learned, **error}

    def state_dict(self) -> StateDict:
        """Policy, memory, what was expected of those that wait, and random states."""
        return {
            "ppo": self._ppo.state_dict(),
            "proxies": None if self._proxies is None else self._proxies.state_dict(),
            "expected": _listed(self._expected),
            "seconds": _listed(self._seconds),
            "learned": dict(self._learned),
            "learned_at": self._learned_at,
            "rng": json.dumps(self._rng.bit_generator.state),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self._ppo.load_state_dict(state["ppo"])
        if self._proxies is not None:
            self._proxies.load_state_dict(state["proxies"])
        for values, name in ((self._expected, "expected"), (self._seconds, "seconds")):
            values.clear()
            values.update((Architecture(self.space.name, tuple(genes)), value) for genes, value in state[name])
        self._learned, self._learned_at = dict(state["learned"]), int(state["learned_at"])
        self._rng.bit_generator.state = json.loads(state["rng"])
        self._generator.set_state(state["generator"])

    def _next(self) -> Architecture:
        if self._proxies is not None and not self._proxies.reference_size:
            drawn = self.space.samples(self._rng, self.options.proxy_pool)
            self._proxies.compute([self.space.canonical(architecture) for architecture in drawn])
        known = len(self._seen.rewards)
        if known < self.options.random_first or self._seen.exhausted:
            return self._best_by_proxies() or self._seen.draw(self._rng)
        self._fit()
        optimism = self.options.optimism[(known + len(self._seen.waiting)) % len(self.options.optimism)]
        due = known - self._learned_at >= self.options.every
        for _ in range(self.options.rounds if due else 0):
            self._learn(optimism)
            self._learned_at = known
        best = self._best_unseen(self._imagine()[1], optimism)
        return self._seen.draw(self._rng) if best is None else best

    def _fit(self) -> None:
        rewards = self._seen.rewards
        architectures, scores = list(rewards), log_rank_scores(np.array(list(rewards.values())))
        if len(architectures) > self.options.model_size:
            half = self.options.model_size // 2
            chosen = np.union1d(np.argsort(-scores, kind="stable")[:half], np.arange(len(scores))[-half:])
            architectures, scores = [architectures[i] for i in chosen], scores[chosen]
        waiting = {a: self._expected[a] for a in self._seen.waiting if a in self._expected}
        fitted = [*architectures, *waiting]
        scores = np.concatenate([scores, list(waiting.values())])
        if self._proxies is not None:
            self._proxies.compute(fitted)
        self._model.fit(self.space.genes(fitted), scores, self._normal_scores(fitted))
        if self.options.acquisition == "ei_per_second":
            self._seconds_model.fit(self.space.genes(list(self._seconds)), np.array(list(self._seconds.values())))

    def _learn(self, optimism: float) -> None:
        """One round: imagine, score, learn."""
        genes, imagined = self._imagine()
        bounds = self._predicted(imagined).bounds(optimism)
        known = sum(architecture in self._seen for architecture in imagined) / len(imagined)
        self._learned = {**self._ppo.learn(genes, ranks(bounds, bounds)), "repeated_proposals": known}

    def _imagine(self) -> tuple[IntArray, list[Architecture]]:
        """Genes int64 [imagined, decisions] that the policy draws, and their architectures in canonical form."""
        genes = self.policy.sample(self.options.imagined, self._generator)
        return genes, [self.space.canonical(Architecture(self.space.name, tuple(row))) for row in genes.tolist()]

    def _best_unseen(self, imagined: list[Architecture], optimism: float) -> Architecture | None:
        """The unseen architecture that the acquisition prefers, claimed; None where all that come to mind are seen."""
        candidates = self._candidates(imagined, optimism)
        if self._proxies is not None:
            candidates = self._looked_at(candidates, optimism)
        unseen = candidates.at(self._seen.unseen_among(candidates.architectures))
        if not unseen.architectures:
            return None
        top = int(np.argmax(self._acquisition(unseen, optimism)))
        best = unseen.architectures[top]
        self._seen.claim(best)
        self._expected[best] = float(unseen.mean[top])
        return best

    def _candidates(self, imagined: list[Architecture], optimism: float) -> Candidates:
        """What is imagined, and neighbours of the best of it and of the best known."""
        listed = dict.fromkeys(imagined)
        candidates = self._predicted(list(listed))
        best_known = self._ppo.proposer.best(self.options.climbs)
        for _ in range(2 if self.options.climbs else 0):
            tops = np.argsort(-candidates.bounds(optimism), kind="stable")[: self.options.climbs]
            centres = [*(candidates.architectures[top] for top in tops), *best_known]
            around = (self.space.canonical(a) for centre in centres for a in self.space.neighbours(centre))
            listed |= dict.fromkeys(around)  # those that are listed already keep their places
            candidates += self._predicted(list(listed)[len(candidates.architectures) :])
        return candidates

    def _acquisition(self, candidates: Candidates, optimism: float) -> FloatArray:
        """What each architecture promises, [n]; the largest value is proposed."""
        if self.options.acquisition == "ucb":
            return candidates.bounds(optimism)
        best = log_rank_scores(np.array(list(self._seen.rewards.values()))).max()
        improvement = log_expected_improvement(candidates.mean - best, candidates.deviation)
        if self.options.acquisition == "ei":
            return improvement
        # Snoek et al. 2012, "Practical Bayesian optimization of machine learning algorithms", section 3.2.
        return improvement - self._seconds_model.predict_log(self.space.genes(candidates.architectures))

    def _looked_at(self, candidates: Candidates, optimism: float) -> Candidates:
        """All unseen architectures whose proxies are known, after those of the most promising others are computed."""
        assert self._proxies is not None
        values = self._acquisition(candidates, optimism)
        unknown = [
            position
            for position in self._seen.unseen_among(candidates.architectures)
            if candidates.architectures[position] not in self._proxies.values
        ]
        promising = heapq.nlargest(self.options.proxy_candidates, unknown, key=values.__getitem__)
        self._proxies.compute(candidates.at(promising).architectures)
        known = list(self._proxies.values)
        return self._predicted([known[position] for position in self._seen.unseen_among(known)])

    def _best_by_proxies(self) -> Architecture | None:
        """The best unseen architecture whose proxies are known, by their mean rank; None without proxies."""
        if self._proxies is None:
            return None
        best = (self._seen.claim(architecture) for architecture in self._proxies.best(self.options.proxy_pool))
        return next((architecture for architecture in best if architecture is not None), None)

    def _predicted(self, architectures: list[Architecture]) -> Candidates:
        if not architectures:
            return Candidates([], np.empty(0), np.empty(0))
        mean, deviation = self._model.predict(self.space.genes(architectures), self._normal_scores(architectures))
        return Candidates(architectures, mean, deviation)

    def _normal_scores(self, architectures: Sequence[Architecture]) -> FloatArray | None:
        return None if self._proxies is None else self._proxies.normal_scores(architectures)


def _listed(values: Mapping[Architecture, float]) -> list[list[Any]]:
    return [[list(architecture.genes), value] for architecture, value in values.items()]
