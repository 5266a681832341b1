"""Files of the structure that NATS-Bench and HW-NAS-Bench publish become the tables that the descriptions read.

The files here are written key by key as exps/NATS-Bench/tss-collect.py and ``ArchResults.state_dict`` of the official
code write them, with few cells and made-up numbers.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import itertools
import os
import pickle
import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas_engine.cli import main
from nas_engine.tables.description import load_description
from nas_engine.tables.table import load_table

OPS = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
IMAGES = {
    "cifar10-valid": (25_000, {"x-valid": 25_000, "ori-test": 10_000}),
    "cifar10": (50_000, {"ori-test": 10_000}),
    "cifar100": (50_000, {"x-valid": 5_000, "x-test": 5_000, "ori-test": 10_000}),
    "ImageNet16-120": (151_700, {"x-valid": 3_000, "x-test": 3_000, "ori-test": 6_000}),
}
SEEDS = {"12": [777], "200": [777, 888, 999]}
METRICS = ["edgegpu_latency", "edgegpu_energy", "raspi4_latency", "edgetpu_latency"]


def some_cells(count: int) -> list[str]:
    every = itertools.product(OPS, repeat=6)
    texts = ["|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*ops) for ops in every]
    return random.Random(88).sample(texts, count)


def trial(dataset: str, seed: int, epochs: int, cell: str, rng: np.random.Generator) -> dict[str, Any]:
    """What ``ResultsCount.state_dict`` gives, after ``correct_time_related_info`` and ``clear_params``."""
    trained, sets = IMAGES[dataset]
    per_image = 1e-4 * float(rng.uniform(1, 2))
    # Trials of 200 epochs were evaluated on the proposed splits once, at the end.
    known = {
        f"{name}@{epoch}": float(rng.uniform(10, 95))
        for name in sets
        for epoch in range(epochs)
        if epochs == 12 or name == "ori-test" or epoch == epochs - 1
    }
    return {
        "name": dataset,
        "net_state_dict": None,
        "train_acc1es": {epoch: float(rng.uniform(10, 99)) for epoch in range(epochs)},
        "train_acc5es": {epoch: float(rng.uniform(10, 99)) for epoch in range(epochs)},
        "train_losses": {epoch: float(rng.uniform(0, 2)) for epoch in range(epochs)},
        "train_times": OrderedDict((epoch, per_image * trained) for epoch in range(epochs)),
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": cell, "class_num": 10},
        "params": np.float64(0.129306 + cell.count("nor_conv") * 0.1),
        "flop": 15.64736,
        "seed": str(seed),
        "epochs": epochs,
        "latency": [np.float64(0.015)],
        "eval_names": list(sets),
        "eval_acc1es": known,
        "eval_times": {f"{n}@{e}": per_image * count for n, count in sets.items() for e in range(epochs)},
        "eval_losses": {key: float(rng.uniform(0, 2)) for key in known},
    }


def results(index: int, cell: str) -> OrderedDict[str, Any]:
    rng = np.random.default_rng(index)
    return OrderedDict(
        {
            hp: {
                "arch_index": index,
                "arch_str": cell,
                "all_results": {(d, s): trial(d, s, int(hp), cell, rng) for d in IMAGES for s in seeds},
                "dataset_seed": {dataset: list(seeds) for dataset in IMAGES},
                "clear_net_done": True,
            }
            for hp, seeds in SEEDS.items()
        }
    )


def pack(content: Any) -> bytes:
    return bz2.compress(pickle.dumps(content, protocol=4))


def write_nats(folder: Path, cells: list[str]) -> Path:
    folder.mkdir()
    meta = {"meta_archs": cells, "total_archs": len(cells), "arch2infos": None, "evaluated_indexes": set()}
    (folder / "meta.pickle.pbz2").write_bytes(pack(meta))
    for index, cell in enumerate(cells):
        (folder / f"{index:06d}.pickle.pbz2").write_bytes(pack(results(index, cell)))
    return folder


def hardware(cells: list[str]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    space = {}
    for dataset in ("cifar10", "cifar100", "ImageNet16-120"):
        config = [{"name": "infer.tiny", "C": 16, "N": 5, "arch_str": cell, "num_classes": 10} for cell in cells]
        metrics: dict[str, Any] = {name: list(rng.uniform(1, 5, len(cells))) for name in METRICS}
        space[dataset] = {"config": config, **metrics, "edgetpu_latency": [-1, *metrics["edgetpu_latency"][1:]]}
    space["cifar100"]["edgegpu_energy"] = np.array(space["cifar100"]["edgegpu_energy"])
    return {"nasbench201": space, "fbnet": {"edgegpu_latency": {"FC_Cin1504_Cout100": np.float64(0.1)}}}


def write_hardware(path: Path, content: dict[str, Any]) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def cells() -> list[str]:
    return some_cells(30)


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory, cells: list[str]) -> Path:
    return write_nats(tmp_path_factory.mktemp("official") / "NATS-tss-v1_0-3ffb9-simple", cells)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder of its own, to be damaged."""
    return write_nats(tmp_path / "NATS-tss-v1_0-3ffb9-simple", some_cells(3))


