"""A table as a search space keeps the promises of one, as far as a table can."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_engine.errors import ConfigError
from nas_engine.spaces.table import TableSpace
from nas_engine.tables.description import TableDescription
from nas_engine.tables.table import load_table
from nas_engine.testing.space_contract import SpaceContract
from nas_engine.types import Architecture

CELL = {"edges": ["0>1", "0>2", "1>2"], "zero": "none", "identity": "skip"}


def space_of(folder: Path, genes: np.ndarray[Any, Any], **settings: Any) -> TableSpace:
    file = folder / "t.npz"
    np.savez(file, genes=genes, score=np.arange(len(genes)), params=10 * np.arange(len(genes)))
    columns = [f"genes.{number}" for number in range(genes.shape[1])]
    description = {"name": "t", "file": str(file), "decisions": columns, "reward": "score", "known": ["params"]}
    return TableSpace(load_table(TableDescription.model_validate({**description, **settings})))


def incomplete(rows: int, decisions: int, choices: int) -> np.ndarray[Any, Any]:
    genes = np.random.default_rng(0).integers(0, choices, (rows, decisions))
    return np.unique(genes, axis=0)


class TestIncompleteTable(SpaceContract):
    # A table has no networks.
    test_network_maps_images_to_logits = None
    test_supernet_path_maps_images_to_logits = None
    test_smallest_and_largest_path = None
    test_costs_equal_the_built_network = None
    test_peak_activation_bytes_are_exact = None
    test_the_memory_table_gives_the_same_bytes = None

    @pytest.fixture
    def space(self, tmp_path: Path) -> TableSpace:
        return space_of(tmp_path, incomplete(300, 5, 4))

    def test_canonical_form(self, space: TableSpace, architectures: list[Architecture]) -> None:
        assert [space.canonical(architecture) for architecture in architectures] == architectures

    def test_exactly_the_rows_are_valid(self, space: TableSpace) -> None:
        assert [architecture.genes for architecture in space] == [tuple(row) for row in space.table.genes.tolist()]
        assert list(space.diagram) == [architecture.genes for architecture in space]

    def test_rows_are_found_by_genes(self, space: TableSpace) -> None:
        rows = np.random.default_rng(1).permutation(space.size)
        assert space.rows_of(space.table.genes[rows]).tolist() == rows.tolist()
        every = np.stack(np.meshgrid(*[np.arange(4)] * 5, indexing="ij"), axis=-1).reshape(-1, 5)
        found = space.rows_of(every)
        assert (found >= 0).sum() == space.size
        assert space.rows_of(np.array([[0, 0, 0, 0, 4], [-1, 0, 0, 0, 0]])).tolist() == [-1, -1]

    def test_known_metrics_are_those_of_the_rows(self, space: TableSpace) -> None:
        genes = space.table.genes[[5, 2]].astype(np.int64)
        assert space.known_metric_names == ("params",)
        assert space.known_metrics(genes).tolist() == [[50.0], [20.0]]
        absent = next(g for g in itertools.product(range(4), repeat=5) if not space.diagram.contains(g))
        assert np.isnan(space.known_metrics(np.array([absent]))).all()


@pytest.mark.parametrize("method", ["build", "supernet", "cost_table", "peak_activation_bytes"])
def test_a_table_has_no_networks(tmp_path: Path, method: str) -> None:
    space = space_of(tmp_path, incomplete(10, 2, 3))
    arguments = [next(iter(space))] if method in {"build", "peak_activation_bytes"} else []
    with pytest.raises(ConfigError, match="evaluator: tabular"):
        getattr(space, method)(*arguments)


def test_a_sparse_table_of_many_decisions(tmp_path: Path) -> None:
    genes = incomplete(2_000, 22, 9)
    space = space_of(tmp_path, genes)
    assert space.size == len(genes)
    assert space.rows_of(genes).tolist() == list(range(len(genes)))
    assert space.neighbours(space.architectures[0]) == [
        a for a in space if sum(x != y for x, y in zip(a.genes, genes[0], strict=True)) == 1
    ]


def test_a_cell_says_what_its_edges_are(tmp_path: Path) -> None:
    decisions = {"columns": ["genes.0", "genes.1", "genes.2"], "choices": ["none", "skip", "conv"]}
    space = space_of(tmp_path, incomplete(20, 3, 3), cell=CELL, decisions=decisions)
    assert space.cell is not None
    assert space.cell.edges == ((0, 1), (0, 2), (1, 2))
    assert (space.cell.zero_choice, space.cell.identity_choice) == (0, 1)
    for change, expected in [
        ({"edges": ["0>1", "0>2"]}, "2 edges for 3 decisions"),
        ({"edges": ["0>1", "2>0", "1>2"]}, "'2>0' is no edge"),
        ({"zero": "zero"}, "cell.zero: 'zero' is no choice"),
    ]:
        with pytest.raises(ConfigError, match=expected):
            space_of(tmp_path, incomplete(20, 3, 3), cell={**CELL, **change}, decisions=decisions)


def test_merging_is_by_the_space_that_is_named(tmp_path: Path) -> None:
    genes = np.array([[3, 0, 0, 0, 0, 1], [0, 0, 0, 3, 0, 0], [0, 0, 0, 3, 2, 0], [2, 2, 2, 2, 2, 2]])
    columns = [f"genes.{number}" for number in range(6)]
    decisions = {
        "columns": columns,
        "choices": ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"],
    }
    apart = space_of(tmp_path, genes, decisions=decisions, space="nasbench201")
    merged = space_of(tmp_path, genes, decisions=decisions, space="nasbench201", merge_isomorphic=True)
    # Edge 1>3 of the third has no input, so the second and the third are one cell.
    first, second = (Architecture("t", tuple(genes[row].tolist())) for row in (1, 2))
    assert apart.canonical(second) == second
    assert merged.canonical(second) == merged.canonical(first) == first
    assert len({merged.canonical(architecture) for architecture in merged}) == merged.distinct == 3
    # The best of these three, with reward 2, is the one that is merged away.
    apart, merged = (
        space_of(tmp_path, genes[:3], decisions=decisions, space="nasbench201", merge_isomorphic=merge)
        for merge in (False, True)
    )
    assert (apart.optimum, merged.optimum) == (2.0, 1.0)
    with pytest.raises(ConfigError, match="has decisions with"):
        space_of(tmp_path, genes[:, :5], decisions=columns[:5], space="nasbench201", merge_isomorphic=True)


def test_choices_in_another_order_are_not_those_of_the_space(tmp_path: Path) -> None:
    """Names that were found in a column are sorted; genes would mean other operations."""
    genes = np.array([[3, 0, 0, 0, 0, 1], [2, 2, 2, 2, 2, 2]])
    columns = [f"genes.{number}" for number in range(6)]
    other = sorted(["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"])
    decisions = {"columns": columns, "choices": other}
    with pytest.raises(ConfigError, match=r"give decisions\.choices the names of the space, in its order"):
        space_of(tmp_path, genes, decisions=decisions, space="nasbench201", merge_isomorphic=True)
