"""Features of architectures: hand-checked cells, a slow reference that walks the graph, and what a table may lack."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_engine.nn.nasbench201 import EDGES, OPERATIONS, live_edges
from nas_engine.spaces.base import CellStructure, SearchSpace
from nas_engine.spaces.features import ArchitectureFeatures, features_of
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Space
from nas_engine.spaces.table import TableSpace
from nas_engine.tables.description import TableDescription
from nas_engine.tables.table import load_table
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.types import ImageShape

SHAPE = ImageShape(3, 32, 32, 10)
NONE, SKIP, CONV1, CONV3, POOL = range(5)

Genes = tuple[int, ...]


@pytest.fixture(scope="module")
def cells() -> NASBench201Space:
    """All 15,625 cells."""
    return NASBench201Space(SHAPE, NASBench201Space.Options(allow_disconnected=True))


def words(genes: Genes) -> list[Genes]:
    """Operations along each path from node 0 to node 3 that is not cut, skips included."""
    found: list[Genes] = []

    def walk(node: int, so_far: Genes) -> None:
        if node == 3:
            found.append(so_far)
        for (source, target), gene in zip(EDGES, genes, strict=True):
            if source == node and gene != NONE:
                walk(target, (*so_far, gene))

    walk(0, ())
    return found


def described(genes: Genes) -> list[float]:
    """The features of a cell, one after the other, as their description says."""
    paths = words(genes)
    lengths = [sum(gene != SKIP for gene in path) for path in paths]
    live = live_edges([OPERATIONS[gene] for gene in genes])
    made = [gene for edge, gene in zip(EDGES, genes, strict=True) if edge in live]
    features: list[float] = [len(paths), lengths.count(0), len(live)]
    features += [max(lengths, default=0), min(lengths, default=0), sum(lengths) / max(len(lengths), 1)]
    for operation in (CONV1, CONV3, POOL):
        counts = [path.count(operation) for path in paths]
        features += [max(counts, default=0), min(counts, default=0)]
    return features + [made.count(operation) for operation in (SKIP, CONV1, CONV3, POOL)]


def standardised(features: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Columns that vary, with mean 0 and deviation 1 over what is known; what is not known is 0."""
    kept = features[:, np.nanstd(features, axis=0) > 1e-12]
    return np.nan_to_num((kept - np.nanmean(kept, axis=0)) / np.nanstd(kept, axis=0))


def code(*operations: int) -> int:
    return sum((operation + 1) * 6**place for place, operation in enumerate(reversed(operations)))


# Edges: 0>1, 0>2, 1>2, 0>3, 1>3, 2>3. Paths: 0>3, 0>1>3, 0>2>3, 0>1>2>3.
HAND_CHECKED = [
    # One skip: one path, which changes nothing, of one live edge.
    ((NONE, NONE, NONE, SKIP, NONE, NONE), [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], [0]),
    # Nothing reaches the output; the convolution is on no path.
    ((CONV3, NONE, NONE, NONE, NONE, NONE), [0] * 16, []),
    # A chain of three operations.
    (
        (CONV3, NONE, CONV1, NONE, NONE, POOL),
        [1, 0, 3, 3, 3, 3, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1],
        [code(CONV3, CONV1, POOL)],
    ),
    # A skip and 3x3 after 3x3 side by side; edge 0>2 has no way on.
    (
        (CONV3, POOL, NONE, SKIP, CONV3, NONE),
        [2, 1, 3, 2, 0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 2, 0],
        [0, code(CONV3, CONV3)],
    ),
    # All four paths; skips on 0>1 and 2>3 are not part of a code.
    (
        (SKIP, CONV1, POOL, CONV3, CONV3, SKIP),
        [4, 0, 6, 1, 1, 1, 1, 0, 1, 0, 1, 0, 2, 1, 2, 1],
        [code(CONV3), code(CONV3), code(CONV1), code(POOL)],
    ),
]


@pytest.mark.parametrize(("genes", "features", "codes"), HAND_CHECKED)
def test_hand_checked_cells(cells: NASBench201Space, genes: Genes, features: list[float], codes: list[int]) -> None:
    assert described(genes) == features
    found = features_of(cells).path_codes(np.array([genes]))[0]
    assert found.shape == (4,)
    assert sorted(found[found >= 0]) == sorted(codes)


