"""What every phase of a run shares: the store, the event log, progress display, and the wish to stop."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from nas_engine.errors import SearchInterrupted
from nas_engine.store import RunStore

logger = logging.getLogger(__name__)

Advance = Callable[[int, int, Mapping[str, float]], None]
"""(units done, units in all, values worth showing)."""


class Reporter(Protocol):
    """Shows a user how far a run is."""

    def phase(self, name: str) -> AbstractContextManager[Advance]:
        """Show one phase; the function it gives is called after each unit of work."""
        ...

    def message(self, text: str) -> None:
        """Show one line."""
        ...


class LogReporter:
    """Reports through `logging`, at INFO: what a program that embeds a search wants."""

    @contextmanager
    def phase(self, name: str) -> Iterator[Advance]:
        """Log the start of the phase and each unit of work."""
        logger.info("%s: started", name)
        yield lambda done, total, values: logger.info("%s: %d/%d %s", name, done, total, dict(values))

    def message(self, text: str) -> None:
        """Log one line."""
        logger.info("%s", text)


class EventLog:
    """Appends one JSON object a line to ``search.jsonl``; numbers that are not finite become null."""

    def __init__(self, path: Path) -> None:
        """Open `path` for appending; a last line that a crash cut in half is dropped."""
        if path.exists():
            content = path.read_bytes()
            os.truncate(path, content.rfind(b"\n") + 1)
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: str, **values: Any) -> None:
        """Append ``{"event": event, "time": <Unix seconds>, **values}``."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **finite(values)}, allow_nan=False)
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def finite(value: Any) -> Any:
    """The same mappings, lists and values, with None in place of numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass
class RunContext:
    """Shared by the phases of one run.

    Attributes:
        store: trials and checkpoints.
        events: the structured log.
        reporter: progress for people.
        stop_requested: set it to end the run after the current unit of work.
        how_to_continue: the command that goes on where a stop ended, if it is not ``resume``.
    """

    store: RunStore
    events: EventLog
    reporter: Reporter = field(default_factory=LogReporter)
    stop_requested: bool = False
    how_to_continue: str = ""

    def check_stop(self) -> None:
        """End the run here if the user asked for it.

        Raises:
            SearchInterrupted: a stop was requested; all work up to here is in the store.
        """
        if self.stop_requested:
            command = self.how_to_continue or f"python -m nas_engine resume {self.store.folder}"
            raise SearchInterrupted(f"stopped and saved: continue with '{command}'")

    @contextmanager
    def phase(self, name: str, title: str) -> Iterator[Advance]:
        """Show a phase and add its wall time to the run's ``seconds`` (time lost to a kill is not counted)."""
        started = time.perf_counter()
        self.events.write("phase_started", phase=name)
        try:
            with self.reporter.phase(title) as advance:
                yield advance
        finally:
            seconds = time.perf_counter() - started
            total: dict[str, float] = self.store.meta("seconds") or {}
            total[name] = total.get(name, 0.0) + seconds
            self.store.set_meta("seconds", total)
            self.events.write("phase_ended", phase=name, seconds=round(seconds, 3))

    def close(self) -> None:
        """Close the store and the event log."""
        self.events.close()
        self.store.close()
