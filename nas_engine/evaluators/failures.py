"""Turns what went wrong in one evaluation into data."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

from nas_engine.types import Failure, FailureKind, Metrics, Outcome

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


def guarded(evaluation: Callable[[], Metrics]) -> Outcome:
    """The metrics that `evaluation` returns, or the failure that its exception stands for.

    KeyboardInterrupt (and with it SearchInterrupted) passes through: it is no fault of an architecture.
    """
    started = time.perf_counter()
    try:
        return evaluation()
    except Exception as error:
        return as_failure(error, time.perf_counter() - started)


def as_failure(error: Exception, seconds: float) -> Failure:
    """The failure that `error` stands for, with its traceback.

    MemoryError and torch's allocation errors are ``oom``, FloatingPointError is ``nan``, TimeoutError is ``timeout``,
    all else is ``error``.

    Args:
        error: what the evaluation raised.
        seconds: how long it took until then.
    """
    message = " ".join(str(error).split()) or type(error).__name__
    return Failure(_kind(error), message, "".join(traceback.format_exception(error)), seconds)


def _kind(error: Exception) -> FailureKind:
    # torch has no exception of its own for a CPU allocation that fails: a RuntimeError whose text says so.
    if isinstance(error, MemoryError) or any(text in str(error).lower() for text in _OUT_OF_MEMORY):
        return FailureKind.OOM
    if isinstance(error, FloatingPointError):
        return FailureKind.NAN
    if isinstance(error, TimeoutError):
        return FailureKind.TIMEOUT
    return FailureKind.ERROR
