"""The run store: what it returns, what it refuses, and what survives a kill."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_engine.errors import StoreError
from nas_engine.store import SCHEMA_VERSION, RunStore
from nas_engine.types import Architecture, Failure, FailureKind, Fidelity, Metrics, Outcome, Trial

META = {"config": {"seed": 0}}


def trial(number: int, outcome: Outcome | None = None, *, genes: tuple[int, ...] = (1, 2), step: int = 0) -> Trial:
    return Trial(
        number=number,
        architecture=Architecture("blocks", genes),
        fidelity=Fidelity("training", epochs=3, seed=1),
        outcome=outcome or Metrics({"accuracy": 0.1 + 0.2, "macs": 2**53 - 1}, seconds=1.5),
        reward=0.1 + 0.2,
        proposed_by="ppo",
        step=step,
        phase="search",
        cached=False,
        started_at=1.0,
        finished_at=2.5,
    )


def test_trials_come_back_exactly_as_they_went_in(tmp_path: Path) -> None:
    failure = Failure(FailureKind.OOM, "out of memory", "Traceback ...", 0.5, {"macs": 3.0})
    trials = [trial(0), trial(1, failure, genes=(3,)), replace(trial(2, step=1), cached=True)]
    with RunStore.create(tmp_path / "run", META) as store:
        store.append(trials[:2])
        store.append(trials[2:])
    with RunStore.open(tmp_path / "run") as store:
        assert store.trials() == trials
        assert store.trials(step=1) == trials[2:]
        assert store.trials(phase="retrain") == []
        assert len(store) == 3
        assert store.meta("config") == {"seed": 0}
        assert store.meta("absent") is None


def test_a_reward_that_is_no_number_survives(tmp_path: Path) -> None:
    with RunStore.create(tmp_path / "run", META) as store:
        store.append([replace(trial(0), reward=math.nan)])
        assert math.isnan(store.trials()[0].reward)


@settings(max_examples=25, deadline=None)
@given(values=st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False), max_size=4))
def test_metrics_keep_every_bit(tmp_path_factory: pytest.TempPathFactory, values: dict[str, float]) -> None:
    with RunStore.create(tmp_path_factory.mktemp("store") / "run", META) as store:
        store.append([trial(0, Metrics(values))])
        assert store.trials()[0].outcome == Metrics(values)


def test_find_tells_architectures_and_fidelities_apart(tmp_path: Path) -> None:
    with RunStore.create(tmp_path / "run", META) as store:
        store.append([trial(0), trial(1)])
        known = trial(0)
        assert store.find(known.architecture, known.fidelity) == known
        assert store.find(known.architecture, replace(known.fidelity, epochs=4)) is None
        assert store.find(known.architecture, replace(known.fidelity, seed=2)) is None
        assert store.find(Architecture("blocks", (1, 3)), known.fidelity) is None


def test_trials_are_numbered_once(tmp_path: Path) -> None:
    with RunStore.create(tmp_path / "run", META) as store:
        store.append([trial(0)])
        with pytest.raises(StoreError, match="UNIQUE"):
            store.append([trial(1), trial(0)])
        assert len(store) == 1, "a transaction that fails leaves nothing behind"


def test_checkpoints_replace_each_other_and_load_as_data_only(tmp_path: Path) -> None:
    state = {"weights": torch.arange(4.0), "step": 3, "names": ["a"], "rng": json.dumps({"state": 2**100})}
    with RunStore.create(tmp_path / "run", META) as store:
        store.save_checkpoint("search", {"step": 2})
        store.save_checkpoint("search", state)
        loaded = store.load_checkpoint("search")
        assert loaded is not None
        assert torch.equal(loaded.pop("weights"), state.pop("weights"))
        assert loaded == state
        store.delete_checkpoint("search")
        assert store.load_checkpoint("search") is None


@pytest.mark.parametrize("content", [b"", b"not a database at all, though long enough to look like one" * 40])
def test_a_broken_database_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.db").write_bytes(content)
    with pytest.raises(StoreError) as error:
        RunStore.open(tmp_path)
    assert "\n" not in str(error.value)
    assert "run.db" in str(error.value) or "schema version 0" in str(error.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no run"):
        RunStore.open(tmp_path)
    with pytest.raises(StoreError, match="is no run"):
        RunStore.open(tmp_path / "nowhere")


def test_a_run_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    RunStore.create(tmp_path / "run", META).close()
    with sqlite3.connect(tmp_path / "run" / "run.db") as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match="upgrade nas_engine"):
        RunStore.open(tmp_path / "run")


def test_an_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    with RunStore.create(tmp_path / "run", META) as store:
        store.append([trial(0)])
    with pytest.raises(StoreError, match="exists already: continue it with"):
        RunStore.create(tmp_path / "run", META)
    with RunStore.open(tmp_path / "run") as store:
        assert len(store) == 1


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="not empty"):
        RunStore.create(tmp_path, META)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_where_a_file_stands_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write run folder"):
        RunStore.create(tmp_path / "file" / "run", META)


def test_one_writer_at_a_time_but_readers_are_welcome(tmp_path: Path) -> None:
    with RunStore.create(tmp_path / "run", META) as store:
        store.append([trial(0)])
        with pytest.raises(StoreError, match="in use by another process"):
            RunStore.open(tmp_path / "run")
        with RunStore.open_read_only(tmp_path / "run") as reader:
            assert len(reader) == 1
    RunStore.open(tmp_path / "run").close()


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_store import META, trial
from nas_engine.store import RunStore
store = RunStore.create(Path({folder!r}), META)
number = 0
while True:
    store.append([trial(number), trial(number + 1)])
    number += 2
    print(number, flush=True)
"""


@contextmanager
def nobody_may_write(folder: Path) -> Iterator[None]:
    """`folder` as a user meets it who may only read it; permissions do not bind root, so root becomes another user."""
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)
        folder.chmod(0o755)


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_cannot_be_written_can_be_read(killed: bool) -> None:
    """A WAL database needs files beside it even to be read, and what a killed writer committed is in one of them."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder, living = Path(name) / "run", Path(name) / "living"
        Path(name).chmod(0o755)
        with RunStore.create(living, META) as store:
            store.append([trial(0)])
            if killed:
                shutil.copytree(living, folder, ignore=shutil.ignore_patterns("*-shm"))
        if not killed:
            living.rename(folder)
        assert (folder / "run.db-wal").exists() == killed
        with nobody_may_write(folder):
            with RunStore.open_read_only(folder) as store:
                assert store.trials() == [trial(0)]
                assert store.meta("config") == META["config"]
            with pytest.raises(StoreError, match="cannot be written"):
                RunStore.open(folder)


def test_kill_minus_nine_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    code = WRITER.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "run"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(5)][-1]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    with RunStore.open(tmp_path / "run") as store:
        assert len(store) >= acknowledged
        assert len(store) % 2 == 0, "a transaction is whole or absent"
        assert [t.number for t in store.trials()] == list(range(len(store)))
