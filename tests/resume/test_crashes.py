"""A run that crashes at any write goes on, and its result is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nas_engine as ne
from nas_engine.config import load_config
from nas_engine.job import Job
from nas_engine.store import RunStore


class _PowerCutError(BaseException):
    """Stands for a crash between two writes."""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["append", "save_checkpoint"])
def test_a_crash_before_or_after_any_write(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    uninterrupted: ne.SearchResult,
    settings: dict[str, Any],
    assert_same: Callable[..., None],
) -> None:
    original: Callable[..., None] = getattr(RunStore, method)
    for after in (False, True):
        folder = tmp_path / f"run-{after}"
        job = Job.start(load_config(overrides={**settings, "run": str(folder)}))
        writes = 0
        while True:  # let one more write through each time
            limit, calls = writes + 1, 0

            def crash(self: RunStore, *arguments: Any, limit: int = limit, after: bool = after) -> None:
                nonlocal calls
                calls += 1
                if calls < limit or after:
                    original(self, *arguments)
                if calls >= limit:
                    raise _PowerCutError

            monkeypatch.setattr(RunStore, method, crash)
            try:
                job.run()
            except _PowerCutError:
                monkeypatch.setattr(RunStore, method, original)
                writes += 0 if after else 1
                job = Job.resume(folder)
            else:
                monkeypatch.setattr(RunStore, method, original)
                break
        assert_same(ne.SearchResult(folder), uninterrupted)
