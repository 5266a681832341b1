"""The native vector environment does what a SyncVectorEnv of the reference does, field by field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import nas_envs
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from nas_engine import native
from nas_engine.errors import ConfigError, NativeError
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.types import Architecture

IDS = ["nas_envs:NASBench201-v0", "nas_envs:MobileNet-v0"]


def odd_scores(architectures: Sequence[Architecture]) -> list[float]:
    """Different for each architecture, and NaN for some."""
    scores = [sum(gene * 0.37**position for position, gene in enumerate(a.genes)) for a in architectures]
    return [float("nan") if sum(a.genes) % 5 == 0 else score for a, score in zip(architectures, scores, strict=True)]


def assert_same(one: Any, other: Any, path: str) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}[{key!r}]")
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), path
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            np.testing.assert_array_equal(left, right, err_msg=f"{path}[{index}]")
    else:
        assert one == other, path


def pair(env_id: str, num_envs: int, mode: AutoresetMode) -> tuple[Any, SyncVectorEnv]:
    vector = gym.make_vec(env_id, num_envs=num_envs, objective=odd_scores, autoreset_mode=mode)
    single = [lambda: gym.make(env_id, objective=odd_scores) for _ in range(num_envs)]
    return vector, SyncVectorEnv(single, autoreset_mode=mode)


def choose(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mostly open choices, some masked ones, and anything where an episode has just ended."""
    masks = np.where(masks.any(axis=1, keepdims=True) & (rng.random((len(masks), 1)) < 0.95), masks, True)
    return np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])


@pytest.mark.parametrize("use_native", [True, False])
@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("env_id", IDS)
def test_equals_sync_vector_env(
    monkeypatch: pytest.MonkeyPatch, env_id: str, mode: AutoresetMode, use_native: bool
) -> None:
    if not use_native:
        monkeypatch.setattr(native, "module", lambda: None)
    elif not native.available():
        pytest.skip(native.problem())
    one, other = pair(env_id, 4, mode)
    assert one.metadata["autoreset_mode"] == other.metadata["autoreset_mode"]
    for name in ("action_space", "observation_space", "single_action_space", "single_observation_space"):
        assert getattr(one, name) == getattr(other, name), name
    assert_same(one.reset(seed=3)[0], other.reset(seed=3)[0], "observations")
    rng = np.random.default_rng(0)
    endings = 0
    for step in range(150):
        masks = one.action_masks()
        np.testing.assert_array_equal(masks, np.stack(other.call("action_masks")))
        actions = choose(masks, rng)
        names = ("observations", "rewards", "terminations", "truncations", "infos")
        results = dict(zip(names, one.step(actions), strict=True))
        expected = dict(zip(names, other.step(actions), strict=True))
        assert_same(results, expected, f"step {step}: ")
        endings += int(results["terminations"].sum())
        if mode is AutoresetMode.DISABLED and results["terminations"].any():
            again = [env.reset(options={"reset_mask": results["terminations"].copy()}) for env in (one, other)]
            assert_same(again[0][0], again[1][0], f"reset {step}: observations")
            assert_same(again[0][1], again[1][1], f"reset {step}: infos")
    assert endings > 20


@pytest.mark.parametrize("widths", [1, 10, 11])
def test_keys_of_infos_are_those_of_the_architectures(widths: int) -> None:
    """With 11 choices a gene may have two digits, with one the only architecture is all zeros."""
    scored: list[Architecture] = []

    def remember(architectures: Sequence[Architecture]) -> list[float]:
        scored.extend(architectures)
        return [0.0] * len(architectures)

    space = BlockSpace(options=BlockSpaceOptions(blocks=3, widths=widths))
    env = nas_envs.VectorArchitectureEnv(num_envs=widths + 1, space=space, objective=remember)
    env.reset()
    for first in range(3):
        *_, infos = env.step((np.arange(widths + 1) + first) % widths)
    expected = [(gene % widths, (gene + 1) % widths, (gene + 2) % widths) for gene in range(widths + 1)]
    assert [architecture.genes for architecture in scored] == expected
    assert infos["architecture"].tolist() == [architecture.key for architecture in scored]
    assert all(type(key) is str for key in infos["architecture"])
    assert all(type(gene) is int for architecture in scored for gene in architecture.genes)


def test_the_objective_is_called_once_a_step_with_all_that_ended() -> None:
    calls: list[int] = []

    def counted(architectures: Sequence[Architecture]) -> list[float]:
        calls.append(len(architectures))
        return [0.0] * len(architectures)

    env = nas_envs.VectorArchitectureEnv(num_envs=8, objective=counted)
    env.reset()
    for _ in range(6):
        env.step(np.full(8, 3))
    assert calls == [8]


def test_returned_arrays_are_not_overwritten_by_the_next_step() -> None:
    env = nas_envs.VectorArchitectureEnv(num_envs=2, objective=odd_scores, autoreset_mode="SameStep")
    env.reset()
    kept, copies = [], []
    for _ in range(14):
        observation, reward, terminated, _, infos = env.step(np.array([1, 3]))
        kept.append((observation, reward, terminated, infos["action_mask"], infos.get("final_obs")))
        copies.append([None if item is None else np.array(item.tolist()) for item in kept[-1]])
    for row, copy in zip(kept, copies, strict=True):
        for item, expected in zip(row, copy, strict=True):
            assert item is None or np.array_equal(np.array(item.tolist()), expected)


def test_without_copying_there_is_one_buffer() -> None:
    env = nas_envs.VectorArchitectureEnv(num_envs=2, objective=odd_scores, copy=False)
    first, _ = env.reset()
    second, *_ = env.step(np.array([1, 3]))
    assert first is second


@pytest.mark.parametrize(
    ("actions", "says"),
    [([0, 5], r"actions\[1\] = 5 is outside 0..4"), ([0], r"actions must have shape \[2\], got \[1\]")],
)
def test_actions_outside_the_space_are_errors(actions: list[int], says: str) -> None:
    env = nas_envs.VectorArchitectureEnv(num_envs=2, objective=odd_scores)
    env.reset()
    with pytest.raises(NativeError, match=says):
        env.step(np.array(actions))


def test_actions_that_are_no_integers_are_errors() -> None:
    env = nas_envs.VectorArchitectureEnv(num_envs=2, objective=odd_scores)
    env.reset()
    with pytest.raises(NativeError, match="actions must have dtype int64, got float64"):
        env.step(np.array([0.5, 1.0]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"num_envs": 0}, "num_envs=0"), ({"autoreset_mode": "SameStap"}, "did you mean 'SameStep'")],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        nas_envs.VectorArchitectureEnv(objective=odd_scores, **arguments)
