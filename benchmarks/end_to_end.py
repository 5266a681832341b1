"""A whole search with the native module and without: python end_to_end.py [--data FILE.npz] [--quick].

Both ways take turns, each in a process of its own, with equal settings and seeds. Wall time by phase, the winner's
accuracy, and how far the two searches are the same: the native scores differ from PyTorch's by rounding alone, but one
image more or less lets the controller go another way.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image_search import SETTINGS
from record import Row, arguments, make_row, write_rows

from nas_engine import native
from nas_engine.config import load_config
from nas_engine.job import Job
from nas_engine.result import SearchResult

logger = logging.getLogger(__name__)

NATIVE, NONE = "native", "no native module"
_PHASES = ("prepare", "search", "retrain", "baseline", "measure", "export")
_SHORTER: dict[str, Any] = {"evaluations": 100, "evaluator.epochs": 5, "training.epochs": 2, "retrain.random": 2}
_QUICK: dict[str, Any] = {
    "space": {"name": "nasbench201", "channels": 4, "cells": 1},
    "evaluations": 10,
    "evaluator.epochs": 1,
    "training.epochs": 1,
    "retrain.random": 1,
    "retrain.candidates": 1,
    "export.formats": ["state_dict"],
}


@dataclass(frozen=True)
class Case:
    """A search by name, and its settings."""

    name: str
    settings: dict[str, Any]


def cases(data: str | None, quick: bool) -> list[Case]:
    """The default search and, with `data`, a shortened one of `image_search.py`."""
    searches = [Case("default search (digits)", {})]
    if data:
        searches.append(
            Case(f"{Path(data).stem}, shortened", {**SETTINGS, **_SHORTER, "data": str(Path(data).resolve())})
        )
    return [Case(case.name, {**case.settings, **(_QUICK if quick else {})}) for case in searches]


def search_in_child(settings: dict[str, Any], variant: str) -> SearchResult:
    """A complete run in a process of its own; the time that Python takes to start is in no phase."""
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))}
    command = [sys.executable, __file__, "--child", variant, json.dumps(settings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the search failed ({variant}):\n{done.stderr}")
    return SearchResult(settings["run"])


def child(variant: str, settings: str) -> None:
    """What the process of one search does."""
    if variant == NONE:
        # What a build with NAS_ENGINE_BUILD=none is like: nothing of that name can be imported.
        sys.modules["nas_engine._C"] = None  # type: ignore[assignment]
    if native.available() != (variant == NATIVE):
        raise SystemExit(f"the native module is {'there' if native.available() else native.problem()}")
    Job.start(load_config(overrides=json.loads(settings))).run()


def rows_of(case: str, results: dict[str, list[SearchResult]]) -> list[Row]:
    """Seconds by phase and their ratios, the winners' accuracies, and the agreement of the searches."""
    rows = []
    for phase in (*_PHASES, "all phases"):
        medians = {name: statistics.median(_seconds(one, phase) for one in own) for name, own in results.items()}
        rows += [make_row(case, name, phase, seconds, "s wall") for name, seconds in medians.items()]
        rows.append(make_row(case, NATIVE, f"{phase}: times as fast", medians[NONE] / medians[NATIVE], "x"))
    for name, own in results.items():
        for metric in ("validation_accuracy", "test_accuracy"):
            value = statistics.fmean(result.best.metrics[metric] for result in own)
            rows.append(make_row(case, name, f"winner's {metric.replace('_', ' ')}, mean", value, "fraction"))
        share = statistics.fmean(_seconds(one, "prepare") / _seconds(one, "all phases") for one in own)
        rows.append(make_row(case, name, "share of supernet training", share, ""))
    return rows + agreement(case, list(zip(results[NATIVE], results[NONE], strict=True)))


def agreement(case: str, pairs: Sequence[tuple[SearchResult, SearchResult]]) -> list[Row]:
    """Over all pairs of equal seeds: trials with one architecture before the first other one, and their scores."""
    same, total, winners = 0, 0, 0
    differences = []
    for first, second in pairs:
        ours, theirs = ([t for t in result.trials if t.phase == "search"] for result in (first, second))
        total += min(len(ours), len(theirs))
        winners += first.best.architecture == second.best.architecture
        for a, b in zip(ours, theirs, strict=False):
            if a.architecture != b.architecture:
                break
            same += 1
            if a.metrics is not None and b.metrics is not None:
                differences.append(abs(a.metrics.accuracy - b.metrics.accuracy))
    return [
        make_row(case, "both", "trials before the first other architecture", same / total, "fraction"),
        make_row(case, "both", "largest difference of their accuracies", max(differences, default=0.0), "fraction"),
        make_row(case, "both", "searches with one winner", winners / len(pairs), "fraction"),
    ]


def _seconds(result: SearchResult, phase: str) -> float:
    return sum(result.seconds.values()) if phase == "all phases" else result.seconds.get(phase, 0.0)


def main() -> None:
    """Search every case both ways, in turn."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--data", help="also a shortened search on these images, as for --data of the command line")
    parser.add_argument("--seeds", type=int, default=1, help="searches of each case and each way (default: 1)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases(options.data, options.quick)):
            results: dict[str, list[SearchResult]] = {NATIVE: [], NONE: []}
            for seed in range(1 if options.quick else options.seeds):
                for variant, own in results.items():
                    started = time.perf_counter()
                    run = str(Path(folder) / f"{number}-{seed}-{len(variant)}")
                    own.append(search_in_child({**case.settings, "seed": seed, "run": run}, variant))
                    logger.info("%s, %s: %.0f s", case.name, variant, time.perf_counter() - started)
            rows += rows_of(case.name, results)
    write_rows(rows, options.out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main()
