"""A benchmark as it is asked for: checked before any work, run, written down, and rendered."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from nas_engine.context import Reporter
from nas_engine.errors import ConfigError, StoreError
from nas_engine.spaces.table import TableSpace
from nas_engine.store import write_atomically
from nas_engine.suite.harness import Benchmark, run_benchmark
from nas_engine.suite.markdown import read_published, render
from nas_engine.suite.methods import parse_methods
from nas_engine.suite.plot import plot_anytime, require_matplotlib
from nas_engine.suite.proxies import SimulatedProxies
from nas_engine.suite.run import DEFAULT_CAP, Budget
from nas_engine.suite.summary import summarise
from nas_engine.tables.description import TableDescription, load_description
from nas_engine.tables.table import load_table

_DEFAULT_EVALUATIONS = 150


@dataclass(frozen=True)
class Request:
    """Options of ``python -m nas_engine benchmark``; see its help."""

    table: str
    methods: str
    seeds: int
    out: Path
    budget_seconds: float | None = None
    budget_evaluations: int | None = None
    until_optimum: bool = False
    cap: int = DEFAULT_CAP
    file: Path | None = None
    reward: str | None = None
    constraints: list[str] | None = None
    merge_isomorphic: bool = False
    published: Path | None = None
    proxies: Path | None = None
    plot: Path | None = None
    processes: int | None = None
    resume: bool = False

    @property
    def record(self) -> Path:
        """Where the single seeds are written."""
        return self.out.parent / f"{self.out.stem}.seeds.jsonl"

    @property
    def how_to_continue(self) -> str:
        """What to do after an interruption."""
        return f"finished seeds are in {self.record}; the same command with --resume goes on from there"


def run_request(request: Request, reporter: Reporter) -> str:
    """Run a benchmark and write its files.

    Returns:
        The Markdown table, with a line on what it was measured on.

    Raises:
        NasEngineError: an option, the table or a file cannot be used.
    """
    benchmark, space = _prepared(request)
    published = benchmark.description.published
    rows_of_others = read_published(published) if published is not None else []
    with reporter.phase("benchmark") as advance:
        results = run_benchmark(
            benchmark,
            space,
            request.record,
            processes=request.processes or os.cpu_count() or 1,
            resume=request.resume,
            done=lambda finished, total, method: advance(finished, total, {}),
        )
    summary = summarise(benchmark, space, results)
    try:
        write_atomically(request.out, json.dumps(summary, indent=2, allow_nan=False).encode() + b"\n")
    except OSError as error:
        raise StoreError(f"cannot write {str(request.out)!r} ({error.strerror}): name another --out") from error
    if request.plot is not None:
        plot_anytime(request.plot, space, results, f"{space.name}, {request.seeds} seeds")
    table = render(summary["rows"], benchmark.description.reported, rows_of_others)
    return f"{_heading(benchmark, space)}\n\n{table}\n\nresults: {request.out}, single seeds: {request.record}"


def _prepared(request: Request) -> tuple[Benchmark, TableSpace]:
    budget = _budget(request)
    if request.seeds < 1 or (request.processes is not None and request.processes < 1):
        raise ConfigError("--seeds and --processes must be at least 1")
    _require_file("--out", request.out, "results.json")
    if request.plot is not None:
        require_matplotlib()
        _require_file("--plot", request.plot, "anytime.png")
    methods = parse_methods(request.methods)
    table = load_table(_description(request))
    if budget.seconds is not None and table.costs is None:
        raise ConfigError(
            f"table {table.name!r} has no cost column, so --budget-seconds means nothing: use --budget-evaluations"
        )
    dearest = 0.0 if table.costs is None else float(table.costs.max())
    if budget.seconds is not None and budget.seconds < dearest:
        raise ConfigError(
            f"--budget-seconds {budget.seconds:g} is less than one evaluation may cost, {dearest:g} s: raise it"
        )
    space = TableSpace(table)
    for method in methods:
        if method.proxies:
            SimulatedProxies(space, method.proxies)  # refuses what the table does not have
    return Benchmark(table.description, tuple(methods), request.seeds, budget), space


def _require_file(option: str, path: Path, example: str) -> None:
    if not path.name or path.is_dir():
        raise ConfigError(f"{option} {str(path)!r} is no name of a file: give one, for example {example}")
    if path.parent.exists() and not path.parent.is_dir():
        raise ConfigError(f"{option} {str(path)!r}: {str(path.parent)!r} is no folder; name a file in one")


def _budget(request: Request) -> Budget:
    seconds, evaluations = request.budget_seconds, request.budget_evaluations
    if seconds is not None and evaluations is not None:
        raise ConfigError("--budget-seconds and --budget-evaluations exclude each other: give one of them")
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise ConfigError(f"--budget-seconds must be a positive number, got {seconds}")
    if evaluations is not None and evaluations < 1:
        raise ConfigError(f"--budget-evaluations must be at least 1, got {evaluations}")
    if request.cap < 1:
        raise ConfigError(f"--cap must be at least 1, got {request.cap}")
    if seconds is None and evaluations is None and not request.until_optimum:
        evaluations = _DEFAULT_EVALUATIONS
    return Budget(seconds, evaluations, request.until_optimum, request.cap)


def _description(request: Request) -> TableDescription:
    changes = {
        "reward": request.reward,
        "constraints": request.constraints or None,
        "merge_isomorphic": request.merge_isomorphic or None,
    }
    description = load_description(request.table, changes, file=request.file, proxies=request.proxies)
    if request.published is None:
        return description
    if description.published is None:
        raise ConfigError(
            f"the description of {request.table!r} does not say what the columns of published results are: add "
            "'published' with 'file' and 'columns'"
        )
    return description.model_copy(
        update={"published": description.published.model_copy(update={"file": str(request.published)})}
    )


def _heading(benchmark: Benchmark, space: TableSpace) -> str:
    description, budget, table = benchmark.description, benchmark.budget, space.table
    limit = (
        f"{budget.seconds:,.0f} simulated seconds"
        if budget.seconds is not None
        else f"{budget.evaluations} evaluations"
        if budget.evaluations is not None
        else f"until the optimum, at most {budget.cap} evaluations"
    )
    if budget.until_optimum and "until" not in limit:
        limit += f", then on to the optimum, at most {budget.cap} evaluations"
    under = f" under {' and '.join(description.constraints)}" if description.constraints else ""
    merged = f", isomorphic rows merged to {space.distinct:,}" if description.merge_isomorphic else ""
    return (
        f"{table.name}: {len(table):,} architectures{under}{merged}; reward {description.reward.column}, best "
        f"{table.reward_of(space.optimum):.6g}; {benchmark.seeds} seeds; {limit}"
    )
