"""A run that is killed or interrupted in any phase goes on: nothing is evaluated twice, the result is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nas_engine as ne


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "phase"),
    [("prepared", None), ("step", None), ("trained", "retrain"), ("trained", "baseline"), ("phase_started", "export")],
)
def test_kill_minus_nine_in_any_phase(
    tmp_path: Path,
    event: str,
    phase: str | None,
    uninterrupted: ne.SearchResult,
    settings: dict[str, Any],
    assert_same: Callable[..., None],
    as_arguments: Callable[[dict[str, Any]], list[str]],
) -> None:
    folder = tmp_path / "run"
    options = as_arguments(settings)
    command = [sys.executable, "-m", "nas_engine", "search", *options, f"--run={folder}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _wait_for_event(folder / "search.jsonl", event, phase, process)
        os.kill(process.pid, signal.SIGKILL)
    assert_same(ne.resume(folder), uninterrupted)


def _wait_for_event(log: Path, event: str, phase: str | None, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        if any(e["event"] == event and phase in (None, e.get("phase")) for e in events):
            return
        time.sleep(0.01)
    pytest.fail(f"the run ended ({process.poll()}) before the event {event!r} was seen")


@pytest.mark.slow
def test_one_interrupt_saves_and_says_how_to_resume(
    tmp_path: Path,
    uninterrupted: ne.SearchResult,
    settings: dict[str, Any],
    assert_same: Callable[..., None],
    as_arguments: Callable[[dict[str, Any]], list[str]],
) -> None:
    folder = tmp_path / "run"
    options = as_arguments(settings)
    command = [sys.executable, "-m", "nas_engine", "search", *options, f"--run={folder}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        _wait_for_event(folder / "search.jsonl", "prepared", None, process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1].endswith(f"continue with 'python -m nas_engine resume {folder}'")
    assert "Traceback" not in said
    assert_same(ne.resume(folder), uninterrupted)
