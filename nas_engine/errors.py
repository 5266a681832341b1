"""Errors that a user can act on: each message holds the value, what is allowed, and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NasEngineError(Exception):
    """Base of every error this package raises on purpose; the CLI prints it in one line and exits with 2."""


class ConfigError(NasEngineError):
    """Raised when a setting, an option or an architecture text is not allowed."""


class DataError(NasEngineError):
    """Raised when a data set cannot be read or cannot be used for a search."""


class StoreError(NasEngineError):
    """Raised when a run folder cannot be created, opened or continued."""


class InfeasibleError(NasEngineError):
    """Raised when no architecture of the space meets the constraints."""


class NativeError(NasEngineError):
    """Raised when the native module is missing where it is required, or refuses its inputs."""


class ExportError(NasEngineError):
    """Raised when an exported network does not reload or does not agree with the trained one."""


class MissingExtraError(NasEngineError):
    """Raised when a feature needs a package that is not installed; names the pip extra that brings it."""


class SearchInterrupted(KeyboardInterrupt):
    """Raised when the user asked to stop: everything is saved. Like Ctrl-C itself it is no fault of an evaluation."""


def nearest_hint(value: str, allowed: Iterable[str]) -> str:
    """Say which names are allowed and which of them `value` was probably meant to be.

    Args:
        value: the text the user gave.
        allowed: the valid names.

    Returns:
        For example ``did you mean 'ppo'? Allowed: ppo, random, reinforce``.
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(names) or 'nothing'}"
