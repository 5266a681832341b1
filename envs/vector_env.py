"""Many architecture environments stepped by one native call; behaves as a SyncVectorEnv of `ArchitectureEnv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from nas_envs.architecture_env import (
    DEFAULT_SHAPE,
    Objective,
    checked_rewards,
    gym_spaces,
    require_objective,
    resolve_space,
)

from nas_engine.errors import ConfigError, nearest_hint
from nas_engine.ops.env_step import Autoreset, EnvBuffers, env_reset, env_step
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, ImageShape

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
ObjectArray = npt.NDArray[np.object_]
StepResult = tuple[FloatArray, npt.NDArray[np.float64], BoolArray, BoolArray, dict[str, Any]]


class VectorArchitectureEnv(gym.vector.VectorEnv[FloatArray, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """Choose `num_envs` architectures at once.

    Actions, observations, rewards, infos and episode ends are those of `ArchitectureEnv`, batched as Gymnasium's
    SyncVectorEnv batches them; see there. What differs:

    * The objective is called once a step, with all architectures that were completed in it.
    * `action_masks()` is bool [num_envs, max_choices].

    | Argument | Default | Meaning |
    |---|---|---|
    | ``num_envs`` | 1 | number of environments |
    | ``autoreset_mode`` | ``NEXT_STEP`` | when an ended episode starts again; any of Gymnasium's `AutoresetMode` |
    | ``copy`` | True | return copies of the observations; False returns one buffer, overwritten by the next step |
    | others | | as in `ArchitectureEnv` |
    """

    def __init__(
        self,
        num_envs: int = 1,
        space: SearchSpace | str = "nasbench201",
        objective: Objective | None = None,
        shape: ImageShape = DEFAULT_SHAPE,
        *,
        invalid_reward: float = -1.0,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        **space_options: Any,
    ) -> None:
        """See the class for the arguments.

        Raises:
            ConfigError: an argument is not allowed.
        """
        if num_envs < 1:
            raise ConfigError(f"num_envs={num_envs} is not allowed: at least 1")
        self.num_envs = num_envs
        self.space = resolve_space(space, shape, space_options)
        self.objective = require_objective(objective)
        self.invalid_reward = float(invalid_reward)
        self.copy = copy
        mode = _autoreset_mode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": mode}
        self.single_observation_space, self.single_action_space = gym_spaces(self.space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._autoreset = Autoreset[mode.name]
        self._keys = _KeyWriter(self.space)
        self._buffers = EnvBuffers.allocate(num_envs, self.space.diagram.transitions, self.space.diagram.choices)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: accepted for the interface; nothing in these environments is random.
            options: ``{"reset_mask": bool [num_envs]}`` resets only some environments.

        Raises:
            NativeError: the reset mask has the wrong dtype or shape.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        which = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=np.bool_))
        env_reset(self._buffers, which)
        masks = self._buffers.masks & which[:, None]
        return self._observations(), {"action_mask": masks.view(np.int8), "_action_mask": which.copy()}

    def step(self, actions: npt.NDArray[np.int64]) -> StepResult:
        """Take one choice in every environment.

        Raises:
            NativeError: the actions have the wrong shape, one is outside the action space, or an episode is over and
                autoreset is disabled.
            ConfigError: the objective did not return one number for each architecture.
        """
        buffers = self._buffers
        env_step(buffers, _as_int64(actions), self._autoreset)
        rewards = np.where(buffers.invalid, self.invalid_reward, 0.0)
        infos: dict[str, Any] = {
            "action_mask": buffers.masks.view(np.int8).copy(),
            "_action_mask": np.ones(self.num_envs, dtype=np.bool_),
        }
        terminated = buffers.terminated.copy()
        if terminated.any():
            ended = self._end_infos(rewards)
            infos.update(self._final_infos(ended) if self._autoreset is Autoreset.SAME_STEP else ended)
        return self._observations(), rewards, terminated, np.zeros(self.num_envs, dtype=np.bool_), infos

    def action_masks(self) -> BoolArray:
        """Bool [num_envs, max_choices]: the choices open now."""
        return self._buffers.masks.copy()

    def _observations(self) -> FloatArray:
        return self._buffers.observations.copy() if self.copy else self._buffers.observations

    def _end_infos(self, rewards: npt.NDArray[np.float64]) -> dict[str, Any]:
        """What the episodes that just ended report; writes the rewards of complete architectures."""
        buffers = self._buffers
        infos: dict[str, Any] = {}
        complete = buffers.terminated & ~buffers.invalid
        if buffers.invalid.any():
            infos.update(invalid_action=buffers.invalid.copy(), _invalid_action=buffers.invalid.copy())
        if complete.any():
            genes = (buffers.final_genes if self._autoreset is Autoreset.SAME_STEP else buffers.genes)[complete]
            architectures = [Architecture(self.space.name, row) for row in zip(*genes.T.tolist(), strict=True)]
            rewards[complete] = checked_rewards(self.objective, architectures, self.invalid_reward)
            keys = np.full(self.num_envs, None, dtype=object)
            keys[complete] = self._keys.write(genes)
            infos.update(architecture=keys, _architecture=complete)
        return infos

    def _final_infos(self, ended: dict[str, Any]) -> dict[str, Any]:
        """The infos of ended episodes where the next episode has begun already, so that the masks are its own."""
        terminated = self._buffers.terminated
        closed = np.zeros(self._buffers.masks.shape, dtype=np.int8)
        observations = np.full(self.num_envs, None, dtype=object)
        rows = self._buffers.final_observations[terminated]
        observations[terminated] = np.fromiter(rows, dtype=object, count=len(rows))
        final = {"action_mask": closed, "_action_mask": terminated.copy(), **ended}
        return {
            "final_obs": observations,
            "_final_obs": terminated.copy(),
            "final_info": final,
            "_final_info": terminated.copy(),
        }


class _KeyWriter:
    """Writes `Architecture.key` for many rows of genes at once: one by one they cost most of a step."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space.name
        self._one_digit = max(space.diagram.choices) <= 10
        zeros, ones = (
            np.array([Architecture(space.name, (gene,) * len(space.decisions)).key]).view(np.uint32) for gene in (0, 1)
        )
        self._zeros = zeros  # the code points of the key whose genes are all 0
        self._digits = np.flatnonzero(zeros != ones)  # where its genes stand

    def write(self, genes: npt.NDArray[np.int64]) -> ObjectArray:
        """The keys, str [rows], of `genes` [rows, decisions]."""
        if not self._one_digit:
            return np.array([Architecture(self._space, tuple(row)).key for row in genes.tolist()], dtype=object)
        text = np.repeat(self._zeros[None], len(genes), axis=0)
        text[:, self._digits] += genes.astype(np.uint32)
        return text.view(f"U{len(self._zeros)}")[:, 0].astype(object)


def _as_int64(actions: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    # Agents hand over int32 or strided actions; only integers are converted, so that 0.5 is refused and not cut to 0.
    array = np.asarray(actions)
    return np.ascontiguousarray(array, dtype=np.int64 if array.dtype.kind in "iu" else None)


def _autoreset_mode(value: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(value)
    except ValueError as error:
        hint = nearest_hint(str(value), [mode.value for mode in AutoresetMode])
        raise ConfigError(f"unknown autoreset_mode {value!r}: {hint}") from error
