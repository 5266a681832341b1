"""What a worker process of a benchmark does; it starts fast, because it loads only what its methods need."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Sequence

from nas_engine.spaces.table import TableSpace
from nas_engine.suite.methods import Method
from nas_engine.suite.run import Budget, SeedResult, run_block
from nas_engine.tables.description import TableDescription
from nas_engine.tables.table import load_table

_spaces: list[TableSpace] = []  # the one table of this process


def start_worker(description: TableDescription) -> None:
    """Read the table, once for all blocks of this process."""
    # Ctrl-C reaches all processes of a terminal; this one has nothing to save, and nothing to say.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Libraries that a method loads later read this; those loaded by then are limited in `run_seed`.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    _spaces[:] = [TableSpace(load_table(description))]


def run_in_worker(method: Method, seeds: Sequence[int], budget: Budget) -> list[SeedResult]:
    """Run a block of seeds on the table of `start_worker`."""
    return run_block(_spaces[0], method, seeds, budget)


def _end_with_parent() -> None:
    """A main process that is killed outright cannot end its workers, which would compute on for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
