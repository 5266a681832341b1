"""The readable reference environment: one episode walks the decisions of a search space and builds one architecture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from nas_engine import registry
from nas_engine.errors import ConfigError
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, ImageShape

Objective = Callable[[Sequence[Architecture]], Sequence[float]]
"""Architectures to rewards, one each; higher is better."""

DEFAULT_SHAPE = ImageShape(channels=3, height=32, width=32, classes=10)


class ArchitectureEnv(gym.Env[npt.NDArray[np.float32], np.int64]):
    """Choose an architecture, one decision a step.

    ## Action space

    ``Discrete(max_choices)``: the choice for the current decision.

    | Action | Meaning |
    |---|---|
    | 0 .. choices of the decision - 1 | take this choice of ``space.decisions[position]`` |
    | a choice that the mask excludes | end the episode with ``invalid_reward`` |

    ``action_masks()`` gives the choices open now as bool [max_choices] (what sb3-contrib's MaskablePPO asks for).
    ``info["action_mask"]`` is the same as int8 (what ``env.action_space.sample(mask)`` takes).

    ## Observation space

    ``Box(0, 1, [decisions + sum of all choices], float32)``:

    | Index | Meaning |
    |---|---|
    | 0 .. decisions - 1 | the current decision, one-hot; all zeros once the architecture is complete |
    | then, for each decision, one value a choice | the choice taken, one-hot; zeros where none is taken yet |

    ## Rewards

    0 until the last decision, then ``objective([architecture])[0]``; ``invalid_reward`` where that is NaN or infinite,
    or where an action was masked. With gamma = 1 the return is the score of the architecture.

    ## Starting state and episode end

    An episode starts before the first decision; nothing about it is random. It terminates after the last decision, and
    then ``info["architecture"]`` is the key of the architecture, for example ``nasbench201:3-1-0-4-2-2``. It also
    terminates at a masked action, and then ``info["invalid_action"]`` is True. It is never truncated.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | ``space`` | ``"nasbench201"`` | a `SearchSpace`, or the name of a registered one |
    | ``objective`` | required | architectures to rewards |
    | ``shape`` | 3 x 32 x 32, 10 classes | image shape of a space given by name |
    | ``invalid_reward`` | -1.0 | reward of a masked action or a failed evaluation; below any other reward |
    | others | | options of a space given by name, for example ``cells=1`` |

    ## Version history

    * v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium declares it without ClassVar)

    def __init__(
        self,
        space: SearchSpace | str = "nasbench201",
        objective: Objective | None = None,
        shape: ImageShape = DEFAULT_SHAPE,
        *,
        invalid_reward: float = -1.0,
        **space_options: Any,
    ) -> None:
        """See the class for the arguments.

        Raises:
            ConfigError: no objective, an unknown space or an unknown option of the space.
        """
        self.space = resolve_space(space, shape, space_options)
        self.objective = require_objective(objective)
        self.invalid_reward = float(invalid_reward)
        self.observation_space, self.action_space = gym_spaces(self.space)
        self._genes: list[int] = []
        self._ended = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Forget all decisions. `options` are ignored."""
        super().reset(seed=seed)
        self._genes = []
        self._ended = False
        return self._observation(), self._info()

    def step(self, action: np.int64 | int) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one choice.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over.
            ConfigError: `action` is outside the action space, or the objective did not return one number.
        """
        if self._ended:
            raise gym.error.ResetNeeded("the episode is over: call reset() before the next step()")
        if not self.action_space.contains(action):
            raise ConfigError(f"action {action!r} is outside {self.action_space}; masked choices end the episode")
        if not self.action_masks()[action]:
            self._ended = True
            return self._observation(), self.invalid_reward, True, False, {**self._info(), "invalid_action": True}
        self._genes.append(int(action))
        if len(self._genes) < len(self.space.decisions):
            return self._observation(), 0.0, False, False, self._info()
        self._ended = True
        architecture = Architecture(self.space.name, tuple(self._genes))
        [reward] = checked_rewards(self.objective, [architecture], self.invalid_reward)
        return self._observation(), reward, True, False, {**self._info(), "architecture": architecture.key}

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Bool [max_choices]: the choices open now; none once the episode is over."""
        mask = np.zeros(self.space.diagram.transitions.shape[1], dtype=np.bool_)
        if not self._ended:
            allowed = self.space.mask(self._genes)
            mask[: len(allowed)] = allowed
        return mask

    def _observation(self) -> npt.NDArray[np.float32]:
        decisions = self.space.decisions
        position = np.zeros(len(decisions), dtype=np.float32)
        if len(self._genes) < len(decisions):
            position[len(self._genes)] = 1
        chosen = [np.zeros(len(decision.choices), dtype=np.float32) for decision in decisions]
        for one_hot, gene in zip(chosen, self._genes, strict=False):
            one_hot[gene] = 1
        return np.concatenate([position, *chosen])

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.action_masks().astype(np.int8)}


def resolve_space(space: SearchSpace | str, shape: ImageShape, options: dict[str, Any]) -> SearchSpace:
    """The space itself, or a fresh one of that name.

    Raises:
        ConfigError: the name or an option is unknown, or options come with a space that is made already.
    """
    if isinstance(space, SearchSpace):
        if options:
            raise ConfigError(f"{', '.join(options)}: options go with the name of a space, not with a finished space")
        return space
    factory: Any = registry.resolve("space", space)
    try:
        made: SearchSpace = factory(shape, factory.Options(**options))
    except ValueError as error:  # pydantic's ValidationError is one; its text has several lines
        raise ConfigError(
            f"options {options} do not suit the space {space!r}: {' '.join(str(error).split())}"
        ) from error
    return made


def require_objective(objective: Objective | None) -> Objective:
    """The objective, checked to be one.

    Raises:
        ConfigError: it is missing or cannot be called.
    """
    if not callable(objective):
        raise ConfigError(
            f"objective={objective!r} cannot score architectures: pass a function from a list of architectures to a "
            "list of rewards, for example gym.make('nas_envs:NASBench201-v0', objective=score)"
        )
    return objective


def gym_spaces(space: SearchSpace) -> tuple[gym.spaces.Box[np.float32], gym.spaces.Discrete[np.int64]]:
    """Observation and action space of one environment over `space`; see `ArchitectureEnv`."""
    choices = [len(decision.choices) for decision in space.decisions]
    observations = gym.spaces.Box(0.0, 1.0, (len(choices) + sum(choices),), np.float32)
    return observations, gym.spaces.Discrete(max(choices))


def checked_rewards(objective: Objective, architectures: Sequence[Architecture], invalid_reward: float) -> list[float]:
    """Rewards of `architectures`, with `invalid_reward` in the place of NaN and infinities.

    Raises:
        ConfigError: the objective did not return one number for each architecture.
    """
    returned = objective(architectures)
    try:
        rewards = [float(reward) for reward in returned]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the objective must return a sequence of numbers, got {returned!r}") from error
    if len(rewards) != len(architectures):
        raise ConfigError(f"the objective returned {len(rewards)} rewards for {len(architectures)} architectures")
    return [reward if math.isfinite(reward) else invalid_reward for reward in rewards]
