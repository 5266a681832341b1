"""Search on real images: the winner against random architectures and against regularised evolution, over seeds.

Every seed is one complete run (supernet, PPO search, retraining, test). Evolution starts from the same trained
supernet with the same number of evaluations, so both have spent the same budget. Random architectures and winners are
trained from scratch with one recipe. All stand-alone trainings of random architectures together give Kendall's tau of
each supernet.

    python image_search.py --data ../../shared/data/cifar10_7k.npz --out results/image_search_cifar10_7k.json
"""

from __future__ import annotations

import logging
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from record import Row, arguments, make_row, write_rows

from nas_engine.config import load_config
from nas_engine.evaluators.rank_quality import rank_quality
from nas_engine.job import Job
from nas_engine.result import SearchResult, config_of
from nas_engine.retraining import random_architectures
from nas_engine.store import RunStore
from nas_engine.types import Architecture

logger = logging.getLogger(__name__)

# What 20 minutes of 2 cores a seed leave room for. Chosen on validation images of another split: after 150 epochs with
# mirrored images Kendall's tau to 24 trainings of 40 epochs was 0.50 (fair sampling, 40 epochs: 0.29; AdamW: -0.06).
SETTINGS: dict[str, Any] = {
    "space": {"name": "nasbench201", "channels": 8, "cells": 1},
    "evaluations": 250,
    "evaluator.epochs": 150,
    "evaluator.augmentation": "flip",
    "training.epochs": 30,
    "training.augmentation": "flip",
    "retrain.random": 8,
    "retrain.candidates": 5,
    "export.formats": ["onnx"],
    "threads": 1,
}
QUICK: dict[str, Any] = {
    "space": {"name": "nasbench201", "channels": 4, "cells": 1},
    "evaluations": 20,
    "evaluator.epochs": 1,
    "training.epochs": 1,
    "retrain.random": 3,
    "retrain.candidates": 2,
}
_FIRST_SEED = 1


