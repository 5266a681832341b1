"""The NAS-Bench-201 space: the contract, its text forms, its rules, and its classes of equal functions."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from nas_engine.errors import ConfigError
from nas_engine.nn.nasbench201 import EDGES, OPERATIONS
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.spaces.nasbench201_canonical import Genes, representatives
from nas_engine.testing.space_contract import SpaceContract
from nas_engine.types import Architecture, ImageShape

SHAPE = ImageShape(1, 8, 8, 10)
OFFICIAL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"


class TestConnectedCells(SpaceContract):
    @pytest.fixture
    def space(self):
        return NASBench201Space(SHAPE)


class TestAllCellsOnOddImages(SpaceContract):
    @pytest.fixture
    def space(self):
        options = NASBench201Options(channels=3, cells=2, allow_disconnected=True)
        return NASBench201Space(ImageShape(3, 5, 9, 7), options)


@pytest.fixture(scope="module")
def space():
    return NASBench201Space(SHAPE, NASBench201Options(allow_disconnected=True))


@pytest.fixture(scope="module")
def table(data_folder: Path) -> list[dict[str, str]]:
    with gzip.open(data_folder / "nasbench201_accuracy.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


def test_the_published_table_is_read_and_written(space, table):
    architectures = [space.decode(row["ops"]) for row in table]
    assert architectures == [space.decode(row["arch"]) for row in table]
    assert [space.encode(architecture) for architecture in architectures] == [row["arch"] for row in table]
    assert len(set(architectures)) == space.size == 15_625


def test_three_text_forms_name_one_architecture(space):
    expected = Architecture("nasbench201", (3, 3, 4, 1, 3, 1))
    assert [space.decode(text) for text in (OFFICIAL, "334131", expected.key)] == [expected] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OFFICIAL.replace("avg_pool_3x3", "avg_pol_3x3"), "unknown operation 'avg_pol_3x3'.*did you mean 'avg_pool"),
        (OFFICIAL.replace("~2", "~1"), "is no cell: write it as"),
        (OFFICIAL[:-1], "is no cell: write it as"),
        (OFFICIAL.replace("+", ""), "is no cell: write it as"),
        (OFFICIAL + "+|none~0|none~1|none~2|none~3|", "is no cell: write it as"),
        ("33413", "6 digits of 0 to 4"),
        ("334135", "6 digits of 0 to 4"),
        ("³³⁴¹³¹", "is no cell"),
        ("nasbench201:3-3-4", "6 decisions, got 3 genes"),
        ("mobilenet:3-3-4-1-3-1", "is no cell"),
    ],
)
def test_bad_text_is_explained(space, text, message):
    with pytest.raises(ConfigError, match=message):
        space.decode(text)


def test_cells_without_a_path_need_the_option(space):
    connected_only = NASBench201Space(SHAPE)
    for text in ("000000", "300000", "003021"):
        assert space.encode(space.decode(text)).startswith("|")
        with pytest.raises(ConfigError, match=r"no path from input to output.*allow_disconnected"):
            connected_only.decode(text)


def test_masks_exclude_exactly_the_cells_without_a_path():
    expected = {genes for genes in itertools.product(range(5), repeat=6) if _has_path(genes)}
    assert {architecture.genes for architecture in NASBench201Space(SHAPE)} == expected
    assert len(expected) == 15_284


@pytest.mark.parametrize(("height", "width"), [(3, 32), (32, 3), (1, 1)])
def test_too_small_images_are_refused(height, width):
    with pytest.raises(ConfigError, match=f"{height} x {width} are too small.*at least 4 x 4"):
        NASBench201Space(ImageShape(1, height, width, 10))


@pytest.mark.parametrize("bad", [{"channels": 0}, {"cells": 0}, {"chanels": 8}])
def test_options_are_checked(bad):
    with pytest.raises(ValidationError):
        NASBench201Options(**bad)


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(("000300", "100030", "010003"), id="a skip is the identity"),
        pytest.param(("000300", "300300", "020300", "003300", "000303"), id="edges without effect do not count"),
        pytest.param(("320011", "230011", "200310", "020301"), id="sums are unordered"),
        pytest.param(("231301", "331201", "230311"), id="a sum of sums is one sum"),
        pytest.param(("231004", "230044", "320044"), id="pooling is linear"),
        pytest.param(("100110", "010101", "110011", "101110"), id="terms are counted"),
    ],
)
def test_cells_of_one_function(space, cells):
    assert len({space.canonical(space.decode(cell)) for cell in cells}) == 1


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(("100110", "000100"), id="x + x is not x"),
        pytest.param(("300310", "000300"), id="two convolutions have weights of their own"),
        pytest.param(("301033", "330033"), id="a shared convolution is not two"),
        pytest.param(("400040", "000400"), id="pooling twice is not pooling once"),
        pytest.param(("400030", "300040"), id="pooling before or after a convolution"),
        pytest.param(("000000", "000100"), id="zero is not the identity"),
    ],
)
def test_cells_of_different_functions(space, cells):
    assert len({space.canonical(space.decode(cell)) for cell in cells}) == len(cells)


def test_number_of_classes():
    classes = representatives()
    connected = {genes for genes in classes if _has_path(genes)}
    assert (len(classes), len(set(classes.values()))) == (15_625, 5_044)
    assert (len(connected), len({classes[genes] for genes in connected})) == (15_284, 5_043)


def test_the_published_number_of_classes():
    cells = representatives()
    assert len({_published_form(genes, consider_zero=True) for genes in cells}) == 6_466
    assert len({_published_form(genes, consider_zero=False) for genes in cells}) == 12_751


def test_representatives_are_the_cheapest_of_their_class():
    for representative, members in _classes().items():
        assert representative == min(members, key=lambda genes: (_cost(genes), genes))
        assert len({_cost(genes)[:2] for genes in members}) == 1


def test_accuracies_within_a_class_differ_by_chance_only(space, table):
    accuracies: dict[Architecture, list[float]] = defaultdict(list)
    for row in table:
        accuracies[space.canonical(space.decode(row["ops"]))].append(float(row["test200_cifar10"]))
    variances = [np.var(values, ddof=1) for values in accuracies.values() if len(values) > 1]
    # Trained from other seeds, one network of the table varies by about 0.2 points; the table as a whole by 13.
    assert np.sqrt(np.mean(variances)) < 0.25


def _paths(genes: Genes) -> list[list[tuple[int, int]]]:
    gene_of = dict(zip(EDGES, genes, strict=True))
    routes = ([(0, 3)], [(0, 1), (1, 3)], [(0, 2), (2, 3)], [(0, 1), (1, 2), (2, 3)])
    return [route for route in routes if all(gene_of[edge] for edge in route)]


def _has_path(genes: Genes) -> bool:
    return bool(_paths(genes))


def _cost(genes: Genes) -> tuple[int, ...]:
    """How often each operation is on a path from input to output, the most expensive first."""
    gene_of = dict(zip(EDGES, genes, strict=True))
    used = Counter(OPERATIONS[gene_of[edge]] for edge in {edge for path in _paths(genes) for edge in path})
    return tuple(used[name] for name in ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3", "skip_connect"))


def _classes() -> dict[Genes, list[Genes]]:
    classes: dict[Genes, list[Genes]] = defaultdict(list)
    for genes, representative in representatives().items():
        classes[representative].append(genes)
    return classes


def _published_form(genes: Genes, consider_zero: bool) -> str:
    """`CellStructure.to_unique_str` of the benchmark's authors, in the counting of their paper."""
    nodes = {0: "0"}
    for target in (1, 2, 3):
        terms = []
        for (source, end), gene in zip(EDGES, genes, strict=True):
            operation = OPERATIONS[gene]
            if end != target:
                continue
            if consider_zero and (operation == "none" or nodes[source] == "#"):
                terms.append("#")
            elif operation == "skip_connect":
                terms.append(nodes[source])
            else:
                terms.append(f"({nodes[source]})@{operation}")
        nodes[target] = "+".join(sorted(terms))
    return nodes[3]
