"""Agents of Stable-Baselines3 and sb3-contrib, untouched, learn through `gym.make` alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3 import PPO

from nas_engine.types import Architecture

BEST = (3, 2, 1, 4, 2, 3)
STEPS_AN_EPISODE = len(BEST)


def matches(architectures: Sequence[Architecture]) -> list[float]:
    """Share of genes that agree with the best architecture: separable, 1 at the optimum, 0.2 on average."""
    return [float(np.mean(np.equal(architecture.genes, BEST))) for architecture in architectures]


def mean_return(model: Any, episodes: int) -> float:
    """Mean return of the trained policy, sampling its actions as it does in a search."""
    env = gym.make("nas_envs:NASBench201-v0", objective=matches)
    returns = []
    for _ in range(episodes):
        observation, _ = env.reset()
        state, start, total, done = None, np.ones(1, dtype=bool), 0.0, False
        while not done:
            masks = {"action_masks": get_action_masks(env)} if isinstance(model, MaskablePPO) else {}
            recurrent = {"state": state, "episode_start": start} if isinstance(model, RecurrentPPO) else {}
            action, state = model.predict(observation, **masks, **recurrent)
            observation, reward, done, _, _ = env.step(int(action))
            total, start = total + float(reward), np.zeros(1, dtype=bool)
        returns.append(total)
    return float(np.mean(returns))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "policy", "steps"),
    [(PPO, "MlpPolicy", 2160), (MaskablePPO, "MlpPolicy", 2160), (RecurrentPPO, "MlpLstmPolicy", 1440)],
)
def test_agent_improves_on_a_separable_score(agent: Any, policy: str, steps: int) -> None:
    env = gym.make("nas_envs:NASBench201-v0", objective=matches)
    rollout = 60 * STEPS_AN_EPISODE
    model = agent(
        policy,
        env,
        seed=0,
        device="cpu",
        n_steps=rollout,
        batch_size=120,
        n_epochs=5,
        gamma=1.0,
        learning_rate=3e-3,
        ent_coef=0.01,
    )
    before = mean_return(model, 60)
    model.learn(steps)
    after = mean_return(model, 60)
    assert before < 0.35
    assert after > 0.5
