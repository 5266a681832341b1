"""The environment ids that `gym.make("nas_envs:<id>", objective=f)` knows."""

from __future__ import annotations

import gymnasium as gym

SPACE_OF_ID = {"NASBench201-v0": "nasbench201", "MobileNet-v0": "mobilenet"}
"""Environment id to name of the search space; a change of behaviour gets a new version number."""


def register_environments() -> None:
    """Register each id that Gymnasium does not know yet, single and vectorised."""
    for env_id, space in SPACE_OF_ID.items():
        if env_id not in gym.registry:
            gym.register(
                id=env_id,
                entry_point="nas_envs.architecture_env:ArchitectureEnv",
                vector_entry_point="nas_envs.vector_env:VectorArchitectureEnv",
                kwargs={"space": space},
            )