@pytest.fixture
def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def refuse(*sources: Path) -> str:
        """The one line that refuses; no table is left behind."""
        assert run("convert", *sources, "--out", tmp_path / "out") == 2
        [line] = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ")
        assert not (tmp_path / "out").exists() or not os.listdir(tmp_path / "out")
        return line

    return refuse


def test_the_columns_are_what_the_official_api_says(tmp_path: Path, nats: Path, cells: list[str]) -> None:
    assert run("convert", nats, "--out", tmp_path) == 0
    rows = rows_of(tmp_path / "nasbench201_accuracy.csv.gz")
    assert [row["arch"] for row in rows] == cells
    for index, row in enumerate(rows):
        short, full = results(index, cells[index])["12"], results(index, cells[index])["200"]
        half = short["all_results"]["cifar10-valid", 777]
        assert float(row["val12_cifar10"]) == half["eval_acc1es"]["x-valid@11"]
        assert float(row["test12_cifar10"]) == short["all_results"]["cifar10", 777]["eval_acc1es"]["ori-test@11"]
        assert (
            float(row["val12_imagenet16"]) == (short["all_results"]["ImageNet16-120", 777]["eval_acc1es"]["x-valid@11"])
        )
        for column, dataset, images in [("cifar10", "cifar10", "ori-test"), ("cifar100", "cifar100", "x-test")]:
            trials = [full["all_results"][dataset, seed]["eval_acc1es"][f"{images}@199"] for seed in SEEDS["200"]]
            assert float(row[f"test200_{column}"]) == pytest.approx(sum(trials) / 3, rel=1e-12)
        cost = 12 * half["train_times"][0] + half["eval_times"]["x-valid@0"]
        assert float(row["cost12_cifar10_s"]) == pytest.approx(cost, rel=1e-12)
        assert int(row["params_cifar10"]) == 129_306 + 100_000 * cells[index].count("nor_conv")
        assert int(row["macs_cifar10"]) == 15_647_360


def test_digits_are_edges_in_the_order_of_the_text(tmp_path: Path) -> None:
    cell = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|skip_connect~1|nor_conv_3x3~2|"
    assert run("convert", write_nats(tmp_path / "nats", [cell]), "--out", tmp_path) == 0
    [row] = rows_of(tmp_path / "nasbench201_accuracy.csv.gz")
    assert row["ops"] == "421013"


