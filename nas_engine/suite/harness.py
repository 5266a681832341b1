"""All seeds of all methods: blocks of seeds over processes, each finished one written down at once."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas_engine.context import finite
from nas_engine.errors import ConfigError, NasEngineError, StoreError
from nas_engine.spaces.table import TableSpace
from nas_engine.suite.methods import Method
from nas_engine.suite.run import Budget, SeedResult, run_block
from nas_engine.suite.worker import run_in_worker, start_worker
from nas_engine.tables.description import TableDescription

Done = Callable[[int, int, str], None]
"""(seeds finished, seeds in all, method of the last)."""

_BLOCK = 5


@dataclass(frozen=True)
class Benchmark:
    """What is compared on what.

    Attributes:
        description: the table.
        methods: those that compete.
        seeds: repetitions 0 to seeds - 1 of each.
        budget: of each repetition.
    """

    description: TableDescription
    methods: tuple[Method, ...]
    seeds: int
    budget: Budget

    def settings(self, fingerprint: str, proxies: str) -> dict[str, Any]:
        """What must be the same for results of an earlier run to count: table, budget, and options of a method."""
        options = self.description.model_dump(mode="json", exclude={"file", "joined", "published", "proxies"})
        methods = {m.label: {**m.settings, **({"proxies": proxies} if m.proxies else {})} for m in self.methods}
        return {"table": fingerprint, "description": options, "budget": asdict(self.budget), "methods": methods}


def run_benchmark(
    benchmark: Benchmark,
    space: TableSpace,
    record: Path,
    *,
    processes: int = 1,
    resume: bool = False,
    done: Done = lambda finished, total, method: None,
) -> list[SeedResult]:
    """Run what is not in the record yet.

    Args:
        benchmark: what to run.
        space: its table, for this process.
        record: JSON lines: the settings, then each finished seed; results do not depend on where a run was cut off.
        processes: worker processes; 1: none but this one. The results are the same for any number.
        resume: whether seeds in the record are kept; otherwise it is written anew.
        done: called whenever seeds have finished.

    Returns:
        Results in order of methods and seeds.

    Raises:
        ConfigError: the record is of another table or budget.
        StoreError: it cannot be written.
        NasEngineError: a worker died.
    """
    uses_proxies = any(method.proxies for method in benchmark.methods)
    settings = benchmark.settings(space.table.fingerprint, space.proxies.fingerprint if uses_proxies else "")
    finished = _read_record(record, settings) if resume and record.exists() else {}
    blocks = list(_blocks(benchmark, set(finished)))
    total = len(benchmark.methods) * benchmark.seeds
    wanted = {(m.label, seed) for m in benchmark.methods for seed in range(benchmark.seeds)}
    count = len(wanted & finished.keys())
    with _opened(record, settings, finished) as write:
        for results in _results(benchmark, space, blocks, processes):
            for result in results:
                write(result)
                finished[result.method, result.seed] = result
            count += len(results)
            done(count, total, results[-1].method)
    return [finished[m.label, seed] for m in benchmark.methods for seed in range(benchmark.seeds)]


def _blocks(benchmark: Benchmark, finished: set[tuple[str, int]]) -> Iterator[tuple[Method, list[int]]]:
    for method in benchmark.methods:
        seeds = [seed for seed in range(benchmark.seeds) if (method.label, seed) not in finished]
        for start in range(0, len(seeds), _BLOCK):
            yield method, seeds[start : start + _BLOCK]


def _results(
    benchmark: Benchmark, space: TableSpace, blocks: Sequence[tuple[Method, list[int]]], processes: int
) -> Iterator[list[SeedResult]]:
    if processes == 1 or len(blocks) < 2:
        for method, seeds in blocks:
            yield run_block(space, method, seeds, benchmark.budget)
        return
    # Spawned and not forked: a fork of a process whose libraries have started threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, start_worker, (benchmark.description,)) as pool:
        waiting: set[Future[list[SeedResult]]] = set()
        try:
            waiting = {pool.submit(run_in_worker, method, seeds, benchmark.budget) for method, seeds in blocks}
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ready)
        except BrokenProcessPool as error:
            raise NasEngineError(
                "a worker process died, perhaps for lack of memory: use fewer --processes; --resume keeps what is done"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _opened(
    record: Path, settings: dict[str, Any], kept: dict[tuple[str, int], SeedResult]
) -> Iterator[Callable[[SeedResult], None]]:
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with record.open("w", encoding="utf-8") as file:

            def write(result: SeedResult) -> None:
                file.write(json.dumps(finite(result.as_dict()), allow_nan=False) + "\n")
                file.flush()

            file.write(json.dumps(settings) + "\n")
            for result in kept.values():
                write(result)
            yield write
    except OSError as error:
        raise StoreError(f"cannot write {str(record)!r} ({error.strerror}): name another --out") from error


def _read_record(record: Path, settings: dict[str, Any]) -> dict[tuple[str, int], SeedResult]:
    """Finished seeds; `settings` take over the methods that only the record has."""
    try:
        lines = record.read_bytes().split(b"\n")[:-1]  # a line that a crash cut in half has no end
        earlier = json.loads(lines[0]) if lines else {}
        methods = earlier.pop("methods", {})
        found = [SeedResult(**json.loads(line)) for line in lines[1:]]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"cannot continue {str(record)!r} ({error}): leave out --resume") from error
    wanted = json.loads(json.dumps(settings))
    unlike = {label for label, options in wanted.pop("methods").items() if methods.get(label) != options}
    changed = sorted(unlike & {result.method for result in found})
    if changed or earlier != wanted:
        what = f"other options or proxies of {changed[0]!r}" if changed else "another table or budget"
        raise ConfigError(f"{str(record)!r} holds results of {what}: name another --out, or leave out --resume")
    settings["methods"] = {**methods, **settings["methods"]}
    return {(result.method, result.seed): result for result in found}
