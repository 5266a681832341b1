"""Gymnasium environments over the search spaces of nas_engine; importing them registers their ids."""

from __future__ import annotations

from nas_envs.architecture_env import ArchitectureEnv, Objective
from nas_envs.registration import register_environments
from nas_envs.vector_env import VectorArchitectureEnv

__all__ = ["ArchitectureEnv", "Objective", "VectorArchitectureEnv", "register_environments"]

# Gymnasium imports the module before the colon of "nas_envs:NASBench201-v0" for exactly this.
register_environments()