def test_both_tables_are_read_together(tmp_path: Path, nats: Path, cells: list[str]) -> None:
    content = hardware(cells)
    assert run("convert", nats, write_hardware(tmp_path / "hw.pickle", content), "--out", tmp_path / "out") == 0
    file = tmp_path / "out" / "nasbench201_accuracy.csv.gz"
    known = {name: f"hwnas_{name}_latency" for name in ("cifar10_edgetpu", "imagenet16_raspi4")}
    changes = {"known": {**known, "energy": "hwnas_cifar100_edgegpu_energy"}, "valid": [], "constraints": []}
    table = load_table(load_description("nasbench201-hardware", changes, file=file))
    rows = rows_of(file)
    places = ["".join(map(str, genes)) for genes in table.genes]
    order = [places.index(row["ops"]) for row in rows]
    space = content["nasbench201"]
    assert np.isnan(table.known[order[0], 0])
    assert table.known[order[1:], 0].tolist() == space["cifar10"]["edgetpu_latency"][1:]
    assert table.known[order, 1].tolist() == space["ImageNet16-120"]["raspi4_latency"]
    assert table.known[order, 2].tolist() == space["cifar100"]["edgegpu_energy"].tolist()


def test_a_benchmark_runs_on_the_table(tmp_path: Path, nats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", nats, "--out", tmp_path) == 0
    assert "NATS-Bench: 30/30" in capsys.readouterr().out
    file = tmp_path / "nasbench201_accuracy.csv.gz"
    options = ["--methods", "random,evolution", "--seeds", 2, "--budget-seconds", 1_000, "--processes", 1]
    assert run("benchmark", "nasbench201", "--file", file, *options, "--out", tmp_path / "results.json") == 0
    assert "test200_cifar10" in capsys.readouterr().out


def test_equal_sources_give_equal_bytes_and_nothing_is_overwritten(
    tmp_path: Path, nats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        assert run("convert", nats, "--out", tmp_path / name) == 0
    files = [tmp_path / name / "nasbench201_accuracy.csv.gz" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert os.listdir(tmp_path / "a") == [files[0].name]
    assert run("convert", nats, "--out", tmp_path / "a") == 2
    assert "exists already: remove it, or name another folder with --out" in capsys.readouterr().err


@pytest.mark.parametrize("sources", [["absent"], ["nats.pth"], ["a", "b"]])
def test_other_sources_are_refused(tmp_path: Path, refusal: Any, sources: list[str]) -> None:
    (tmp_path / "nats.pth").write_bytes(b"PK")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert "allowed is the folder NATS-tss-v1_0-3ffb9-simple" in refusal(*(tmp_path / name for name in sources))


def test_a_folder_without_meta(tmp_path: Path, refusal: Any) -> None:
    (tmp_path / "folder").mkdir()
    assert "has no meta.pickle.pbz2" in refusal(tmp_path / "folder")


def test_a_folder_that_lacks_files(few: Path, refusal: Any) -> None:
    (few / "000001.pickle.pbz2").unlink()
    assert "lacks 1 of 3 files, the first is 000001.pickle.pbz2: unpack" in refusal(few)


class Runs:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("ran",))


def changed(index: int, **changes: Any) -> bytes:
    content = results(index, some_cells(3)[index])
    content["12"]["all_results"]["cifar100", 777].update(changes)
    return pack(content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (pack(results(1, "x"))[:-40], "damaged or not of the published form (Compressed data ended before"),
        (b"<html>", "damaged or not of the published form (Invalid data stream)"),
        (pack({"12": Runs()}), f"(it asks for {os.mkdir.__module__}.mkdir, which a data file has no need of)"),
        (pack([1]), "(it holds a list instead of a dict)"),
        (pack({"01": {}, "90": {}}), "000001.pickle.pbz2 has no '12' but '01', '90': take the official file again"),
        (pack({"12": 3, "200": 4}), "000001.pickle.pbz2, 12 epochs is of type int instead of a dict with 'arch_str'"),
        (pack(results(0, some_cells(3)[0])), "000001.pickle.pbz2, 12 epochs is of the cell"),
        (changed(1, epochs=13), "12 epochs, cifar100 777, eval_acc1es has no 'x-valid@12'"),
        (changed(1, params=float("nan")), "cifar100 777, params is 'nan' instead of a finite number"),
        (changed(1, flop="15"), "cifar100 777, flop is '15' instead of a finite number"),
        (changed(1, train_times=None), "train_times is of type NoneType instead of a dict with 0"),
    ],
    ids=[
        "truncated",
        "html",
        "code",
        "list",
        "size space",
        "number",
        "other cell",
        "epochs",
        "nan",
        "text",
        "no times",
    ],
)
def test_a_bad_file_is_one_line(few: Path, refusal: Any, content: bytes, expected: str) -> None:
    (few / "000001.pickle.pbz2").write_bytes(content)
    assert expected in refusal(few)
    assert not Path("ran").exists()


def test_the_folder_with_weights_is_refused_without_torch(few: Path, refusal: Any) -> None:
    content = results(1, some_cells(3)[1])
    content["200"]["all_results"]["cifar10", 888]["net_state_dict"] = {"stem.0.weight": torch.zeros(2, 3)}
    (few / "000001.pickle.pbz2").write_bytes(pack(content))
    line = refusal(few)
    assert "it asks for torch._utils._rebuild_tensor_v2" in line
    assert "NATS-tss-v1_0-3ffb9-simple" in line


def without_dataset(content: Any) -> None:
    for result in content.values():
        del result["dataset_seed"]["ImageNet16-120"]


def without_trials(content: Any) -> None:
    content["12"]["dataset_seed"]["cifar10"] = []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without_dataset, "dataset_seed has no 'ImageNet16-120' but 'cifar10-valid', 'cifar10', 'cifar100'"),
        (without_trials, "dataset_seed, cifar10 is [] instead of seeds"),
    ],
)
def test_missing_results_are_named(few: Path, refusal: Any, change: Any, expected: str) -> None:
    content = results(2, some_cells(3)[2])
    change(content)
    (few / "000002.pickle.pbz2").write_bytes(pack(content))
    assert expected in refusal(few)


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"meta_archs": some_cells(3), "total_archs": 4}, "meta.pickle.pbz2 lists 3 cells of 4"),
        ({"total_archs": 3}, "meta.pickle.pbz2 has no 'meta_archs'"),
        ({"meta_archs": ["8:16:24:32:40"]}, "'8:16:24:32:40' is no cell of the topology search space"),
        ({"meta_archs": ["|a~0|+|none~0|none~1|+|none~0|none~1|none~2|"]}, "is no cell of the topology search space"),
    ],
)
def test_a_strange_meta(few: Path, refusal: Any, meta: dict[str, Any], expected: str) -> None:
    (few / "meta.pickle.pbz2").write_bytes(pack(meta))
    assert expected in refusal(few)


