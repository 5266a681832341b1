"""cost_estimate: native against the NumPy reference, both against sums done by hand, and inputs it must refuse."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_engine import native, registry
from nas_engine.errors import NativeError
from nas_engine.ops.cost_estimate import cost_estimate, cost_estimate_reference
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import ImageShape

needs_native = pytest.mark.skipif(not native.available(), reason=native.problem())

# A cell of three nodes: 0 -> 1 -> 2 and 0 -> 2. Choice 0 is "no connection", 1 is free, 2 costs 10 * (edge + 1).
CELL: dict[str, Any] = {
    "constant": np.array([[1000]], dtype=np.int64),
    "entries": np.array([[[[0], [0], [10]], [[0], [0], [20]], [[0], [0], [30]]]], dtype=np.int64),
    "cell_edges": ((0, 1), (0, 2), (1, 2)),
    "zero_choice": 0,
}


@st.composite
def problems(draw: st.DrawFn, cell: bool) -> dict[str, Any]:
    """Random tables with genes, with or without a cell, with 0 to 2 context decisions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nodes = draw(st.integers(2, 6))
    edges = list(itertools.combinations(range(nodes), 2))
    rng.shuffle(edges)
    decisions = len(edges) if cell else draw(st.integers(1, 12))
    choices, metrics = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    context_decisions = rng.permutation(decisions)[: draw(st.integers(0, 2))].tolist()
    context_sizes = rng.integers(1, choices + 1, len(context_decisions)).tolist()
    genes = rng.integers(0, choices, (draw(st.integers(0, 40)), decisions))
    genes[:, context_decisions] %= np.array(context_sizes, dtype=np.int64)
    contexts = int(np.prod(context_sizes))
    return {
        "genes": genes,
        "constant": rng.integers(-(2**40), 2**40, (contexts, metrics)),
        "entries": rng.integers(-(2**40), 2**40, (contexts, decisions, choices, metrics)),
        "context_decisions": context_decisions,
        "context_sizes": context_sizes,
        "cell_edges": [tuple(map(int, edge)) for edge in edges] if cell else None,
        "zero_choice": draw(st.integers(0, choices - 1)),
    }


@needs_native
@settings(deadline=None, max_examples=150)
@given(problems(cell=False) | problems(cell=True))
def test_native_equals_reference(problem: dict[str, Any]) -> None:
    np.testing.assert_array_equal(cost_estimate(**problem), cost_estimate_reference(**problem))


@needs_native
@pytest.mark.parametrize("name", ["nasbench201", "mobilenet"])
def test_native_equals_reference_on_the_tables_of_the_spaces(name: str) -> None:
    factory = registry.resolve("space", name)
    space: SearchSpace = factory(ImageShape(channels=3, height=32, width=32, classes=10))
    table, rng = space.cost_table(), np.random.default_rng(0)
    genes = np.array([space.sample(rng).genes for _ in range(500)])
    sizes = [len(space.decisions[decision].choices) for decision in table.context_decisions]
    fields = {field.name: getattr(table, field.name) for field in dataclasses.fields(table) if field.name != "metrics"}
    np.testing.assert_array_equal(
        cost_estimate(genes, context_sizes=sizes, **fields),
        cost_estimate_reference(genes, context_sizes=sizes, **fields),
    )


@needs_native
def test_many_rows_take_the_threaded_path_and_agree() -> None:
    genes = np.random.default_rng(0).integers(0, 3, (40_000, 3))
    np.testing.assert_array_equal(cost_estimate(genes, **CELL), cost_estimate_reference(genes, **CELL))


@pytest.mark.parametrize("price", [cost_estimate, cost_estimate_reference])
@pytest.mark.parametrize(
    ("genes", "cost"),
    [
        ((2, 2, 2), 1060),
        ((2, 2, 0), 1020),  # node 1 leads nowhere: edge 0>1 is never computed
        ((0, 2, 2), 1020),  # node 1 is never reached
        ((2, 0, 1), 1010),
        ((2, 0, 0), 1000),
    ],
)
def test_only_edges_on_a_live_path_count(price: Any, genes: tuple[int, ...], cost: int) -> None:
    assert price(np.array([genes]), **CELL).tolist() == [[cost]]


