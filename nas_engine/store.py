"""The run folder and its SQLite store: every trial and checkpoint survives `kill -9` at any moment."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import math
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import torch

from nas_engine.errors import StoreError
from nas_engine.types import Architecture, Failure, FailureKind, Fidelity, Metrics, Outcome, StateDict, Trial

SCHEMA_VERSION = 3
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trials (
    number INTEGER PRIMARY KEY,
    architecture_key TEXT NOT NULL, space TEXT NOT NULL, genes TEXT NOT NULL,
    fidelity_key TEXT NOT NULL, fidelity TEXT NOT NULL,
    outcome TEXT NOT NULL, reward REAL, proposed_by TEXT NOT NULL,
    step INTEGER NOT NULL, phase TEXT NOT NULL, cached INTEGER NOT NULL,
    started_at REAL NOT NULL, finished_at REAL NOT NULL
);
CREATE INDEX trials_by_evaluation ON trials (architecture_key, fidelity_key);
CREATE INDEX trials_by_step ON trials (phase, step);
CREATE TABLE checkpoints (name TEXT PRIMARY KEY, state BLOB NOT NULL);
"""


class RunStore:
    """The trials, checkpoints and settings of one run, in ``<folder>/run.db``.

    Promises:

    - What `append`, `save_checkpoint` or `set_meta` has returned from is on disk, whole; an interrupted call leaves
      nothing behind.
    - Trials are numbered from 0 without gaps, in the order they were appended.
    - Only one process holds a run open for writing; a second one gets a `StoreError`. The lock dies with its holder.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: TextIO | None) -> None:
        """Use `create`, `open` or `open_read_only` instead."""
        self.folder = folder
        self._connection = connection
        self._lock = lock

    @classmethod
    def create(cls, folder: Path, meta: Mapping[str, Any]) -> RunStore:
        """Make a new run folder whose store holds `meta` from the start.

        Raises:
            StoreError: the folder exists and is not empty, or cannot be written.
        """
        database, partial = folder / "run.db", folder / ".run.db.partial"
        if database.exists():
            raise StoreError(
                f"run folder {str(folder)!r} exists already: continue it with 'python -m nas_engine resume {folder}', "
                "or choose another --run"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(path.name not in {"run.lock", partial.name} for path in folder.iterdir()):
                raise StoreError(f"run folder {str(folder)!r} is not empty and holds no run: choose another --run")
            lock = _lock(folder)
            # Built aside and renamed, so that a run.db that exists is always complete.
            partial.unlink(missing_ok=True)
            building = sqlite3.connect(partial)
            building.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
            with building:
                building.executemany("INSERT INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()])
            building.close()
            partial.replace(database)
            connection = _connect(database)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot write run folder {str(folder)!r} ({error}): choose a writable --run") from error
        return cls(folder, connection, lock)

    @classmethod
    def open(cls, folder: Path) -> RunStore:
        """Open an existing run to continue it.

        Raises:
            StoreError: there is no run, it was written by a newer version, or another process holds it.
        """
        return cls._open(folder, write=True)

    @classmethod
    def open_read_only(cls, folder: Path) -> RunStore:
        """Open an existing run to look at it, also while it is running, also in a folder that cannot be written."""
        return cls._open(folder, write=False)

    @classmethod
    def _open(cls, folder: Path, write: bool) -> RunStore:
        database = folder / "run.db"
        if not database.is_file():
            raise StoreError(
                f"{str(folder)!r} is no run (no run.db in it): name a folder made by 'python -m nas_engine search'"
            )
        try:
            lock = _lock(folder) if write else None
            connection = _connect(database) if write else _connect_read_only(database)
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        except PermissionError as error:
            raise StoreError(
                f"run {str(folder)!r} cannot be {'written' if write else 'read'} ({error.strerror}): "
                "change its permissions or copy it"
            ) from error
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{str(database)!r} cannot be read as a run ({error}): restore it or start anew"
            ) from error
        if version != SCHEMA_VERSION:
            connection.close()
            raise StoreError(
                f"run {str(folder)!r} has schema version {version}, this nas_engine reads {SCHEMA_VERSION}: "
                + (
                    "upgrade nas_engine to continue it"
                    if version > SCHEMA_VERSION
                    else "an earlier nas_engine wrote it, or nobody did; start anew"
                )
            )
        return cls(folder, connection, lock)

    def close(self) -> None:
        """Close the database and release the lock."""
        self._connection.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> RunStore:
        """The store itself; it is closed at the end of the `with` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def append(self, trials: Iterable[Trial]) -> None:
        """Store `trials` in one transaction; their numbers must continue those in the store."""
        rows = [_trial_row(trial) for trial in trials]
        with self._transaction() as connection:
            connection.executemany(f"INSERT INTO trials VALUES ({','.join('?' * 14)})", rows)

    def trials(self, *, phase: str | None = None, step: int | None = None) -> list[Trial]:
        """Trials in order of their numbers, optionally of one phase and one step."""
        where, values = ["1"], []
        for column, value in (("phase", phase), ("step", step)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        query = f"SELECT * FROM trials WHERE {' AND '.join(where)} ORDER BY number"
        return [_trial(row) for row in self._connection.execute(query, values)]

    def find(self, architecture: Architecture, fidelity: Fidelity) -> Trial | None:
        """The first trial that evaluated `architecture` at `fidelity`, or None."""
        query = "SELECT * FROM trials WHERE architecture_key = ? AND fidelity_key = ? ORDER BY number LIMIT 1"
        row = self._connection.execute(query, (architecture.key, fidelity.key)).fetchone()
        return _trial(row) if row else None

    def __len__(self) -> int:
        """Number of trials."""
        return int(self._connection.execute("SELECT COUNT(*) FROM trials").fetchone()[0])

    def save_checkpoint(self, name: str, state: StateDict) -> None:
        """Replace the checkpoint `name`."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (name, buffer.getvalue()))

    def load_checkpoint(self, name: str) -> StateDict | None:
        """The checkpoint `name`, or None."""
        row = self._connection.execute("SELECT state FROM checkpoints WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        state: StateDict = torch.load(io.BytesIO(row[0]), map_location="cpu", weights_only=True)
        return state

    def delete_checkpoint(self, name: str) -> None:
        """Remove the checkpoint `name`, if there is one."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM checkpoints WHERE name = ?", (name,))

    def set_meta(self, key: str, value: Any) -> None:
        """Remember a JSON value of the run as a whole."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def meta(self, key: str) -> Any:
        """A value stored with `set_meta`, or None."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._connection:
                yield self._connection
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot write {str(self.folder / 'run.db')!r} ({error}): free space, then resume"
            ) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _connect(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(database, timeout=10.0)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _connect_read_only(database: Path) -> sqlite3.Connection:
    """A connection that need not write; where nobody may, even readers of a WAL database cannot, so a copy is read."""
    connection = sqlite3.connect(database, timeout=10.0)
    try:
        connection.execute("PRAGMA user_version")  # nothing is read before the first statement
        return connection
    except sqlite3.OperationalError:
        connection.close()
    copy = sqlite3.connect(":memory:")
    with tempfile.TemporaryDirectory() as folder:
        for name in (database.name, f"{database.name}-wal"):  # what a killed writer has committed is in the WAL
            if (database.parent / name).exists():
                shutil.copyfile(database.parent / name, Path(folder) / name)
        with contextlib.closing(sqlite3.connect(Path(folder) / database.name)) as whole:
            whole.backup(copy)
    return copy


def _lock(folder: Path) -> TextIO:
    file = (folder / "run.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise StoreError(f"run {str(folder)!r} is in use by another process: wait for it or stop it first") from error
    return file


def _trial_row(trial: Trial) -> tuple[Any, ...]:
    outcome = trial.outcome
    body = {"values": dict(outcome.values), "seconds": outcome.seconds}
    if isinstance(outcome, Failure):
        body |= {"failure": outcome.kind.value, "message": outcome.message, "traceback": outcome.traceback}
    return (
        trial.number,
        trial.architecture.key,
        trial.architecture.space,
        json.dumps(trial.architecture.genes),
        trial.fidelity.key,
        json.dumps(asdict(trial.fidelity)),
        json.dumps(body),
        None if math.isnan(trial.reward) else trial.reward,
        trial.proposed_by,
        trial.step,
        trial.phase,
        int(trial.cached),
        trial.started_at,
        trial.finished_at,
    )


def _trial(row: tuple[Any, ...]) -> Trial:
    number, _, space, genes, _, fidelity, outcome, reward, proposed_by, step, phase, cached, started, finished = row
    return Trial(
        number=number,
        architecture=Architecture(space, tuple(json.loads(genes))),
        fidelity=Fidelity(**json.loads(fidelity)),
        outcome=_outcome(json.loads(outcome)),
        reward=math.nan if reward is None else reward,
        proposed_by=proposed_by,
        step=step,
        phase=phase,
        cached=bool(cached),
        started_at=started,
        finished_at=finished,
    )


def _outcome(body: dict[str, Any]) -> Outcome:
    if "failure" not in body:
        return Metrics(body["values"], body["seconds"])
    kind = FailureKind(body["failure"])
    return Failure(kind, body["message"], body["traceback"], body["seconds"], body["values"])
