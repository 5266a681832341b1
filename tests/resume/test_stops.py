"""A run that is asked to stop does so after a unit of work, and goes on as if it had not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nas_engine as ne
from nas_engine.cli import main
from nas_engine.config import load_config
from nas_engine.errors import SearchInterrupted
from nas_engine.job import Job
from nas_engine.store import RunStore


@pytest.mark.slow
def test_a_stop_request_ends_after_the_unit_of_work(
    tmp_path: Path,
    uninterrupted: ne.SearchResult,
    settings: dict[str, Any],
    assert_same: Callable[..., None],
    stop_after_next_write: Callable[[Job], None],
) -> None:
    folder = tmp_path / "run"
    job = Job.start(load_config(overrides={**settings, "run": str(folder)}))
    stops = 0
    while True:
        stop_after_next_write(job)
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


@pytest.mark.slow
@pytest.mark.parametrize("controller", ["ppo-model", "thompson"])
def test_a_model_is_fitted_again_to_what_is_remembered(
    tmp_path: Path,
    controller: str,
    settings: dict[str, Any],
    assert_same: Callable[..., None],
    as_arguments: Callable[[dict[str, Any]], list[str]],
) -> None:
    """The models of these controllers are not saved: after an interruption the evaluations bring them back."""
    settings = {**settings, "controller": controller, "evaluations": 16, "proposals_per_step": 2, "checkpoint_every": 3}
    settings |= {"retrain.candidates": 1, "retrain.random": 1, "latency.repeats": 1}
    options = as_arguments(settings)
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
def test_drawing_random_architectures_can_be_stopped(
    uninterrupted: ne.SearchResult, assert_same: Callable[..., None], unfinished: Callable[..., Path]
) -> None:
    run = unfinished("report", "exported", "baseline")
    job = Job.resume(run)
    job.context.stop_requested = True
    with pytest.raises(SearchInterrupted):
        job.run()
    assert_same(ne.resume(run), uninterrupted)


@pytest.mark.slow
def test_a_latency_is_measured_once_in_a_run_however_often_it_is_resumed(
    tmp_path: Path, settings: dict[str, Any], stop_after_next_write: Callable[[Job], None]
) -> None:
    settings = {**settings, "constraints": ["latency_ms <= 1000"], "run": str(tmp_path / "run")}
    job = Job.start(load_config(overrides=settings))
    while True:
        stop_after_next_write(job)
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