@pytest.mark.parametrize("price", [cost_estimate, cost_estimate_reference])
def test_context_is_most_significant_first(price: Any) -> None:
    table = {
        "constant": np.arange(6, dtype=np.int64)[:, None] * 100,
        "entries": np.zeros((6, 2, 3, 1), dtype=np.int64),
        "context_decisions": (1, 0),
        "context_sizes": (3, 2),
    }
    genes = np.array([[0, 0], [1, 0], [0, 1], [1, 2]])
    assert price(genes, **table)[:, 0].tolist() == [0, 100, 200, 500]


def test_no_architectures_cost_nothing() -> None:
    assert cost_estimate(np.empty((0, 3), dtype=np.int64), **CELL).shape == (0, 1)


GENES = np.zeros((2, 3), dtype=np.int64)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("genes", [[0, 0, 0]], "genes must be a numpy array, got list"),
        ("genes", GENES.astype(np.int32), "genes must have dtype int64, got int32"),
        ("genes", GENES.astype(">i8"), "genes must have dtype int64"),
        ("genes", GENES[:, :2].copy(), r"genes must have shape \[any, 3\], got \[2, 2\]"),
        ("genes", GENES[0], r"genes must have shape \[any, 3\], got \[3\]"),
        ("genes", np.zeros((3, 2), dtype=np.int64).T, "genes must be contiguous"),
        ("genes", np.broadcast_to(np.int64(0), (2, 3)), "genes must be contiguous"),
        ("genes", np.array([[0, 0, 0], [0, 3, 0]]), r"genes\[1, 1\] = 3 is outside 0..2"),
        ("genes", np.array([[0, 0, -1]]), r"genes\[0, 2\] = -1 is outside 0..2"),
        ("constant", np.zeros((1, 2), dtype=np.int64), "constant must have shape"),
        ("constant", np.zeros((1, 1)), "constant must have dtype int64, got float64"),
        ("entries", np.zeros((3, 3, 1), dtype=np.int64), "entries must have shape"),
        ("context_decisions", (3,), r"context_decisions\[0\] = 3 is outside 0..2"),
        ("context_decisions", ("x",), "context_decisions must hold integers"),
        ("context_sizes", (2,), "context_sizes"),
        ("cell_edges", ((0, 1), (0, 2)), r"cell_edges must have shape \[3, 2\]"),
        ("cell_edges", ((0, 1), (0, 2), (2, 1)), "cell_edges must run from a lower to a higher node"),
        ("cell_edges", ((0, 1), (0, 2), (1, 64)), r"cell_edges\[2, 1\] = 64 is outside"),
        ("zero_choice", 3, r"zero_choice\[0\] = 3 is outside 0..2"),
    ],
)
def test_bad_input_is_named(name: str, value: Any, says: str) -> None:
    arguments = {"genes": GENES, **CELL, name: value}
    with pytest.raises(NativeError, match=f"^cost_estimate: .*{says}"):
        cost_estimate(**arguments)


@settings(deadline=None, max_examples=60)
@given(
    problems(cell=True),
    st.integers(-(2**63), 2**63 - 1),
    st.randoms(use_true_random=False),
)
def test_any_gene_is_priced_or_refused(problem: dict[str, Any], value: int, random: Any) -> None:
    genes = problem["genes"]
    if not genes.size:
        return
    row, decision = random.randrange(genes.shape[0]), random.randrange(genes.shape[1])
    genes[row, decision] = value
    limits = dict(zip(problem["context_decisions"], problem["context_sizes"], strict=True))
    if 0 <= value < limits.get(decision, problem["entries"].shape[2]):
        np.testing.assert_array_equal(cost_estimate(**problem), cost_estimate_reference(**problem))
    else:
        with pytest.raises(NativeError, match=rf"genes\[{row}, {decision}\] = {value} is outside"):
            cost_estimate(**problem)


def test_without_native_the_reference_answers_and_refuses_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "module", lambda: None)
    assert cost_estimate(np.array([[2, 2, 2]]), **CELL).tolist() == [[1060]]
    with pytest.raises(NativeError, match=r"genes\[0, 0\] = 9 is outside 0..2"):
        cost_estimate(np.array([[9, 2, 2]]), **CELL)
