"""A small search, its uninterrupted result, and ways to stop another like it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import nas_engine as ne
from nas_engine.config import load_config
from nas_engine.job import Job
from nas_engine.store import RunStore
from nas_engine.types import Trial

SETTINGS: dict[str, Any] = {
    "space.channels": 4,
    "evaluations": 12,
    "proposals_per_step": 4,
    "evaluator.epochs": 2,
    "evaluator.calibration_images": 64,
    "training.epochs": 2,
    "retrain.candidates": 2,
    "retrain.random": 2,
    "latency.repeats": 3,
    "export.formats": ["state_dict"],
    "seed": 5,
}


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A search of a few seconds on 500 of the digits, without the folder of the run."""
    digits, file = load_digits(), tmp_path_factory.mktemp("data") / "digits.npz"
    images, labels = digits.images, digits.target
    np.savez(file, x_train=images[:400], y_train=labels[:400], x_test=images[400:500], y_test=labels[400:500])
    return {**SETTINGS, "data": str(file)}


@pytest.fixture(scope="session")
def as_arguments() -> Callable[[dict[str, Any]], list[str]]:
    """Writes settings as options of the command line."""
    return lambda settings: [
        f"--{name}={value if name == 'data' else json.dumps(value)}" for name, value in settings.items()
    ]


@pytest.fixture(scope="session")
def uninterrupted(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> ne.SearchResult:
    folder = tmp_path_factory.mktemp("whole") / "run"
    return Job.start(load_config(overrides={**settings, "run": str(folder)})).run()


@pytest.fixture(scope="session")
def facts() -> Callable[[list[Trial]], list[tuple[Any, ...]]]:
    """What of trials must not depend on interruptions: all but the clock."""

    def of(trials: list[Trial]) -> list[tuple[Any, ...]]:
        return [
            (t.number, t.architecture, t.fidelity, t.phase, t.step, t.cached, dict(t.outcome.values), repr(t.reward))
            for t in trials
        ]

    return of


@pytest.fixture(scope="session")
def assert_same(facts: Callable[[list[Trial]], list[tuple[Any, ...]]]) -> Callable[..., None]:
    """Checks that a resumed search is the one that was not interrupted."""

    def check(resumed: ne.SearchResult, whole: ne.SearchResult) -> None:
        assert facts(resumed.trials) == facts(whole.trials)
        assert resumed.best.architecture == whole.best.architecture
        assert resumed.best.metrics["test_accuracy"] == whole.best.metrics["test_accuracy"]
        assert (resumed.run / "export" / "manifest.json").exists()

    return check


@pytest.fixture(scope="session")
def stop_after_next_write() -> Callable[[Job], None]:
    """Asks a job to stop as soon as it has prepared, made a step or trained a network."""

    def ask(job: Job) -> None:
        write = job.context.events.write

        def stop(event: str, **values: Any) -> None:
            write(event, **values)
            if event in {"prepared", "step", "trained"}:
                job.context.stop_requested = True

        job.context.events.write = stop  # type: ignore[method-assign]

    return ask


@pytest.fixture
def unfinished(uninterrupted: ne.SearchResult, tmp_path: Path) -> Callable[..., Path]:
    """Copies the finished run to a folder; some facts about the run as a whole are not there yet."""

    def copy(*lacking: str) -> Path:
        run = shutil.copytree(uninterrupted.run, tmp_path / "run")
        with RunStore.open(run) as store:
            for key in lacking:
                store.set_meta(key, None)
        return run

    return copy
