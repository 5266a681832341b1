"""Analytic costs against the published table, running networks, and the promises of `CostModel`."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_engine.costs.analytic import AnalyticCost
from nas_engine.costs.measured import measured_peak_activation_bytes
from nas_engine.nn.nasbench201 import EDGES, OPERATIONS
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.testing.block_space import BlockSpace
from nas_engine.types import Architecture, ImageShape

PUBLISHED_SIZE = NASBench201Options(channels=16, cells=5, allow_disconnected=True)
PUBLISHED_SHAPES = {
    "cifar10": ImageShape(3, 32, 32, 10),
    "cifar100": ImageShape(3, 32, 32, 100),
    "imagenet16": ImageShape(3, 16, 16, 120),
}
any_genes = st.tuples(*[st.integers(0, len(OPERATIONS) - 1)] * len(EDGES))


@pytest.fixture(scope="module")
def table(data_folder: Path) -> list[dict[str, str]]:
    with gzip.open(data_folder / "nasbench201_accuracy.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


def architectures_of(table: list[dict[str, str]]) -> list[Architecture]:
    return [Architecture("nasbench201", tuple(map(int, row["ops"]))) for row in table]


def published_costs(table: list[dict[str, str]], dataset: str) -> np.ndarray:
    return np.array([[int(row[f"params_{dataset}"]), int(row[f"macs_{dataset}"])] for row in table])


@pytest.mark.parametrize("dataset", PUBLISHED_SHAPES)
def test_all_published_counts_are_met_exactly(table, dataset):
    space = NASBench201Space(PUBLISHED_SHAPES[dataset], PUBLISHED_SIZE)
    costs = AnalyticCost(space, count_dead_edges=True, with_memory=False).estimate(architectures_of(table))
    assert costs.shape == (15_625, 2)
    np.testing.assert_array_equal(costs, published_costs(table, dataset))


def test_networks_without_dead_edges_cost_what_the_representative_costs(table):
    space = NASBench201Space(PUBLISHED_SHAPES["cifar10"], PUBLISHED_SIZE)
    architectures = architectures_of(table)
    costs = AnalyticCost(space, with_memory=False).estimate(architectures)
    published = published_costs(table, "cifar10")
    representatives = [space.canonical(architecture) for architecture in architectures]
    np.testing.assert_array_equal(costs, AnalyticCost(space, with_memory=False).estimate(representatives))
    assert (costs <= published).all()
    # 4,250 of the published counts include convolutions that cannot change the logits.
    assert (costs[:, 0] < published[:, 0]).sum() == 4_250


@settings(deadline=None, max_examples=60)
@given(any_genes, st.integers(1, 3), st.integers(4, 11), st.integers(4, 11), st.sampled_from([2, 10, 500]), st.data())
def test_peak_activation_bytes_equal_the_live_tensors_of_a_forward_pass(genes, channels, height, width, classes, data):
    shape = ImageShape(channels, height, width, classes)
    size = NASBench201Options(
        channels=data.draw(st.integers(1, 5)), cells=data.draw(st.integers(1, 2)), allow_disconnected=True
    )
    space = NASBench201Space(shape, size)
    architecture = Architecture("nasbench201", genes)
    measured = measured_peak_activation_bytes(space.build(architecture), shape)
    assert space.peak_activation_bytes(architecture) == measured


def test_columns_have_names_with_units():
    space = BlockSpace()
    assert AnalyticCost(space).names == ("params", "macs", "peak_activation_bytes")
    assert AnalyticCost(space, with_memory=False).names == ("params", "macs")


@pytest.mark.parametrize("with_memory", [True, False])
def test_estimates_are_float64_rows_in_order(with_memory):
    space = NASBench201Space(ImageShape(1, 8, 8, 10))
    model = AnalyticCost(space, with_memory=with_memory)
    rng = np.random.default_rng(0)
    architectures = [space.sample(rng) for _ in range(20)]
    costs = model.estimate(architectures)
    assert costs.dtype == np.float64
    assert costs.shape == (20, len(model.names))
    for row, architecture in zip(costs, architectures, strict=True):
        np.testing.assert_array_equal(model.estimate([architecture])[0], row)
    assert model.estimate([]).shape == (0, len(model.names))


def test_spaces_without_cells_have_no_dead_edges():
    space = BlockSpace()
    architectures = [space.sample(np.random.default_rng(seed)) for seed in range(10)]
    as_written = AnalyticCost(space, count_dead_edges=True).estimate(architectures)
    np.testing.assert_array_equal(as_written, AnalyticCost(space).estimate(architectures))
