"""Stable-Baselines3 agents as controllers: they walk the environments of `nas_envs` and train on told rewards."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from pydantic import Field

from nas_engine.controllers.base import Diagnostics
from nas_engine.controllers.learner import finite
from nas_engine.controllers.proposing import Proposer
from nas_engine.controllers.sb3_agents import (
    FloatArray,
    IntArray,
    MaskablePPOAgent,
    PPOAgent,
    RecurrentPPOAgent,
    Transitions,
)
from nas_engine.options import Options
from nas_engine.scores import Scoring, score
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, StateDict

if TYPE_CHECKING:
    from stable_baselines3.common.buffers import RolloutBuffer

_AGENTS: dict[str, type[PPOAgent]] = {
    "ppo": PPOAgent,
    "maskable-ppo": MaskablePPOAgent,
    "recurrent-ppo": RecurrentPPOAgent,
}
_DIAGNOSTICS = ("approx_kl", "clip_fraction", "value_loss", "explained_variance")


class SB3Options(Options):
    """Options of the Stable-Baselines3 adapter."""

    algorithm: Literal["ppo", "maskable-ppo", "recurrent-ppo"] = Field(
        "maskable-ppo", description="agent; only maskable-ppo knows the masks while it trains"
    )
    learning_rate: float = Field(3e-3, gt=0, description="step size of Adam")
    n_epochs: int = Field(8, ge=1, description="gradient steps an update, each on all of its episodes")
    clip_range: float = Field(0.2, gt=0, description="largest change of the probability ratio that is rewarded")
    gamma: float = Field(1.0, gt=0, le=1, description="discount for each later decision")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="bias-variance trade-off of the advantages")
    ent_coef: float = Field(0.01, ge=0, description="weight of the entropy bonus in the loss")
    vf_coef: float = Field(0.5, ge=0, description="weight of the value loss")
    max_grad_norm: float = Field(0.5, gt=0, description="gradients are scaled down to this L2 norm")
    target_kl: float | None = Field(
        None, gt=0, description="approximate KL (nats) that ends an update early; None: never"
    )
    hidden_size: int = Field(64, ge=1, description="units of each of two hidden layers, and of the LSTMs")
    advantages: Scoring = Field(
        "rank", description="rewards relative to all rewards so far: rank (needs no scale), standardised, or raw"
    )
    free_samples: int = Field(
        0, ge=0, description="most known architectures, drawn again while proposing, that an update learns from"
    )


class SB3Controller:
    """PPO of Stable-Baselines3, or MaskablePPO or RecurrentPPO of sb3-contrib, behind the Controller protocol.

    SB3's own ``learn`` owns the loop: it wants a reward at the end of each episode, at once. Here the search owns the
    loop, so episodes are walked twice. `propose` samples the policy step by step, under masks. `update` walks the same
    decisions again, now with their rewards, writes each step with value and log-probability into an SB3 rollout
    buffer, and calls the agent's ``train``; the policy has not changed in between, so this is the rollout that
    ``collect_rollouts`` would have recorded.

    Attributes:
        agent: the agent; ``agent.model`` is SB3's, to save or to use elsewhere.
        walker: samples from the agent and records its episodes.
    """

    Options = SB3Options

    def __init__(self, space: SearchSpace, options: SB3Options = SB3Options(), seed: int = 0) -> None:
        """Build the agent.

        Args:
            space: where architectures come from.
            options: algorithm and its settings.
            seed: of weights, draws and minibatches.
        """
        self.space, self.options, self.seed = space, options, seed
        self._updates = 0
        with _global_generators(seed):
            self.walker = EpisodeWalker(space, options)
        self.agent = self.walker.agent
        self._proposer = Proposer(space, self.walker, seed)

    def propose(self, n: int) -> list[Architecture]:
        """`n` canonical architectures, unseen as long as unseen ones are found with reasonable effort."""
        return self._proposer.propose(n)

    def update(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> Diagnostics:
        """Train on the episodes of `architectures` [n] with `rewards` [n].

        Returns:
            ``entropy`` (nats a decision), ``approx_kl``, ``clip_fraction``, ``value_loss``, ``explained_variance``
            where SB3 reports them as finite, ``repeated_proposals`` (share of draws that were known already) and
            ``nan_guard`` (1 where the update was undone).
        """
        if not architectures:
            return {}
        genes, sampled = self._proposer.collect(architectures, rewards, self.options.free_samples)
        known = np.array(list(self._proposer.seen.rewards.values()))
        logged = self._train(self.walker.record(genes, score(sampled, known, self.options.advantages)))
        self._updates += 1
        return finite({"repeated_proposals": self._proposer.repeated_share, **logged})

    def state_dict(self) -> StateDict:
        """Weights, optimiser, memory of seen architectures, and random state."""
        return {
            "agent": self.agent.state_dict(),
            "proposer": self._proposer.state_dict(),
            "updates": self._updates,
            "seed": self.seed,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self.agent.load_state_dict(state["agent"])
        self._proposer.load_state_dict(state["proposer"])
        self._updates, self.seed = int(state["updates"]), int(state["seed"])

    def _train(self, buffer: RolloutBuffer) -> dict[str, float]:
        before = self.agent.state_dict()
        try:
            with _global_generators(self.seed, 1 + self._updates):
                logged = self.agent.train(buffer)
        except ValueError:  # what torch says to logits that are not finite
            if self.agent.is_finite():
                raise
            logged = {}
        guarded = not self.agent.is_finite()
        if guarded:
            self.agent.load_state_dict(before)
        diagnostics = {name: logged[name] for name in _DIAGNOSTICS if name in logged}
        return {"entropy": -logged.get("entropy_loss", math.nan), **diagnostics, "nan_guard": float(guarded)}


class EpisodeWalker:
    """Takes the decisions of many architectures side by side, as episodes of the environments of `nas_envs`."""

    def __init__(self, space: SearchSpace, options: SB3Options) -> None:
        """Build the agent; weights come from torch's global generator."""
        # nas_envs builds on nas_engine, which therefore must not need it to be imported.
        from nas_envs import ArchitectureEnv, VectorArchitectureEnv

        self._space, self._make_envs = space, VectorArchitectureEnv
        self.agent = _AGENTS[options.algorithm](ArchitectureEnv(space, _no_rewards), _settings(options))

    def sample(self, count: int, generator: torch.Generator) -> IntArray:
        """Genes drawn from the policy, int64 [count, decisions]."""

        def draw(_: int, step: Transitions) -> IntArray:
            drawn = torch.multinomial(self.agent.probabilities(step), 1, generator=generator)
            return np.asarray(drawn[:, 0].numpy())

        taken = [actions for _, actions, _ in self._walk(count, draw, _no_rewards)]
        return np.stack(taken, axis=1)

    def record(self, genes: IntArray, scores: npt.NDArray[np.float64]) -> RolloutBuffer:
        """The episodes that lead to `genes` [episodes, decisions], rewarded with `scores` [episodes] at their ends."""
        episodes, steps = genes.shape
        buffer = self.agent.buffer(steps, episodes)
        for step, taken, rewards in self._walk(episodes, lambda t, _: genes[:, t], lambda _: scores.tolist()):
            self.agent.add(buffer, step, taken, rewards)
        return buffer

    def _walk(
        self,
        episodes: int,
        choose: Callable[[int, Transitions], IntArray],
        objective: Callable[[Sequence[Architecture]], Sequence[float]],
    ) -> Iterator[tuple[Transitions, IntArray, FloatArray]]:
        envs = self._make_envs(episodes, self._space, objective, autoreset_mode=AutoresetMode.DISABLED)
        observations, _ = envs.reset()
        self.agent.begin(episodes)
        for position in range(len(self._space.decisions)):
            starts = np.full(episodes, position == 0, dtype=np.float32)
            step = Transitions(observations, envs.action_masks(), starts)
            actions = choose(position, step)
            observations, rewards, *_ = envs.step(actions)
            yield step, actions, rewards.astype(np.float32)


def _no_rewards(architectures: Sequence[Architecture]) -> list[float]:
    """While proposing no reward is known; `update` walks the episodes again, with theirs."""
    return [0.0] * len(architectures)


def _settings(options: SB3Options) -> dict[str, Any]:
    policy: dict[str, Any] = {"net_arch": [options.hidden_size, options.hidden_size]}
    if options.algorithm == "recurrent-ppo":
        policy["lstm_hidden_size"] = options.hidden_size
    own = options.model_dump(exclude={"algorithm", "hidden_size", "advantages", "free_samples"})
    # The sizes only have to please SB3's checks: each update brings a buffer of its own size.
    return {**own, "n_steps": 2, "batch_size": 2, "policy_kwargs": policy}


@contextmanager
def _global_generators(*seed: int) -> Iterator[None]:
    """Seed the global generators, which SB3 draws from, and afterwards put them back as they were."""
    numpy_state = np.random.get_state()  # noqa: NPY002  (SB3 shuffles with it)
    drawn = int(np.random.SeedSequence(seed).generate_state(1)[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(drawn)
        np.random.seed(drawn)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