@pytest.mark.parametrize("allow_disconnected", [True, False])
def test_features_of_cells_are_those_of_the_description(allow_disconnected: bool) -> None:
    space = NASBench201Space(SHAPE, NASBench201Space.Options(allow_disconnected=allow_disconnected))
    genes = space.genes(list(space))
    expected = np.array([described(tuple(row)) for row in genes.tolist()], dtype=np.float64)
    expected = standardised(np.concatenate([expected, np.log(space.known_metrics(genes))], axis=1))
    np.testing.assert_allclose(features_of(space).summary(genes), expected, atol=1e-9)


def test_cells_that_compute_the_same_have_the_same_paths(cells: NASBench201Space) -> None:
    everything = list(cells)
    forms = [cells.canonical(cell) for cell in everything]
    features = features_of(cells)
    codes, of_forms = (np.sort(features.path_codes(cells.genes(some)), axis=1) for some in (everything, forms))
    np.testing.assert_array_equal(codes, of_forms)
    # ... and the codes say a lot: 15,625 cells of 5,044 functions have thousands of different sets of paths.
    assert len(np.unique(codes, axis=0)) > 1_000


def test_path_codes_are_the_words_without_skips(cells: NASBench201Space) -> None:
    genes = np.random.default_rng(0).integers(0, 5, (300, 6))
    for row, codes in zip(genes.tolist(), features_of(cells).path_codes(genes), strict=True):
        expected = sorted(code(*(gene for gene in word if gene != SKIP)) for word in words(tuple(row)))
        assert sorted(codes[codes >= 0].tolist()) == expected


def spaces() -> list[Any]:
    return [
        pytest.param(lambda: NASBench201Space(SHAPE), id="nasbench201"),
        pytest.param(lambda: MobileNetSpace(SHAPE), id="mobilenet"),
        pytest.param(lambda: BlockSpace(options=BlockSpaceOptions(max_total_width=11)), id="blocks"),
        pytest.param(lambda: BlockSpace(options=BlockSpaceOptions(blocks=1)), id="one decision"),
    ]


