"""Fitted tables: what adds up is found again exactly, and published latencies are foretold closely."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nas_engine.costs.device import DeviceCost, DeviceOptions, device_table
from nas_engine.costs.device_file import read_device_file
from nas_engine.costs.device_fit import fit_device_file
from nas_engine.costs.lookup import LookupCost, LookupOptions
from nas_engine.costs.measured import LatencyOptions, MeasuredLatency
from nas_engine.errors import ConfigError
from nas_engine.ops.cost_estimate import cost_estimate
from nas_engine.spaces.base import CostTable, SearchSpace
from nas_engine.spaces.mobilenet import MobileNetOptions, MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Space
from nas_engine.testing.block_space import BlockSpace
from nas_engine.types import Architecture, ImageShape

SHAPE = ImageShape(3, 16, 16, 10)
SMALL = MobileNetOptions(stages=((8, 2, 1), (16, 2, 2)), kernels=(3,), expansions=(2, 4))


class Additive:
    """A device whose two costs add up over choices, with other costs in each context."""

    names = ("latency_ms", "energy_mj")

    def __init__(self, space: SearchSpace) -> None:
        counted, rng = space.cost_table(), np.random.default_rng(0)
        assert counted.entries is not None
        entries = 1 + rng.random((*counted.entries.shape[:3], 2))
        if counted.cell_edges is not None:
            entries[:, :, counted.zero_choice] = 0
        constant = rng.random((len(entries), 2))
        context = counted.context_decisions
        table = CostTable(self.names, context, constant, entries, counted.cell_edges, counted.zero_choice)
        self.space, self.prices = space, space.prices(table)

    def estimate(self, architectures: list[Architecture]) -> np.ndarray:
        return cost_estimate(self.space.genes(architectures), self.prices).measures


@pytest.mark.parametrize("space", [NASBench201Space(SHAPE), MobileNetSpace(SHAPE, SMALL), BlockSpace()])
def test_costs_that_add_up_are_found_again(space: SearchSpace, tmp_path: Path) -> None:
    truth = Additive(space)
    fit = fit_device_file(space, truth, samples=400)
    assert max(fit.errors) < 1e-9
    assert fit.held_out == 80
    (tmp_path / "device.json").write_text(fit.file.model_dump_json(indent=1))
    assert read_device_file(str(tmp_path / "device.json")) == fit.file
    model = DeviceCost(space, DeviceOptions(path=str(tmp_path / "device.json")))
    rng = np.random.default_rng(1)
    others = [space.sample(rng) for _ in range(300)]
    np.testing.assert_allclose(model.estimate(others), truth.estimate(others), rtol=1e-9)


def test_what_no_sample_uses_stays_unknown() -> None:
    space = BlockSpace()
    fit = fit_device_file(space, Additive(space), samples=3)
    entries = [costs for row in fit.file.tables[0].entries.values() for costs in row.values()]
    assert (None, None) in entries
    assert any(None not in costs for costs in entries)


def test_a_context_without_samples_is_named() -> None:
    space = MobileNetSpace(SHAPE, SMALL)
    with pytest.raises(ConfigError, match=r"none of 2 samples of 'mobilenet' was measured with .*width"):
        fit_device_file(space, Additive(space), samples=2)


def test_published_latencies_of_all_cells_are_foretold_from_few(data_folder: Path) -> None:
    """A sum over live edges, fitted to 400 cells, is within 6 % of the latency of half of all 15,284 cells."""
    space = NASBench201Space(ImageShape(3, 32, 32, 10))
    published = LookupCost(
        space,
        LookupOptions(
            path=str(data_folder / "nasbench201_hardware.csv.gz"),
            keys_path=str(data_folder / "nasbench201_accuracy.csv.gz"),
            columns={"hwnas_cifar10_edgegpu_latency": "latency_ms"},
        ),
    )
    fit = fit_device_file(space, published, samples=500)
    architectures = list(space)
    prices = space.prices(device_table(space, fit.file, "fitted"))
    predicted = cost_estimate(space.genes(architectures), prices).measures
    latencies = published.estimate(architectures)
    error = np.median(np.abs(predicted / latencies - 1))
    assert error < 0.06
    assert error < np.median(np.abs(np.median(latencies) / latencies - 1)) / 3  # a guess that is the same for all
    assert fit.errors[0] == pytest.approx(error, abs=0.02)


def test_latencies_of_this_machine_fill_a_table() -> None:
    space = BlockSpace()
    fit = fit_device_file(space, MeasuredLatency(space, LatencyOptions(warmup=0, repeats=1)), samples=80, device="here")
    assert fit.file.device == "here"
    assert fit.file.metrics == ("latency_ms",)
    assert all(None not in costs for row in fit.file.tables[0].entries.values() for costs in row.values())
