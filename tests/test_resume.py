"""A run that is killed anywhere goes on: nothing is evaluated twice, nothing is lost, the result is the same."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import nas_engine as ne
from nas_engine.cli import main
from nas_engine.config import load_config
from nas_engine.errors import ConfigError, SearchInterrupted
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


def facts(trials: list[Trial]) -> list[tuple[Any, ...]]:
    """What must not depend on interruptions: all but the clock."""
    return [
        (t.number, t.architecture, t.fidelity, t.phase, t.step, t.cached, dict(t.outcome.values), repr(t.reward))
        for t in trials
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> ne.SearchResult:
    folder = tmp_path_factory.mktemp("whole") / "run"
    return Job.start(load_config(overrides={**SETTINGS, "run": str(folder)})).run()


def assert_same(resumed: ne.SearchResult, whole: ne.SearchResult) -> None:
    assert facts(resumed.trials) == facts(whole.trials)
    assert resumed.best.architecture == whole.best.architecture
    assert resumed.best.metrics["test_accuracy"] == whole.best.metrics["test_accuracy"]
    assert (resumed.run / "export" / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "phase"),
    [("prepared", None), ("step", None), ("trained", "retrain"), ("trained", "baseline"), ("phase_started", "export")],
)
def test_kill_minus_nine_in_any_phase(
    tmp_path: Path, uninterrupted: ne.SearchResult, event: str, phase: str | None
) -> None:
    folder = tmp_path / "run"
    options = [f"--{name}={json.dumps(value)}" for name, value in SETTINGS.items()]
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
        time.sleep(0.002)
    pytest.fail(f"the run ended ({process.poll()}) before the event {event!r} was seen")


@pytest.mark.slow
def test_one_interrupt_saves_and_says_how_to_resume(tmp_path: Path, uninterrupted: ne.SearchResult) -> None:
    folder = tmp_path / "run"
    options = [f"--{name}={json.dumps(value)}" for name, value in SETTINGS.items()]
    command = [sys.executable, "-m", "nas_engine", "search", *options, f"--run={folder}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        _wait_for_event(folder / "search.jsonl", "prepared", None, process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1].endswith(f"continue with 'python -m nas_engine resume {folder}'")
    assert "Traceback" not in said
    assert_same(ne.resume(folder), uninterrupted)


class _PowerCutError(BaseException):
    """Stands for a crash between two writes."""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["append", "save_checkpoint"])
def test_a_crash_before_or_after_any_write(
    tmp_path: Path, uninterrupted: ne.SearchResult, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    original: Callable[..., None] = getattr(RunStore, method)
    for after in (False, True):
        folder = tmp_path / f"run-{after}"
        job = Job.start(load_config(overrides={**SETTINGS, "run": str(folder)}))
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


@pytest.mark.slow
def test_a_stop_request_ends_after_the_unit_of_work(tmp_path: Path, uninterrupted: ne.SearchResult) -> None:
    folder = tmp_path / "run"
    job = Job.start(load_config(overrides={**SETTINGS, "run": str(folder)}))
    stops = 0
    while True:
        _stop_after_next_write(job)
        try:
            job.run()
        except SearchInterrupted as interruption:
            message = str(interruption)
        else:
            break
        assert f"resume {folder}" in message
        stops += 1
        assert stops < 40, "each attempt must get further"
        job = Job.resume(folder)
    assert stops > 1
    assert_same(ne.SearchResult(folder), uninterrupted)


def _stop_after_next_write(job: Job) -> None:
    write = job.context.events.write

    def stop(event: str, **values: Any) -> None:
        write(event, **values)
        if event in {"prepared", "step", "trained"}:
            job.context.stop_requested = True

    job.context.events.write = stop  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize("controller", ["ppo-model", "thompson"])
def test_a_model_is_fitted_again_to_what_is_remembered(tmp_path: Path, controller: str) -> None:
    """The models of these controllers are not saved: after an interruption the evaluations bring them back."""
    settings = {**SETTINGS, "controller": controller, "evaluations": 16, "proposals_per_step": 2, "checkpoint_every": 3}
    settings |= {"retrain.candidates": 1, "retrain.random": 1, "latency.repeats": 1}
    options = [f"--{name}={json.dumps(value)}" for name, value in settings.items()]
    with pytest.raises(SystemExit) as done:
        main(["search", *options, f"--run={tmp_path / 'whole'}"])
    assert done.value.code == 0
    whole = ne.SearchResult(tmp_path / "whole")
    searched = [trial for trial in whole.trials if trial.phase == "search"]
    assert len({trial.architecture for trial in searched}) == len(searched) == 16
    assert {trial.proposed_by for trial in searched} == {controller}

    folder = tmp_path / "resumed"
    job = Job.start(load_config(overrides={**settings, "run": str(folder)}))
    for step in (4, 6):  # neither is followed by a checkpoint
        _stop_after_step(job, step)
        with pytest.raises(SearchInterrupted):
            job.run()
        job = Job.resume(folder)
    job.run()
    assert_same(ne.SearchResult(folder), whole)


def _stop_after_step(job: Job, number: int) -> None:
    write = job.context.events.write

    def stop(event: str, **values: Any) -> None:
        write(event, **values)
        if event == "step" and values["step"] == number:
            job.context.stop_requested = True

    job.context.events.write = stop  # type: ignore[method-assign]


@pytest.mark.slow
def test_a_finished_run_is_returned_as_it_is(uninterrupted: ne.SearchResult) -> None:
    before = facts(uninterrupted.trials)
    again = ne.resume(uninterrupted.run)
    assert facts(again.trials) == before
    assert again.report == uninterrupted.report


@pytest.mark.slow
def test_a_finished_run_needs_its_data_no_more(
    tmp_path: Path, uninterrupted: ne.SearchResult, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(uninterrupted.run, tmp_path / "run")
    with RunStore.open(run) as store:
        store.set_meta("config", {**store.meta("config"), "data": str(tmp_path / "gone.npz")})
    assert ne.resume(run).report == uninterrupted.report
    with pytest.raises(SystemExit) as done:
        main(["resume", str(run)])
    assert done.value.code == 0
    assert uninterrupted.best.text in capsys.readouterr().out


def unfinished(finished: ne.SearchResult, folder: Path, *, lacking: Sequence[str]) -> Path:
    """A copy of a finished run in which some facts about the run as a whole are not there yet."""
    run = shutil.copytree(finished.run, folder)
    with RunStore.open(run) as store:
        for key in lacking:
            store.set_meta(key, None)
    return run


@pytest.mark.slow
def test_changed_data_are_noticed(tmp_path: Path, uninterrupted: ne.SearchResult) -> None:
    run = unfinished(uninterrupted, tmp_path / "run", lacking=["exported"])
    with RunStore.open(run) as store:
        data = store.meta("data")
        store.set_meta("data", {**data, "images": {**data["images"], "train": 3}})
    with pytest.raises(ConfigError, match="changed since run"):
        ne.resume(run)


@pytest.mark.slow
def test_a_recorded_failure_stands_until_another_try_is_asked_for(
    tmp_path: Path, uninterrupted: ne.SearchResult
) -> None:
    run = unfinished(uninterrupted, tmp_path / "run", lacking=["report", "exported"])
    with RunStore.open(run) as store:
        trained = store.trials(phase="baseline")[0]
        body = json.dumps({"failure": "oom", "message": "no memory", "traceback": "", "values": {}, "seconds": 1.0})
        with store._connection as connection:
            connection.execute("UPDATE trials SET outcome = ? WHERE number = ?", (body, trained.number))
    again = shutil.copytree(run, tmp_path / "again")
    assert len(ne.resume(run).trials) == len(uninterrupted.trials)
    assert trained.architecture.key not in {row["architecture"] for row in ne.SearchResult(run).report["random"]}
    *before, last = ne.resume(again, retry_failed=True).trials
    assert len(before) == len(uninterrupted.trials)
    assert (last.architecture, last.phase, last.metrics) == (trained.architecture, "baseline", last.outcome)
    assert last.outcome.values["accuracy"] == trained.outcome.values["accuracy"]


@pytest.mark.slow
def test_drawing_random_architectures_can_be_stopped(tmp_path: Path, uninterrupted: ne.SearchResult) -> None:
    run = unfinished(uninterrupted, tmp_path / "run", lacking=["report", "exported", "baseline"])
    job = Job.resume(run)
    job.context.stop_requested = True
    with pytest.raises(SearchInterrupted):
        job.run()
    assert_same(ne.resume(run), uninterrupted)


@pytest.mark.slow
def test_a_latency_is_measured_once_in_a_run_however_often_it_is_resumed(tmp_path: Path) -> None:
    settings = {**SETTINGS, "constraints": ["latency_ms <= 1000"], "run": str(tmp_path / "run")}
    job = Job.start(load_config(overrides=settings))
    while True:
        _stop_after_next_write(job)
        try:
            trials = job.run().trials
        except SearchInterrupted:
            job = Job.resume(tmp_path / "run")
        else:
            break
    latencies: dict[str, set[float]] = {}
    for trial in trials:
        latencies.setdefault(trial.architecture.key, set()).add(trial.outcome.values["latency_ms"])
    assert any(trial.phase == "retrain" for trial in trials)
    assert {key: len(values) for key, values in latencies.items()} == dict.fromkeys(latencies, 1)
    with RunStore.open_read_only(tmp_path / "run") as store:
        drawn = store.meta("baseline_costs")
    assert {key: latencies[key] for key in drawn} == {key: {costs["latency_ms"]} for key, costs in drawn.items()}


@pytest.mark.slow
def test_an_accuracy_that_nothing_reaches_is_reported_and_not_fatal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["accuracy >= 0.9999", "macs <= 1e6"]
    arguments = [f"--{name}={json.dumps(value)}" for name, value in {**SETTINGS, "retrain.random": 1}.items()]
    arguments += [f"--constraints={limit}" for limit in limits]
    with pytest.raises(SystemExit) as done:
        main(["search", *arguments, f"--run={tmp_path / 'run'}"])
    assert done.value.code == 1
    result = ne.SearchResult(tmp_path / "run")
    (line,) = result.unmet
    accuracy = result.best.metrics["validation_accuracy"]
    assert line.startswith(f"accuracy >= 0.9999 is not met: trained from scratch the winner has {accuracy:.6g} ")
    assert line in capsys.readouterr().out
    assert result.best.metrics["macs"] <= 1e6
    assert ne.resume(tmp_path / "run").unmet == [line]


@pytest.mark.slow
def test_a_run_can_be_resumed_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load_digits()
    images, labels = {"x_train": digits.images[:1200], "x_test": digits.images[1200:]}, digits.target
    np.savez(tmp_path / "digits.npz", **images, y_train=labels[:1200], y_test=labels[1200:])
    monkeypatch.chdir(tmp_path)
    Job.start(load_config(overrides={**SETTINGS, "data": "digits.npz", "run": "run"})).context.close()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Job.resume(tmp_path / "run").context.close()
    assert load_config(tmp_path / "run" / "config.yaml").data == str(tmp_path / "digits.npz")


@pytest.mark.slow
def test_changed_test_images_are_noticed(tmp_path: Path) -> None:
    digits = load_digits()
    arrays = {"x_train": digits.images[:1200], "y_train": digits.target[:1200], "y_test": digits.target[1200:]}
    np.savez(tmp_path / "digits.npz", **arrays, x_test=digits.images[1200:])
    settings = {**SETTINGS, "data": str(tmp_path / "digits.npz"), "run": str(tmp_path / "run")}
    Job.start(load_config(overrides=settings)).context.close()
    np.savez(tmp_path / "digits.npz", **arrays, x_test=16 - digits.images[1200:])
    with pytest.raises(ConfigError, match="changed since run"):
        Job.resume(tmp_path / "run")


@pytest.mark.slow
def test_an_interrupted_training_is_not_continued_with_another_recipe(
    tmp_path: Path, uninterrupted: ne.SearchResult
) -> None:
    run = shutil.copytree(uninterrupted.run, tmp_path / "run")
    interrupted = Job.resume(run)
    write = interrupted.context.store.save_checkpoint

    def stop(name: str, state: dict[str, Any]) -> None:
        write(name, state)
        interrupted.context.stop_requested = True

    interrupted.context.store.save_checkpoint = stop  # type: ignore[method-assign]
    with pytest.raises(SearchInterrupted, match=r"train .* --training.epochs 4"):
        interrupted.train(None, {"epochs": 4})
    other = Job.resume(run).train(None, {"epochs": 3, "learning_rate": 0.01})
    whole = Job.resume(shutil.copytree(uninterrupted.run, tmp_path / "whole"))
    assert (
        other["metrics"]["test_accuracy"]
        == whole.train(None, {"epochs": 3, "learning_rate": 0.01})["metrics"]["test_accuracy"]
    )
    with RunStore.open(run) as store:
        assert store.load_checkpoint("training:train:" + _fidelity_of(store, epochs=4)) is not None


def _fidelity_of(store: RunStore, epochs: int) -> str:
    names = [row[0] for row in store._connection.execute("SELECT name FROM checkpoints")]
    (found,) = [name for name in names if f"epochs={epochs}" in name]
    return found.removeprefix("training:train:")


@pytest.mark.slow
def test_what_a_run_shows_and_exports(
    tmp_path: Path, uninterrupted: ne.SearchResult, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(uninterrupted.run, tmp_path / "run")
    with RunStore.open(run) as store:
        report = store.meta("report")
        store.set_meta("report", {**report, "rank_quality": {**(report["rank_quality"] or {}), "tau": math.nan}})
        keys = [trial.architecture.key for trial in store.trials(phase="baseline")]
        assert store.meta("baseline") == keys
    with pytest.raises(SystemExit) as done:
        main(["show", str(run), "--json"])
    assert done.value.code == 0
    shown = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert shown["report"]["winner"]["architecture"] == uninterrupted.best.architecture.key
    with pytest.raises(SystemExit) as done:
        main(["export", str(run), "--format", "onnx", "--to", str(tmp_path / "deploy")])
    assert done.value.code == 0
    assert (tmp_path / "deploy" / "best.onnx").stat().st_size > 0
    shutil.rmtree(run / "weights")
    with pytest.raises(SystemExit) as done:
        main(["export", str(run)])
    assert done.value.code == 2
    assert "trains the network again" in capsys.readouterr().err


@pytest.mark.slow
def test_same_seed_same_trials_other_seed_other_trials(tmp_path: Path, uninterrupted: ne.SearchResult) -> None:
    other = Job.start(load_config(overrides={**SETTINGS, "run": str(tmp_path / "run"), "seed": 6})).run()
    assert facts(other.trials) != facts(uninterrupted.trials)
