"""Neural architecture search: RL controllers, weight-sharing supernets, hardware-aware rewards, checked exports.

The public names below are imported on first use, so that ``import nas_engine`` alone costs milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nas_engine import objectives
    from nas_engine.api import export, resume, search
    from nas_engine.config import SearchConfig, load_config
    from nas_engine.errors import NasEngineError
    from nas_engine.registry import register
    from nas_engine.result import SearchResult
    from nas_engine.types import Architecture, Decision, Failure, Fidelity, ImageShape, Metrics, Trial

_HOME = {
    "search": "nas_engine.api",
    "resume": "nas_engine.api",
    "export": "nas_engine.api",
    "SearchConfig": "nas_engine.config",
    "load_config": "nas_engine.config",
    "NasEngineError": "nas_engine.errors",
    "register": "nas_engine.registry",
    "SearchResult": "nas_engine.result",
    **dict.fromkeys(
        ("Architecture", "Decision", "Failure", "Fidelity", "ImageShape", "Metrics", "Trial"), "nas_engine.types"
    ),
}

__all__ = [
    "Architecture",
    "Decision",
    "Failure",
    "Fidelity",
    "ImageShape",
    "Metrics",
    "NasEngineError",
    "SearchConfig",
    "SearchResult",
    "Trial",
    "__version__",
    "export",
    "load_config",
    "objectives",
    "register",
    "resume",
    "search",
]


def __getattr__(name: str) -> Any:
    if name == "objectives":
        return importlib.import_module("nas_engine.objectives")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'nas_engine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
