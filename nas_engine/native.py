"""Finds the native module `nas_engine._C`, says what it can do, and decides when the references run instead."""

from __future__ import annotations

import functools
import importlib
import logging
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from nas_engine.errors import NativeError

INTERFACE = 7
"""Number of the calling convention between `nas_engine.ops` and `_C`; `csrc/module.cpp` holds the same number."""

_REBUILD = "rebuild it: pip install --force-reinstall --no-deps nas-engine (in a clone: pip install -e . --no-deps)"
_logger = logging.getLogger(__name__)


def module() -> ModuleType | None:
    """The native module, or None where the references must run instead.

    The first call that finds no usable module logs one warning with the reason.

    Raises:
        NativeError: there is none and ``NAS_ENGINE_REQUIRE_NATIVE=1`` is set.
    """
    found, problem = _load()
    if found is None:
        if os.environ.get("NAS_ENGINE_REQUIRE_NATIVE") == "1":
            raise NativeError(f"NAS_ENGINE_REQUIRE_NATIVE=1 is set, but {problem}")
        _warn_once(problem)
    return found


def available() -> bool:
    """Whether a usable native module is installed. Never warns and never raises."""
    return _load()[0] is not None


def problem() -> str:
    """Why the native module cannot be used and what to do about it; empty where it can."""
    return _load()[1]


def capabilities() -> dict[str, Any]:
    """What the native module can do, for `nas-engine doctor`.

    Returns:
        ``available``, ``problem`` (empty if none), ``required`` (by the environment variable) and, where the module
        is available: ``file``, ``compiler``, ``openmp`` (threads it may use, 0 without OpenMP), ``cuda`` (toolkit
        version, empty without CUDA), ``cuda_devices`` (usable now) and ``cpu_features``.
    """
    found, problem = _load()
    state = {
        "available": found is not None,
        "problem": problem,
        "required": os.environ.get("NAS_ENGINE_REQUIRE_NATIVE") == "1",
    }
    return state if found is None else {**state, "file": found.__file__, **found.capabilities()}


@functools.cache
def _load() -> tuple[ModuleType | None, str]:
    try:
        found = importlib.import_module("nas_engine._C")
    except ImportError as error:
        return None, _explain(error)
    number = getattr(found, "INTERFACE", None)
    if number != INTERFACE:
        return None, f"{found.__file__} is of another version (interface {number}, needed {INTERFACE}); {_REBUILD}"
    return found, ""


def _explain(error: ImportError) -> str:
    files = sorted(path.name for path in Path(__file__).parent.glob("_C.*") if path.suffix in {".so", ".pyd"})
    if not files:
        return f"the native module is not installed (a build with NAS_ENGINE_BUILD=none has none); {_REBUILD}"
    if isinstance(error, ModuleNotFoundError):
        return f"{', '.join(files)} was built for another Python or platform; {_REBUILD}"
    return f"{', '.join(files)} does not load ({error}); {_REBUILD}"


@functools.cache
def _warn_once(problem: str) -> None:
    _logger.warning("The slower Python references run: %s", problem)
