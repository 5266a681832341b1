"""A search with zero-cost proxies: their seconds are written down, it resumes, and mistakes are one line."""

from __future__ import annotations

import json
import logging
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import nas_engine as ne
from nas_engine.cli import main
from nas_engine.config import load_config
from nas_engine.errors import SearchInterrupted
from nas_engine.job import Job
from nas_engine.proxies.scoring import NetworkProxies
from nas_engine.store import RunStore

SETTINGS: dict[str, Any] = {
    "space.channels": 2,
    "controller": {"name": "ppo-model", "proxies": ["naswot", "synflow"], "proxy_pool": 8, "proxy_candidates": 2},
    "evaluations": 6,
    "proposals_per_step": 2,
    "evaluator.epochs": 1,
    "evaluator.calibration_images": 64,
    "training.epochs": 1,
    "retrain.candidates": 1,
    "retrain.random": 0,
    "latency.repeats": 2,
    "export.formats": ["state_dict"],
    "seed": 1,
}


class _PowerCutError(BaseException):
    """Stands for a crash."""


def search(folder: Path) -> ne.SearchResult:
    return Job.start(load_config(overrides={**SETTINGS, "run": str(folder)})).run()


def test_seconds_of_proxies_are_written_down_and_a_crash_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        whole = search(tmp_path / "whole")
    assert (
        caplog.messages.count("search: first proxies (naswot, synflow) of random architectures, then evaluations") == 1
    )
    assert 0 < whole.seconds["proxies_in_search"] < whole.seconds["search"]
    events = [json.loads(line) for line in (tmp_path / "whole" / "search.jsonl").read_text().splitlines()]
    spent = [event["proxies_in_search"] for event in events if event["event"] == "step"]
    assert spent == sorted(spent)
    assert spent[-1] == whole.seconds["proxies_in_search"]

    original, appended = RunStore.append, 0

    def crash(self: RunStore, *arguments: Any) -> None:
        nonlocal appended
        original(self, *arguments)
        appended += 1
        if appended == 2:
            raise _PowerCutError

    monkeypatch.setattr(RunStore, "append", crash)
    with pytest.raises(_PowerCutError):
        search(tmp_path / "cut")
    monkeypatch.setattr(RunStore, "append", original)
    resumed = ne.resume(tmp_path / "cut")

    def searched(result: ne.SearchResult) -> list[Any]:
        return [(t.architecture, t.step, t.reward) for t in result.trials if t.phase == "search"]

    assert searched(resumed) == searched(whole)


def test_a_stop_does_not_wait_for_all_proxies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job.start(load_config(overrides={**SETTINGS, "run": str(tmp_path / "stopped")}))
    measure, computed = NetworkProxies.measure, 0

    def stop_at_the_third(self: NetworkProxies, architecture: ne.Architecture) -> Any:
        nonlocal computed
        computed += 1
        job.context.stop_requested = computed == 3
        return measure(self, architecture)

    monkeypatch.setattr(NetworkProxies, "measure", stop_at_the_third)
    with pytest.raises(SearchInterrupted):
        job.run()
    assert computed == 3
    monkeypatch.setattr(NetworkProxies, "measure", measure)
    resumed, whole = ne.resume(tmp_path / "stopped"), search(tmp_path / "whole")
    assert [trial.architecture for trial in resumed.trials] == [trial.architecture for trial in whole.trials]


def test_the_controller_is_told_how_long_evaluations_took(tmp_path: Path) -> None:
    trials = [trial for trial in search(tmp_path / "run").trials if trial.phase == "search"]
    with closing(RunStore.open_read_only(tmp_path / "run")) as store:
        state = store.load_checkpoint("search")
    assert state is not None
    told = {tuple(genes): seconds for genes, seconds in state["controller"]["seconds"]}
    assert told == {trial.architecture.genes: trial.outcome.seconds for trial in trials}
    assert min(told.values()) > 0


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--controller.proxies=[naswott]", "controller.proxies: unknown proxy 'naswott': did you mean 'naswot'?"),
        ("--controller.proxies=[synflow,synflow]", "names one twice"),
        ("--controller.proxies=synflow", "controller.proxies: "),
        ("--controller.proxy_pool=0", "controller.proxy_pool"),
    ],
)
def test_a_mistake_is_one_line(option: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["search", "--controller=ppo-model", option, f"--run={tmp_path / 'run'}"])
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert expected in line
    assert not (tmp_path / "run").exists()