@pytest.mark.parametrize("make", spaces())
def test_every_feature_is_finite_and_varies(make: Any) -> None:
    space: SearchSpace = make()
    rng = np.random.default_rng(1)
    genes = space.genes([space.sample(rng) for _ in range(500)])
    summary = features_of(space).summary(genes)
    assert summary.shape[0] == 500
    assert summary.shape[1] > 0
    assert np.isfinite(summary).all()
    if space.size <= 50_000:
        whole = features_of(space).summary(space.genes(list(space)))
        np.testing.assert_allclose(whole.mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(whole.std(axis=0), 1, atol=1e-9)


@pytest.mark.parametrize("make", spaces())
def test_what_is_looked_up_is_what_is_computed(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    space: SearchSpace = make()
    rng = np.random.default_rng(2)
    genes = space.genes([space.sample(rng) for _ in range(200)])
    looked_up = ArchitectureFeatures(space)
    summary, codes = looked_up.summary(genes), looked_up.path_codes(genes)
    for row in (0, 7, 199):  # one by one, and not by their place in a batch
        np.testing.assert_allclose(looked_up.summary(genes[[row]])[0], summary[row], atol=1e-12)
    monkeypatch.setattr(looked_up, "_listed", None)
    np.testing.assert_allclose(looked_up.summary(genes), summary, atol=1e-12)
    np.testing.assert_array_equal(looked_up.path_codes(genes), codes)


def test_without_a_cell_choices_are_counted_and_placed() -> None:
    space = BlockSpace(options=BlockSpaceOptions(blocks=3, widths=3))
    genes = space.genes(list(space))
    columns = []
    for choice in range(3):
        columns.append((genes == choice).sum(axis=1))
        columns.append((genes[:, 2] == choice).astype(int) - (genes[:, 0] == choice))
    expected = np.concatenate([np.stack(columns, axis=1), np.log(space.known_metrics(genes))], axis=1)
    features = features_of(space)
    np.testing.assert_allclose(features.summary(genes), standardised(expected), atol=1e-9)
    assert features.path_codes(genes).shape == (27, 0)


def test_decisions_of_other_choices_are_counted_apart() -> None:
    """Width and resolution stand for themselves; the layers, which share their choices, are counted together."""
    space = MobileNetSpace(SHAPE)
    rng = np.random.default_rng(3)
    genes = space.genes([space.sample(rng) for _ in range(50)])
    groups = {decision.choices for decision in space.decisions}
    assert 1 < len(groups) < len(space.decisions)
    first = features_of(space).summary(genes)
    swapped = genes.copy()
    shared = [i for i, d in enumerate(space.decisions) if d.choices == space.decisions[-1].choices]
    swapped[:, shared] = genes[:, shared[::-1]]
    swapped = swapped[[space.diagram.contains(tuple(row)) for row in swapped.tolist()]]
    kept = [i for i, row in enumerate(genes.tolist()) if space.diagram.contains(_reversed(row, shared))]
    assert kept
    second = features_of(space).summary(swapped)
    # The counts of a group do not see the order; the positions do.
    alike = np.isclose(first[kept], second, atol=1e-9).all(axis=0)
    assert alike.any()
    assert not alike.all()


def _reversed(row: list[int], positions: list[int]) -> Genes:
    swapped = list(row)
    for position, other in zip(positions, reversed(positions), strict=True):
        swapped[position] = row[other]
    return tuple(swapped)


def table_space(folder: Path, params: np.ndarray[Any, Any], **settings: Any) -> TableSpace:
    genes = np.array(np.unravel_index(np.arange(len(params)), (3, 3, 3))).T
    np.savez(folder / "t.npz", genes=genes, score=np.arange(len(genes)), params=params, zero=np.zeros(len(genes)))
    columns = ["genes.0", "genes.1", "genes.2"]
    description = {"name": "t", "file": str(folder / "t.npz"), "decisions": columns, "reward": "score", **settings}
    return TableSpace(load_table(TableDescription.model_validate(description)))


def test_gaps_of_a_table_are_average(tmp_path: Path) -> None:
    params = np.arange(1.0, 21.0)
    params[[3, 8]] = np.nan
    gaps = table_space(tmp_path, params, known=["params"])
    whole = table_space(tmp_path, params)
    genes = gaps.table.genes.astype(np.int64)
    summary = features_of(gaps).summary(genes)
    structure = features_of(whole).summary(genes)
    assert np.isfinite(summary).all()
    np.testing.assert_allclose(summary[:, :-1], structure)
    np.testing.assert_allclose(summary[:, [-1]], standardised(np.log(params)[:, None]), atol=1e-9)
    assert summary[[3, 8], -1].tolist() == [0.0, 0.0]


def test_what_never_varies_is_no_feature(tmp_path: Path) -> None:
    unknown = table_space(tmp_path, np.full(20, np.nan), known=["params", "zero"])
    genes = unknown.table.genes.astype(np.int64)
    assert np.isnan(np.log(unknown.known_metrics(genes)[:, 0])).all()
    structure = features_of(table_space(tmp_path, np.ones(20), known=["params"])).summary(genes)
    np.testing.assert_allclose(features_of(unknown).summary(genes), structure)


def test_a_cell_without_zero_and_identity(tmp_path: Path) -> None:
    cell = {"edges": ["0>1", "0>2", "1>2"]}
    decisions = {"columns": ["genes.0", "genes.1", "genes.2"], "choices": ["a", "b", "c"]}
    features = features_of(table_space(tmp_path, np.ones(27), cell=cell, decisions=decisions))
    # Paths 0>2 and 0>1>2; nothing cuts one, and nothing is left out of one.
    codes = features.path_codes(np.array([[0, 1, 2], [2, 0, 0]]))
    assert codes.tolist() == [[2, 1 * 4 + 3], [1, 3 * 4 + 1]]
    assert np.isfinite(features.summary(np.array([[0, 1, 2]]))).all()


@pytest.mark.parametrize(
    "edges",
    [
        pytest.param(tuple((s, t) for t in range(1, 9) for s in range(t)), id="too many paths"),
        pytest.param(tuple((node, node + 1) for node in range(28)), id="too long a path"),
    ],
)
def test_a_cell_of_more_than_can_be_looked_at_is_described_by_its_choices(edges: tuple[tuple[int, int], ...]) -> None:
    def made(cell: CellStructure | None) -> BlockSpace:
        space = BlockSpace(options=BlockSpaceOptions(blocks=len(edges), widths=5))
        space.cell = cell
        return space

    space = made(CellStructure(edges, zero_choice=None, identity_choice=None))
    rng = np.random.default_rng(4)
    genes = space.genes([space.sample(rng) for _ in range(20)])
    assert features_of(space).path_codes(genes).shape == (20, 0)
    np.testing.assert_allclose(features_of(space).summary(genes), features_of(made(None)).summary(genes))


def test_features_are_computed_once_and_not_kept_for_ever() -> None:
    options = BlockSpaceOptions(blocks=2, widths=2)
    space = BlockSpace(options=options)
    assert features_of(space) is features_of(space)
    others = [BlockSpace(options=options) for _ in range(20)]
    for other in others:
        features_of(other)
    alive = [weakref.ref(other) for other in others]
    del others, other
    gc.collect()
    assert sum(reference() is not None for reference in alive) < 10
