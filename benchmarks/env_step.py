"""How fast environments are stepped, native against Python ones: python env_step.py [--quick] [--out FILE.json]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from record import Row, arguments, interleaved_seconds, median_of, rate_rows, report_goal, write_rows
from stable_baselines3.common.vec_env import DummyVecEnv

from nas_engine import native
from nas_engine.ops.env_step import EnvBuffers, env_step, env_step_reference
from nas_engine.types import Architecture

ENV_ID = "nas_envs:NASBench201-v0"
EPISODE = 7  # six decisions and the step that starts again
GOAL = 1e6  # steps a second
GOAL_FROM = 256  # environments


def no_score(architectures: Sequence[Architecture]) -> list[float]:
    """An objective that costs nothing, so that only stepping is timed."""
    return [0.0] * len(architectures)


def steps_of(env: Any, actions: Sequence[npt.NDArray[np.int64]]) -> Callable[[], object]:
    """A run of `len(actions)` steps in a vector environment of Gymnasium or Stable-Baselines3."""
    env.reset()

    def run() -> None:
        for action in actions:
            env.step(action)

    return run


def op_steps_of(
    step: Callable[[EnvBuffers, npt.NDArray[np.int64]], None], actions: Sequence[npt.NDArray[np.int64]]
) -> Callable[[], object]:
    """The same steps by the op alone, without Gymnasium's copies and infos."""
    space = gym.make(ENV_ID, objective=no_score).unwrapped.space  # type: ignore[attr-defined]
    buffers = EnvBuffers.allocate(len(actions[0]), space.diagram.transitions, space.diagram.choices)

    def run() -> None:
        for action in actions:
            step(buffers, action)

    return run


def architectures_of(actions: Sequence[npt.NDArray[np.int64]]) -> Callable[[], object]:
    """The `Architecture` objects that the same steps hand to the objective, without stepping: a floor."""
    genes = np.stack(actions[: EPISODE - 1], axis=1)

    def run() -> None:
        for _ in range(len(actions) // EPISODE):
            no_score([Architecture("nasbench201", row) for row in zip(*genes.T.tolist(), strict=True)])

    return run


def case_of(num_envs: int) -> str:
    """The rows' name of the case."""
    return f"{num_envs} environments"


def rows_of(num_envs: int, repeats: int) -> list[Row]:
    """Environment steps a second of every variant with `num_envs` environments."""
    rng = np.random.default_rng(0)
    # Whole episodes for all: those that start again within the last step have one of EPISODE - 1 steps.
    steps = EPISODE * (EPISODE - 1) * (1 if num_envs >= 256 else 3)
    actions = [rng.integers(1, 5, num_envs) for _ in range(steps)]  # choice 0 may be masked, the others never are

    def make() -> gym.Env[Any, Any]:
        return gym.make(ENV_ID, objective=no_score)

    vector = gym.make_vec(ENV_ID, num_envs=num_envs, objective=no_score)
    same_step = gym.make_vec(ENV_ID, num_envs=num_envs, objective=no_score, autoreset_mode="SameStep")
    variants = {
        "VectorArchitectureEnv": steps_of(vector, actions),
        "VectorArchitectureEnv, SAME_STEP": steps_of(same_step, actions),
        "gymnasium SyncVectorEnv": steps_of(gym.vector.SyncVectorEnv([make] * num_envs), actions),
        "SB3 DummyVecEnv": steps_of(DummyVecEnv([make] * num_envs), actions),
        "Architecture objects alone": architectures_of(actions),
        "op alone, numpy": op_steps_of(env_step_reference, actions),
    }
    if native.available():
        variants["op alone, native"] = op_steps_of(env_step, actions)
    seconds = interleaved_seconds(variants, repeats)
    return rate_rows(case_of(num_envs), seconds, steps * num_envs, "steps/s")


def main() -> None:
    """Time all variants, in turn, for a few numbers of environments."""
    options = arguments(__doc__ or "").parse_args()
    sizes = [8, GOAL_FROM] if options.quick else [1, 16, 64, 256, 1024, 4096]
    rows = [row for size in sizes for row in rows_of(size, 2 if options.quick else 7 if size <= 256 else 3)]
    write_rows(rows, options.out)
    for size in sizes:
        if size >= GOAL_FROM:
            for variant in ("VectorArchitectureEnv", "VectorArchitectureEnv, SAME_STEP"):
                rate = median_of(rows, case_of(size), variant)
                report_goal(f"{variant}, {case_of(size)}", rate, GOAL, "steps/s")


if __name__ == "__main__":
    main()
