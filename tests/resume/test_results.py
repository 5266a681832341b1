"""What a finished run holds, shows and exports, and what becomes of failures in it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nas_engine as ne
from nas_engine.cli import main
from nas_engine.config import load_config
from nas_engine.job import Job
from nas_engine.store import RunStore


@pytest.mark.slow
def test_a_finished_run_is_returned_as_it_is(uninterrupted: ne.SearchResult, facts: Callable[..., list[Any]]) -> None:
    before = facts(uninterrupted.trials)
    again = ne.resume(uninterrupted.run)
    assert facts(again.trials) == before
    assert again.report == uninterrupted.report


@pytest.mark.slow
def test_a_recorded_failure_stands_until_another_try_is_asked_for(
    tmp_path: Path, uninterrupted: ne.SearchResult, unfinished: Callable[..., Path]
) -> None:
    run = unfinished("report", "exported")
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
def test_an_accuracy_that_nothing_reaches_is_reported_and_not_fatal(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, Any],
    as_arguments: Callable[[dict[str, Any]], list[str]],
) -> None:
    limits = ["accuracy >= 0.9999", "macs <= 1e6"]
    arguments = as_arguments({**settings, "retrain.random": 1})
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
def test_what_a_run_shows_and_exports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], uninterrupted: ne.SearchResult
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
def test_same_seed_same_trials_other_seed_other_trials(
    tmp_path: Path, uninterrupted: ne.SearchResult, settings: dict[str, Any], facts: Callable[..., list[Any]]
) -> None:
    other = Job.start(load_config(overrides={**settings, "run": str(tmp_path / "run"), "seed": 6})).run()
    assert facts(other.trials) != facts(uninterrupted.trials)
