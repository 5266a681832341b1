"""From the files that NATS-Bench and HW-NAS-Bench publish to the tables that the descriptions ``nasbench201*`` read.

NATS-Bench (Dong et al. 2021), topology search space: the folder ``NATS-tss-v1_0-3ffb9-simple`` holds
``meta.pickle.pbz2``, a dict with the texts of all cells in ``meta_archs``, and for each of them ``NNNNNN.pickle.pbz2``,
a dict from the number of epochs, '12' and '200', to its results. It is written by exps/NATS-Bench/tss-collect.py of
github.com/D-X-Y/AutoDL-Projects and read by nats_bench/api_utils.py of github.com/D-X-Y/NATS-Bench, whose
``get_more_info`` and ``get_cost_info`` define the numbers taken here, with the mean over trials (``is_random=False``).

HW-NAS-Bench (Li et al. 2021): ``HW-NAS-Bench-v1_0.pickle`` holds, under 'nasbench201' and the name of a data set, a
list of each metric, such as 'edgegpu_latency', and the cells in 'config'. It is read by
hw_nas_bench_api/hw_nas_bench_api.py of github.com/GATECH-EIC/HW-NAS-Bench.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_engine.data.safe_pickle import load_plain_pickle
from nas_engine.errors import ConfigError

if TYPE_CHECKING:
    from nas_engine.context import Advance, Reporter

ACCURACY_FILE = "nasbench201_accuracy.csv.gz"
HARDWARE_FILE = "nasbench201_hardware.csv.gz"

_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_CELL = re.compile("\\+".join(r"\|" + "".join(rf"(\w+)~{source}\|" for source in range(n)) for n in (1, 2, 3)))
# Name in columns: trained on half of the training images, trained on all, and the set that counts as the test.
_DATASETS = {
    "cifar10": ("cifar10-valid", "cifar10", "ori-test"),
    "cifar100": ("cifar100", "cifar100", "x-test"),
    "imagenet16": ("ImageNet16-120", "ImageNet16-120", "x-test"),
}
_SOURCES = "the folder NATS-tss-v1_0-3ffb9-simple of NATS-Bench, or HW-NAS-Bench-v1_0.pickle"
_AGAIN = "take the official file again"
_SHOWN = 8

Row = dict[str, Any]


def convert(sources: Sequence[Path], out: Path, reporter: Reporter) -> list[Path]:
    """Write a table for each of the official sources; two sources must describe the same cells.

    Args:
        sources: the folder of NATS-Bench, the pickle of HW-NAS-Bench, or both.
        out: folder of the tables; made where it is missing.
        reporter: shows how far the conversion is.

    Returns:
        The files written, under the names that the built-in descriptions look for.

    Raises:
        ConfigError: a source is neither of the two, damaged or incomplete, or a table exists already.
    """
    folders, files = [s for s in sources if s.is_dir()], [s for s in sources if s.is_file()]
    strange = [str(s) for s in sources if s not in folders and (s not in files or s.suffix not in {".pickle", ".pkl"})]
    if strange or len(folders) > 1 or len(files) > 1:
        got = ", ".join(strange) or f"{len(folders)} folders and {len(files)} files"
        raise ConfigError(f"{got}: allowed is {_SOURCES}, or one of each: name what you have")
    targets = [out / name for name, given in ((ACCURACY_FILE, folders), (HARDWARE_FILE, files)) if given]
    for target in targets:
        if target.exists():
            raise ConfigError(f"{str(target)!r} exists already: remove it, or name another folder with --out")
    cells = cells_of(folders[0]) if folders else None
    # First the small file, whose mistakes show at once.
    for file in files:
        with reporter.phase("HW-NAS-Bench") as advance:
            _write(out / HARDWARE_FILE, hardware_rows(file, cells, advance))
    for folder in folders:
        with reporter.phase("NATS-Bench") as advance:
            _write(out / ACCURACY_FILE, accuracy_rows(folder, cells or [], advance))
    return targets


def cells_of(folder: Path) -> list[str]:
    """The cells of a folder of NATS-Bench, by their official index.

    Raises:
        ConfigError: it is no such folder, or lacks a file.
    """
    meta = folder / "meta.pickle.pbz2"
    if not meta.is_file():
        raise ConfigError(f"folder {str(folder)!r} has no {meta.name}: allowed is {_SOURCES}")
    loaded = _load(meta)
    cells = _entry(loaded, "meta_archs", meta.name)
    if not isinstance(cells, list) or not cells or len(cells) != loaded.get("total_archs", len(cells)):
        count = len(cells) if isinstance(cells, list) else "no"
        raise ConfigError(f"{meta.name} lists {count} cells of {loaded.get('total_archs')}: {_AGAIN}")
    for cell in cells:
        _digits(cell, meta.name)
    there = set(os.listdir(folder))
    missing = [name for name in map(_file_of, range(len(cells))) if name not in there]
    if missing:
        raise ConfigError(
            f"folder {str(folder)!r} lacks {len(missing):,} of {len(cells):,} files, the first is {missing[0]}: "
            "unpack the archive of NATS-Bench again"
        )
    return cells


def accuracy_rows(folder: Path, cells: Sequence[str], advance: Advance) -> Iterator[Row]:
    """The rows of the table of accuracies; one file at a time is in memory.

    Yields:
        idx, arch and ops; for each data set the accuracies in percent after 12 epochs on validation (val12_*) and test
        images (test12_*) and after 200 epochs on test images (test200_*), the seconds of 12 epochs of training and one
        pass over the validation images (cost12_*_s), parameters, and multiply-accumulates.

    Raises:
        ConfigError: a file is damaged, or lacks a result.
    """
    for index, cell in enumerate(cells):
        name = _file_of(index)
        loaded = _load(folder / name)
        results = {hp: _entry(loaded, hp, name) for hp in ("12", "200")}
        for hp, result in results.items():
            _refuse_other(cell, _entry(result, "arch_str", f"{name}, {hp} epochs"), f"{name}, {hp} epochs")
        row: Row = {"idx": index, "arch": cell, "ops": _digits(cell, "meta.pickle.pbz2")}
        for short, (half, full, test) in _DATASETS.items():
            halves, fulls, longs = (
                _trials(results[hp], dataset, f"{name}, {hp} epochs")
                for hp, dataset in (("12", half), ("12", full), ("200", full))
            )
            row[f"val12_{short}"] = _mean(trial.accuracy("x-valid") for trial in halves)
            row[f"test12_{short}"] = _mean(trial.accuracy(test) for trial in fulls)
            row[f"test200_{short}"] = _mean(trial.accuracy(test) for trial in longs)
            row[f"cost12_{short}_s"] = _mean(trial.seconds("x-valid") for trial in halves)
            row[f"params_{short}"] = round(_mean(trial.number("params") for trial in fulls) * 1e6)
            row[f"macs_{short}"] = round(_mean(trial.number("flop") for trial in fulls) * 1e6)
        yield row
        advance(index + 1, len(cells), {})


def hardware_rows(file: Path, cells: Sequence[str] | None, advance: Advance) -> Iterator[Row]:
    """The rows of the table of costs on devices.

    Args:
        file: the pickle of HW-NAS-Bench.
        cells: those of NATS-Bench, which must be the same; None where only this file is there.
        advance: told of each row.

    Yields:
        idx, arch, ops and hwnas_{data set}_{metric}: latencies in ms (-1: not to be compiled), energies in mJ.

    Raises:
        ConfigError: the file is damaged, or lacks a data set or values.
    """
    space = _entry(_load(file), "nasbench201", file.name)
    columns: dict[str, Sequence[Any]] = {}
    for short, (_, dataset, _) in _DATASETS.items():
        where = f"{file.name}, nasbench201, {dataset}"
        found, metrics = _hardware(_entry(space, dataset, f"{file.name}, nasbench201"), where)
        cells = found if cells is None else cells
        if len(found) != len(cells):
            raise ConfigError(f"{where} has {len(found):,} cells instead of {len(cells):,}: {_AGAIN}")
        for cell, other in zip(cells, found, strict=True):
            _refuse_other(cell, other, where)
        columns |= {f"hwnas_{short}_{name}": values for name, values in metrics.items()}
    for index, cell in enumerate(cells or []):
        numbers = {name: _number(values[index], f"{file.name}, {name}, {index}") for name, values in columns.items()}
        yield {"idx": index, "arch": cell, "ops": _digits(cell, file.name), **numbers}
        advance(index + 1, len(cells or []), {})


def _hardware(content: Any, where: str) -> tuple[list[Any], dict[str, list[Any]]]:
    """The cells and metrics of a data set, lists of one length."""
    configs = _listed(_entry(content, "config", where), f"{where}, config")
    cells = [_entry(config, "arch_str", f"{where}, config") for config in configs]
    metrics = {name: _listed(values, f"{where}, {name}") for name, values in content.items() if name != "config"}
    for name, values in metrics.items():
        if len(values) != len(cells):
            raise ConfigError(f"{where}: {name!r} has {len(values):,} values for {len(cells):,} cells: {_AGAIN}")
    if not metrics or not cells:
        raise ConfigError(f"{where} has {len(metrics)} metrics of {len(cells)} cells: {_AGAIN}")
    return cells, metrics


class _Trial:
    """One training: what ``ResultsCount`` of the official code holds."""

    def __init__(self, trial: Any, where: str) -> None:
        self._trial, self._where = trial, where
        self._epochs = int(self.number("epochs"))

    def number(self, key: str) -> float:
        return _number(_entry(self._trial, key, self._where), f"{self._where}, {key}")

    def accuracy(self, images: str) -> float:
        return self._at("eval_acc1es", f"{images}@{self._epochs - 1}")

    def seconds(self, images: str) -> float:
        """Of the training and one evaluation: train-all-time and valid-per-time of the official ``get_more_info``."""
        training = sum(self._at("train_times", epoch) for epoch in range(self._epochs))
        return training + _mean(self._at("eval_times", f"{images}@{epoch}") for epoch in range(self._epochs))

    def _at(self, key: str, inner: Any) -> float:
        where = f"{self._where}, {key}"
        return _number(_entry(_entry(self._trial, key, self._where), inner, where), f"{where}, {inner}")


def _trials(results: Any, dataset: str, where: str) -> list[_Trial]:
    seeds = _listed(_entry(_entry(results, "dataset_seed", where), dataset, f"{where}, dataset_seed"), where)
    if not seeds or not all(isinstance(seed, int) for seed in seeds):
        raise ConfigError(f"{where}, dataset_seed, {dataset} is {str(seeds)[:40]} instead of seeds: {_AGAIN}")
    everything = _entry(results, "all_results", where)
    keys = [(dataset, seed) for seed in seeds]
    return [_Trial(_entry(everything, key, f"{where}, all_results"), f"{where}, {key[0]} {key[1]}") for key in keys]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _file_of(index: int) -> str:
    return f"{index:06d}.pickle.pbz2"


def _load(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        return load_plain_pickle(bz2.decompress(content) if path.suffix == ".pbz2" else content)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle raises almost any type
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"{str(path)!r} is damaged or not of the published form ({reason}): {_AGAIN}, from {_SOURCES}"
        ) from error


def _entry(mapping: Any, key: Any, where: str) -> Any:
    if not isinstance(mapping, dict):
        raise ConfigError(f"{where} is of type {type(mapping).__name__} instead of a dict with {key!r}: {_AGAIN}")
    if key not in mapping:
        there = ", ".join(repr(other)[:40] for other in list(mapping)[:_SHOWN])
        raise ConfigError(f"{where} has no {key!r} but {there or 'nothing'}: {_AGAIN}")
    return mapping[key]


def _listed(value: Any, where: str) -> list[Any]:
    """A list, an array of one dimension, or a dict from indices to entries."""
    if isinstance(value, dict):
        return [_entry(value, index, where) for index in range(len(value))]
    if isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim == 1):
        return list(value)
    raise ConfigError(f"{where} is of type {type(value).__name__} instead of a list: {_AGAIN}")


def _number(value: Any, where: str) -> float:
    if isinstance(value, np.generic):  # an entry of an array
        value = value.item()
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ConfigError(f"{where} is {str(value)[:40]!r} instead of a finite number: {_AGAIN}")
    return value


def _refuse_other(cell: str, found: Any, where: str) -> None:
    if found != cell:
        raise ConfigError(f"{where} is of the cell {str(found)[:120]!r} instead of {cell!r}: {_AGAIN}")


def _digits(cell: str, source: str) -> str:
    match = _CELL.fullmatch(str(cell))
    if match is None or not set(match.groups()) <= set(_OPS):
        raise ConfigError(
            f"{source}: {str(cell)[:120]!r} is no cell of the topology search space, such as "
            f"'|none~0|+|none~0|none~1|+|none~0|none~1|none~2|' with {', '.join(_OPS)}: allowed is {_SOURCES}"
        )
    return "".join(str(_OPS.index(op)) for op in match.groups())


def _write(path: Path, rows: Iterator[Row]) -> None:
    """Equal rows give equal bytes; a file under its name is complete."""
    part = path.with_name(f"{path.name}.part")
    try:
        first = next(rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.GzipFile(part, "wb", mtime=0) as packed, io.TextIOWrapper(packed, "utf-8", newline="") as text:
            writer = csv.DictWriter(text, list(first), lineterminator="\n")
            writer.writeheader()
            writer.writerows(chain([first], rows))
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {str(path)!r} ({error.strerror}): name another folder with --out") from error
    finally:
        part.unlink(missing_ok=True)
