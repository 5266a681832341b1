"""The reference environment keeps Gymnasium's and Stable-Baselines3's contracts and its own spec sheet."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import nas_envs
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from nas_engine.errors import ConfigError
from nas_engine.types import Architecture, ImageShape

IDS = ["nas_envs:NASBench201-v0", "nas_envs:MobileNet-v0"]


def gene_sum(architectures: Sequence[Architecture]) -> list[float]:
    return [float(sum(architecture.genes)) for architecture in architectures]


def masked_walk(env: Any, rng: np.random.Generator) -> tuple[list[int], list[np.ndarray], float, dict[str, Any]]:
    """One episode of open choices: actions, observations, last reward and last info."""
    observation, _ = env.reset()
    actions, observations, reward, info, terminated = [], [observation], 0.0, {}, False
    while not terminated:
        assert reward == 0.0
        actions.append(int(rng.choice(np.flatnonzero(env.get_wrapper_attr("action_masks")()))))
        observation, reward, terminated, truncated, info = env.step(actions[-1])
        assert not truncated
        observations.append(observation)
    return actions, observations, float(reward), info


@pytest.mark.parametrize("env_id", IDS)
def test_both_environment_checkers_pass_without_a_warning(env_id: str) -> None:
    env = gym.make(env_id, objective=gene_sum)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
        sb3_check_env(env)


@pytest.mark.parametrize("env_id", IDS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_open_choices_lead_to_a_valid_architecture_that_is_scored(env_id: str, seed: int) -> None:
    env = gym.make(env_id, objective=gene_sum)
    space = env.unwrapped.space
    actions, observations, reward, info = masked_walk(env, np.random.default_rng(seed))
    architecture = space.from_key(info["architecture"])
    assert architecture == space.architecture(actions)
    assert reward == gene_sum([architecture])[0]
    assert "invalid_action" not in info
    assert not info["action_mask"].any()
    assert all(env.observation_space.contains(observation) for observation in observations)


def test_the_observation_is_position_and_choices_one_hot() -> None:
    env = gym.make(IDS[0], objective=gene_sum)
    observation, info = env.reset()
    np.testing.assert_array_equal(observation, np.eye(36, dtype=np.float32)[0])
    assert info["action_mask"].dtype == np.int8
    assert env.action_space.sample(info["action_mask"]) in range(5)
    observation, *_ = env.step(3)
    np.testing.assert_array_equal(np.flatnonzero(observation), [1, 6 + 3])
    observation, *_ = env.step(1)
    np.testing.assert_array_equal(np.flatnonzero(observation), [2, 6 + 3, 6 + 5 + 1])


def test_a_masked_action_ends_the_episode() -> None:
    env = gym.make(IDS[0], objective=gene_sum, invalid_reward=-7.0)
    env.reset()
    for action in (0, 0, 0):  # nodes 1 and 2 are never reached, so the edge 0>3 must be there
        before, _, terminated, _, _ = env.step(action)
        assert not terminated
    assert not env.get_wrapper_attr("action_masks")()[0]
    observation, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated, info["invalid_action"]) == (-7.0, True, False, True)
    assert "architecture" not in info
    np.testing.assert_array_equal(observation, before)
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        env.unwrapped.step(0)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_becomes_the_invalid_reward(score: float) -> None:
    env = gym.make(IDS[0], objective=lambda architectures: [score], invalid_reward=-2.5)
    _, _, reward, info = masked_walk(env, np.random.default_rng(0))
    assert reward == -2.5
    assert info["architecture"].startswith("nasbench201:")


@pytest.mark.parametrize("action", [5, -1, 1.5, "skip"])
def test_an_action_outside_the_space_is_an_error(action: Any) -> None:
    env = nas_envs.ArchitectureEnv(objective=gene_sum)
    env.reset()
    with pytest.raises(ConfigError, match=r"is outside Discrete\(5\)"):
        env.step(action)


@pytest.mark.parametrize("make", [nas_envs.ArchitectureEnv, nas_envs.VectorArchitectureEnv])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "objective=None .* pass a function"),
        ({"objective": 3}, "objective=3 "),
        ({"objective": gene_sum, "space": "nasbench102"}, "did you mean 'nasbench201'"),
        ({"objective": gene_sum, "cellz": 2}, "cellz"),
        ({"objective": gene_sum, "cells": 0}, "cells"),
        ({"objective": gene_sum, "shape": ImageShape(1, 2, 2, 10)}, "too small"),
    ],
)
def test_bad_arguments_are_one_clear_line(make: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        make(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        (lambda _: [], "returned 0 rewards for 1 architectures"),
        (lambda _: [1.0, 2.0], "returned 2 rewards for 1 architectures"),
        (lambda _: 1.0, "must return a sequence of numbers, got 1.0"),
        (lambda _: [None], "must return a sequence of numbers"),
        (lambda _: ["high"], "must return a sequence of numbers"),
    ],
)
def test_an_objective_that_does_not_fit_is_explained(objective: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        masked_walk(gym.make(IDS[0], objective=objective), np.random.default_rng(0))


def test_a_finished_space_is_used_as_it_is_and_takes_no_options() -> None:
    space = nas_envs.ArchitectureEnv(objective=gene_sum, shape=ImageShape(1, 8, 8, 10), cells=2, channels=4).space
    assert nas_envs.ArchitectureEnv(space, gene_sum).space is space
    with pytest.raises(ConfigError, match="cells: options go with the name of a space"):
        nas_envs.ArchitectureEnv(space, gene_sum, cells=1)
