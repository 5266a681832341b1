"""Zero-cost proxies of all cells of NAS-Bench-201 on real CIFAR-10 images, as a file that `benchmark --proxies` reads.

Each of the different cells is computed once, in a network of 8 channels and one cell a stage on 32 images of 16x16, by
one thread whose seconds are measured, and its values stand in the rows of all cells that compute the same. No accuracy
is read. `--correlate` afterwards compares a finished
file with a column of the table, as information.

    python zero_cost_proxies.py --data ../../shared/data/cifar10_7k.npz --out results/nasbench201_proxies.csv.gz
    python zero_cost_proxies.py --correlate val12_cifar10 --out results/nasbench201_proxies.csv.gz
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import itertools
import json
import logging
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from record import machine_facts
from scipy.stats import spearmanr
from torch.nn import functional

from nas_engine.data.base import ImageDataset, Split
from nas_engine.data.loading import load_dataset
from nas_engine.proxies.scoring import PROXIES, NetworkProxies
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.tables.description import load_description
from nas_engine.tables.reading import numbers, read_columns
from nas_engine.types import Architecture

logger = logging.getLogger(__name__)

CHANNELS, CELLS = 8, 1
BATCH = 32
_EVERY = 500  # architectures between two lines of progress


def main() -> None:
    """Compute and write, or compare what was written."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="cifar10_7k.npz", help="images, as `data` of a search")
    parser.add_argument("--out", type=Path, default=Path("nasbench201_proxies.csv.gz"), metavar="FILE.csv.gz")
    parser.add_argument("--correlate", metavar="COLUMN", help="compute nothing: compare the file with this column")
    parser.add_argument("--quick", action="store_true", help="twenty cells only, to see that it runs")
    parser.add_argument("--processes", type=int, default=1, help="that compute, each with one thread")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.correlate:
        correlate(options.out, options.correlate)
    else:
        compute(options.data, options.out, 20 if options.quick else None, options.processes)


def compute(data: str, out: Path, most: int | None, processes: int) -> None:
    """Values and seconds of all different cells, or of the first `most`, written to `out` and, in sum, beside it."""
    started, rows = time.perf_counter(), []
    seconds = dict.fromkeys(PROXIES, 0.0)
    classes = _classes(_halved(load_dataset(data)))
    chosen = list(itertools.islice(classes, most))
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _start, (data,)) as pool:
        for done, measured in enumerate(pool.imap(_measure, chosen, chunksize=20), start=1):
            values = [f"{value:.6g}" for value, _ in measured.values()]
            values += [f"{took:.3g}" for _, took in measured.values()]
            rows += [["".join(map(str, member.genes)), *values] for member in classes[chosen[done - 1]]]
            seconds = {name: seconds[name] + took for name, (_, took) in measured.items()}
            if done % _EVERY == 0:
                logger.info("%d of %d, %.0f s", done, len(chosen), time.perf_counter() - started)
    _write(out, ["ops", *PROXIES, *(f"{name}_s" for name in PROXIES)], rows)
    facts = {
        "machine": machine_facts(),
        "network": {"channels": CHANNELS, "cells": CELLS, "image": [3, 16, 16]},
        "images": BATCH,
        "cells_computed": len(chosen),
        "rows": len(rows),
        "mean_seconds": {name: total / len(chosen) for name, total in seconds.items()},
    }
    out.with_name(out.name.partition(".")[0] + ".json").write_text(json.dumps(facts, indent=1) + "\n")
    logger.info("%s: %d rows, %d bytes; seconds a cell %s", out, len(rows), out.stat().st_size, facts["mean_seconds"])


def _space(dataset: ImageDataset) -> NASBench201Space:
    return NASBench201Space(dataset.shape, NASBench201Options(channels=CHANNELS, cells=CELLS, allow_disconnected=True))


def _classes(dataset: ImageDataset) -> dict[Architecture, list[Architecture]]:
    """All cells, by the cell that stands for those that compute the same."""
    space, classes = _space(dataset), dict[Architecture, list[Architecture]]()
    for cell in space:
        classes.setdefault(space.canonical(cell), []).append(cell)
    return classes


_proxies: list[NetworkProxies] = []  # the one of this process


def _start(data: str) -> None:
    torch.set_num_threads(1)
    dataset = _halved(load_dataset(data))
    space = _space(dataset)
    _proxies[:] = [NetworkProxies(space, dataset, tuple(PROXIES), seed=0, batch=BATCH, clock=time.thread_time)]
    _measure(space.architecture([3] * 6))  # the first call of a process is slow


def _measure(cell: Architecture) -> dict[str, tuple[float, float]]:
    return _proxies[0].measure(cell)


def _halved(dataset: ImageDataset) -> ImageDataset:
    """The same images at half their height and width: each pixel the mean of four."""
    return replace(dataset, train=Split(functional.avg_pool2d(dataset.train.images, 2), dataset.train.labels))


def _write(out: Path, header: list[str], rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))


def correlate(file: Path, column: str) -> None:
    """Spearman's rank correlation of each proxy with a column of the table, over all cells and over the best tenth."""
    table = read_columns(Path(load_description("nasbench201").file), ["ops", column])
    found = read_columns(file, ["ops", *PROXIES])
    accuracy = dict(zip(table["ops"], numbers(table[column], column, "table"), strict=True))
    truth = np.array([accuracy[ops] for ops in found["ops"]])
    best = truth >= np.quantile(truth, 0.9)
    for name in PROXIES:
        values = np.nan_to_num(numbers(found[name], name, file.name), nan=-np.inf, neginf=-1e9)
        logger.info(
            "%s: %.3f with %s over %d cells, %.3f over the best tenth",
            name,
            spearmanr(values, truth).statistic,
            column,
            len(truth),
            spearmanr(values[best], truth[best]).statistic,
        )


if __name__ == "__main__":
    main()