def main() -> None:
    """Run all seeds, print the rows and write them."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="data set, as for --data of the command line")
    parser.add_argument("--seeds", type=int, default=3, help="number of complete runs")
    parser.add_argument("--processes", type=int, default=2, help="seeds that run at once, on one core each")
    parser.add_argument("--standalone", type=int, default=32, help="random architectures trained for tau, in all")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs; finished ones are reused")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="more settings of the search")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = {**SETTINGS, **(QUICK if options.quick else {}), "data": options.data}
    settings |= dict(pair.split("=", 1) for pair in options.set)
    stem = f"{Path(options.data).stem}{'-quick' if options.quick else ''}"
    seeds = [_FIRST_SEED + i for i in range(1 if options.quick else options.seeds)]
    with ProcessPoolExecutor(options.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        pairs = list(pool.map(partial(run_seed, settings, options.runs / stem), seeds))
    ppo, evolution = ([SearchResult(folder) for folder in folders] for folders in zip(*pairs, strict=True))
    rows = [row for pair in zip(seeds, ppo, evolution, strict=True) for row in seed_rows(*pair)]
    rows += tau_rows(ppo, 5 if options.quick else options.standalone)
    write_rows(rows, options.out)


def run_seed(settings: dict[str, Any], stem: Path, seed: int) -> tuple[Path, Path]:
    """The PPO run and the evolution run of one seed; returns their folders."""
    ppo, evolution = (stem.with_name(f"{stem.name}-{controller}-{seed}") for controller in ("ppo", "evolution"))
    run(settings, "ppo", seed, ppo)
    run({**settings, "retrain.random": 0}, "evolution", seed, evolution, supernet=ppo)
    return ppo, evolution


def run(
    settings: dict[str, Any], controller: str, seed: int, folder: Path, supernet: Path | None = None
) -> SearchResult:
    """One complete run, continued if it exists; `supernet`: a run of this seed whose supernet is taken over."""
    config = load_config(overrides={**settings, "controller": controller, "seed": seed, "run": str(folder)})
    if (folder / "run.db").exists():
        with RunStore.open_read_only(folder) as store:
            if config_of(store) != config:
                raise SystemExit(f"{folder} holds a run with other settings: choose another --runs")
        return Job.resume(folder).run()
    job = Job.start(config)
    if supernet is not None:
        with RunStore.open_read_only(supernet) as store:
            job.context.store.save_checkpoint("evaluator", store.load_checkpoint("evaluator") or {})
    return job.run()


def seed_rows(seed: int, ppo: SearchResult, evolution: SearchResult) -> list[Row]:
    """Test accuracies, costs and seconds of one seed."""
    case = f"seed {seed}"
    baseline = [row["metrics"] for row in ppo.report["random"]]
    best = max(baseline, key=lambda metrics: metrics["test_accuracy"])
    lean = [m["test_accuracy"] for m in baseline if m["macs"] <= ppo.best.metrics["macs"]]
    rows = [
        *_network(case, "ppo winner", ppo.best.metrics),
        *_network(case, "evolution winner", evolution.best.metrics),
    ]
    rows += _network(case, "random, best by test accuracy", best)
    mean = statistics.fmean(metrics["test_accuracy"] for metrics in baseline)
    rows.append(make_row(case, "random, mean", "test accuracy", mean, "fraction"))
    if lean:
        rows.append(
            make_row(case, "random of no more MACs than the winner, best", "test accuracy", max(lean), "fraction")
        )
    own = sum(ppo.seconds.get(phase, 0.0) for phase in ("prepare", "search", "retrain"))
    other = ppo.seconds["prepare"] + evolution.seconds["search"] + evolution.seconds["retrain"]
    for variant, seconds in (("ppo", own), ("evolution", other)):
        rows.append(make_row(case, variant, "supernet + search + retraining", seconds, "s wall"))
    return rows


def tau_rows(results: Sequence[SearchResult], total: int) -> list[Row]:
    """Kendall's tau of every supernet on the union of all random architectures, by stand-alone test accuracy.

    The trainings are those of all seeds: their initial weights and training images differ, the test images do not.
    """
    standalone = {row["architecture"]: row["metrics"]["test_accuracy"] for r in results for row in r.report["random"]}
    standalone |= _train_more(results[0], set(standalone), total - len(standalone))
    rows = []
    for result in results:
        scores = _supernet_scores(result, list(standalone))
        quality = rank_quality([scores[key] for key in standalone], list(standalone.values()))
        case, variant = f"seed {result.config.seed}", f"supernet, {quality.n} stand-alone trainings"
        for metric, value in (
            ("Kendall tau", quality.tau),
            ("Kendall tau, 2.5 %", quality.tau_low),
            ("Kendall tau, 97.5 %", quality.tau_high),
            ("Spearman rho", quality.spearman),
        ):
            rows.append(make_row(case, variant, metric, value, ""))
    return rows


def _train_more(result: SearchResult, known: set[str], count: int) -> dict[str, float]:
    job = Job.resume(result.run)
    try:
        drawn = random_architectures(job.parts.space, count + len(known), lambda _: True, seed=1_000)
        fresh = [architecture for architecture in drawn if architecture.key not in known][:count]
        trials = job.retraining.train(fresh, "baseline", "train more random ones")
        return {t.architecture.key: job.retraining.test(t.architecture).accuracy for t in trials if t.metrics}
    finally:
        job.context.close()


def _supernet_scores(result: SearchResult, keys: Sequence[str]) -> dict[str, float]:
    job = Job.resume(result.run)
    try:
        evaluator = job.parts.evaluator
        evaluator.load_state_dict(job.context.store.load_checkpoint("evaluator") or {})
        architectures: list[Architecture] = [job.parts.space.from_key(key) for key in keys]
        outcomes = evaluator.evaluate(architectures)
        return {key: outcome.values.get("accuracy", float("nan")) for key, outcome in zip(keys, outcomes, strict=True)}
    finally:
        job.context.close()


def _network(case: str, variant: str, metrics: dict[str, float]) -> list[Row]:
    return [
        make_row(case, variant, "test accuracy", metrics["test_accuracy"], "fraction"),
        make_row(case, variant, "validation accuracy", metrics["validation_accuracy"], "fraction"),
        make_row(case, variant, "MACs", metrics["macs"], ""),
        make_row(case, variant, "params", metrics["params"], ""),
    ]


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    logger.info("%.0f s in all", time.perf_counter() - started)