def test_bad_hardware_is_one_line(tmp_path: Path, nats: Path, cells: list[str], refusal: Any) -> None:
    def refused(content: dict[str, Any]) -> str:
        return refusal(nats, write_hardware(tmp_path / "hw.pickle", content))

    assert "hw.pickle has no 'nasbench201' but 'fbnet'" in refused({"fbnet": {}})
    content = hardware(cells)
    del content["nasbench201"]["ImageNet16-120"]
    assert "nasbench201 has no 'ImageNet16-120' but 'cifar10', 'cifar100'" in refused(content)
    content = hardware(cells)
    content["nasbench201"]["cifar100"]["raspi4_latency"].pop()
    assert "cifar100: 'raspi4_latency' has 29 values for 30 cells" in refused(content)
    content = hardware(cells)
    content["nasbench201"]["cifar10"]["edgegpu_latency"][7] = None
    assert "hwnas_cifar10_edgegpu_latency, 7 is 'None' instead of a finite number" in refused(content)
    content = hardware(cells)
    content["nasbench201"]["cifar10"]["edgegpu_latency"] = 5
    assert "cifar10, edgegpu_latency is of type int instead of a list" in refused(content)
    assert "cifar10 has 29 cells instead of 30" in refused(hardware(cells[1:]))
    assert "is of the cell" in refused(hardware(cells[::-1]))
    (tmp_path / "hw.pickle").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert "damaged or not of the published form" in refusal(tmp_path / "hw.pickle")
