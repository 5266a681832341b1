"""The device cost model: sums checked by hand, one call with the counts, a search with it, and files with faults."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nas_engine as ne
from nas_engine import registry
from nas_engine.assembly import assemble, check_feasibility
from nas_engine.config import load_config
from nas_engine.costs.device import DeviceCost, DeviceOptions
from nas_engine.data.loading import load_dataset
from nas_engine.errors import ConfigError
from nas_engine.nn.nasbench201 import EDGES, OPERATIONS
from nas_engine.ops.cost_estimate import cost_estimate
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.mobilenet import MobileNetOptions, MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Space
from nas_engine.types import Architecture, ImageShape

CELLS = NASBench201Space(ImageShape(1, 8, 8, 10))
MOBILENETS = MobileNetSpace(
    ImageShape(3, 16, 16, 10), MobileNetOptions(stages=((8, 2, 1), (16, 2, 2)), kernels=(3,), expansions=(2, 4))
)


def cell_file() -> dict[str, Any]:
    """Operation i on edge e costs i ms and 10 * i * (e + 1) mJ."""
    entries = {
        f"edge {source}>{target}": {name: [i, 10.0 * i * (edge + 1)] for i, name in enumerate(OPERATIONS)}
        for edge, (source, target) in enumerate(EDGES)
    }
    return {
        "space": "nasbench201",
        "device": "imagined",
        "shape": [1, 8, 8, 10],
        "options": {"channels": 8, "cells": 1},
        "metrics": ["latency_ms", "energy_mj"],
        "tables": [{"constant": [0.5, 2], "entries": entries}],
    }


def mobilenet_file() -> dict[str, Any]:
    """Everything twice as slow at width 1.0, and a hundredth more for every later layer."""
    tables = []
    for width, factor in (("0.75", 1.0), ("1", 2.0)):
        entries: dict[str, dict[str, list[float]]] = {"resolution": {"0.75": [0.0], "1": [0.25]}}
        for layer, decision in enumerate(MOBILENETS.decisions[2:]):
            costs = {"k3e2": [factor + layer / 100], "k3e4": [2 * factor + layer / 100], "skip": [0.0]}
            entries[decision.name] = {choice: costs[choice] for choice in decision.choices}
        tables.append({"context": {"width": width}, "constant": [factor / 10], "entries": entries})
    return {"space": "mobilenet", "metrics": ["latency_ms"], "context": ["width"], "tables": tables[::-1]}


def written(folder: Path, content: object) -> DeviceOptions:
    path = folder / "device.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return DeviceOptions(path=str(path))


def price(space: SearchSpace, options: DeviceOptions, *genes: tuple[int, ...]) -> list[list[float]]:
    return DeviceCost(space, options).estimate([Architecture(space.name, g) for g in genes]).tolist()


def test_only_live_edges_of_a_cell_cost_something(tmp_path: Path) -> None:
    options = written(tmp_path, cell_file())
    assert DeviceCost(CELLS, options).names == ("latency_ms", "energy_mj")
    # Edge 0>3 (number 3) with operation 2; the edges 0>1 and 1>2 lead nowhere.
    assert price(CELLS, options, (0, 0, 0, 2, 0, 0), (3, 0, 3, 2, 0, 0)) == [[2.5, 2 + 10 * 2 * 4]] * 2
    assert price(CELLS, options, (1, 2, 3, 4, 1, 2)) == [[13.5, 2 + 10 * (1 + 4 + 9 + 16 + 5 + 12)]]


def test_entries_depend_on_the_context(tmp_path: Path) -> None:
    options = written(tmp_path, mobilenet_file())
    skip = 2
    costs = price(MOBILENETS, options, (0, 0, 1, skip, 0, skip), (1, 1, 1, 0, 0, 1))
    np.testing.assert_allclose(costs, [[0.1 + 2 + 1.02], [0.2 + 0.25 + 4 + 2.01 + 2.02 + 4.03]], rtol=1e-12)


def test_what_was_not_measured_is_not_known(tmp_path: Path) -> None:
    content = cell_file()
    content["tables"][0]["entries"]["edge 0>3"]["nor_conv_3x3"] = [None, 3.0]
    unknown, known = price(CELLS, written(tmp_path, content), (0, 0, 0, 3, 0, 0), (0, 0, 0, 2, 0, 0))
    assert np.isnan(unknown[0])
    assert unknown[1] == 5.0
    assert known == [2.5, 82.0]


def test_counts_memory_costs_of_a_device_and_rewards_in_one_call(tmp_path: Path) -> None:
    device = DeviceCost(MOBILENETS, written(tmp_path, mobilenet_file()))
    objective = ne.objectives.soft_power("latency_ms", target=3.0)
    memory = MOBILENETS.memory_table()
    assert memory is not None
    prices = MOBILENETS.prices(MOBILENETS.cost_table(), memory, device.table)
    assert prices.names == ("params", "macs", "peak_activation_bytes", "latency_ms")
    architectures = list(MOBILENETS)
    accuracy = np.random.default_rng(0).random(len(architectures))
    found = cost_estimate(MOBILENETS.genes(architectures), prices, objective.formula, accuracy)
    np.testing.assert_array_equal(found.measures, device.estimate(architectures))
    for row, architecture in enumerate(architectures):
        assert found.counts[row, 2] == MOBILENETS.peak_activation_bytes(architecture)
    metrics = [{"accuracy": a, "latency_ms": ms} for a, ms in zip(accuracy, found.measures[:, 0], strict=True)]
    expected = [objective(ne.Metrics(values)) for values in metrics]
    np.testing.assert_allclose(found.rewards, expected, rtol=1e-12)


def test_it_is_the_cost_device() -> None:
    assert registry.resolve("cost", "device") is DeviceCost
    with pytest.raises(ConfigError, match="cost 'device' needs 'path'"):
        DeviceCost(CELLS)


def test_a_search_prices_with_it_and_checks_its_limits(tmp_path: Path) -> None:
    options = written(tmp_path, cell_file())
    costs = [{"name": "device", "path": options.path}]
    config = load_config(overrides={"costs": costs, "constraints": ["energy_mj <= 100"], "objective": "weighted_sum"})
    parts = assemble(config, load_dataset("digits"))
    assert [name for model in parts.cost_models for name in model.names][-2:] == ["latency_ms", "energy_mj"]
    report = check_feasibility(parts, seed=0)
    assert report is not None
    assert 0 < report.share < 1


def entry(content: dict[str, Any]) -> dict[str, Any]:
    """Choices of one edge."""
    return content["tables"][0]["entries"]["edge 0>1"]


def remove_tables(content: dict[str, Any]) -> None:
    content["context"] = ["edge 0>1"]
    del content["tables"][0]["entries"]["edge 0>1"]
    content["tables"][0]["context"] = {"edge 0>1": "none"}


FAULTS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda c: c.pop("space"), "space is missing; add it"),
    (lambda c: c.update(space="mobilenet"), "is for the space 'mobilenet', this search has 'nasbench201'"),
    (lambda c: c.update(metric=["a"]), "metric is unknown: did you mean 'metrics'?"),
    (lambda c: c.update(metrics=[]), r"metrics: Tuple should have at least 1 item.*, got \[\]"),
    (lambda c: c.update(metrics=["a", "a"]), "metrics: .*must be names without repeats"),
    (lambda c: c.update(tables=[]), r"tables: Tuple should have at least 1 item"),
    (lambda c: c.update(tables=c["tables"] * 2), r"tables\[1\] is the second one with the context {}; remove one"),
    (lambda c: c.update(shape=[1, 8, 8]), r"shape\[3\] is missing"),
    (lambda c: c.update(shape=[3, 8, 8, 10]), r"is for images and classes of shape \[3, 8, 8, 10\], these are \[1, 8"),
    (lambda c: c["options"].update(channels=16), "is for channels 16, this search has 8; set space.channels"),
    (lambda c: c["options"].update(chanels=8), "'chanels' is no option of 'nasbench201': did you mean 'channels'?"),
    (lambda c: c.update(context=["edge 1>0"]), "context has no 'edge 1>0': did you mean 'edge"),
    (lambda c: c["tables"][0].update(context={"edge 0>1": "none"}), r"tables\[0\].context has no 'edge 0>1'"),
    (lambda c: c["tables"][0].pop("constant"), r"tables\[0\].constant is missing; add it"),
    (lambda c: c["tables"][0].update(constants=[1]), r"tables\[0\].constants is unknown: did you mean 'constant'\?"),
    (lambda c: c["tables"][0].update(constant=[1]), r"constant has 1 numbers \[1.0\]: give one for each of latency_ms"),
    (lambda c: c["tables"][0]["entries"].pop("edge 0>1"), r"entries lacks 'edge 0>1'; add it \(null where"),
    (lambda c: c["tables"][0]["entries"].update(edge={}), r"tables\[0\].entries has no 'edge': did you mean 'edge"),
    (lambda c: entry(c).pop("none"), r"entries\['edge 0>1'\] lacks 'none'; add it"),
    (lambda c: entry(c).update(conv=[1, 2]), r"entries\['edge 0>1'\] has no 'conv'.*Allowed: avg_pool_3x3"),
    (lambda c: entry(c).update(none=[1]), r"entries\['edge 0>1'\]\['none'\] has 1 numbers"),
    (lambda c: entry(c).update(none=["1", 2]), r"none\[0\]: Input should be a valid number, got '1'"),
    (lambda c: entry(c).update(none=[True, 2]), r"none\[0\]: Input should be a valid number, got True"),
    (lambda c: entry(c).update(none=[float("nan"), 2]), r"none\[0\]: Input should be a finite number, got nan"),
    (lambda c: entry(c).update(none=[10**400, 2]), r"none\[0\]: Input should be a (finite|valid) number"),
    (lambda c: entry(c).update(none={"x" * 500: 1}), r"none: .*got \{'x+\.\.\.$"),
    (remove_tables, "has no table for edge 0>1 skip_connect; add one to 'tables'"),
]


@pytest.mark.parametrize(("spoil", "says"), FAULTS, ids=[says[:40] for _, says in FAULTS])
def test_a_file_with_a_fault_is_refused_in_one_line(
    spoil: Callable[[dict[str, Any]], Any], says: str, tmp_path: Path
) -> None:
    content = copy.deepcopy(cell_file())
    spoil(content)
    with pytest.raises(ConfigError, match=says) as caught:
        DeviceCost(CELLS, written(tmp_path, content))
    assert "\n" not in str(caught.value)
    assert "device.json'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot read device table .* as JSON: Expecting value: line 1 column 1"),
        ("{", "as JSON"),
        ("[" * 100_000, "as JSON"),
        ('{"space": "a", "space": "b"}', "'space' stands twice in one object"),
        ("[1]", "the file: Input should be a valid dictionary"),
        ("null", "the file: Input should be a valid dictionary"),
        ("1" * 5000, "cannot read device table"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_one_line(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        DeviceCost(CELLS, written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_opened_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.json' does not exist: name a .json file"):
        DeviceCost(CELLS, DeviceOptions(path=str(tmp_path / "absent.json")))
    with pytest.raises(ConfigError, match="cannot read device table"):
        DeviceCost(CELLS, DeviceOptions(path=str(tmp_path)))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigError, match="cannot read device table"):
        DeviceCost(CELLS, DeviceOptions(path=str(tmp_path / "bytes.json")))
