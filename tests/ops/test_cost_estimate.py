"""cost_estimate: native against the NumPy reference, both against sums done by hand, and inputs it must refuse."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.ops.cost_estimate import Estimate, cost_estimate, cost_estimate_reference
from nas_engine.ops.cost_table import CostTable, PriceList
from nas_engine.ops.reward import RewardFormula
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.mobilenet import MobileNetOptions, MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.types import ImageShape

needs_native = pytest.mark.skipif(not native.available(), reason=native.problem())

# A cell of three nodes: 0 -> 1 -> 2 and 0 -> 2. Choice 0 is "no connection", 1 is free, 2 costs 10 * (edge + 1).
CELL = CostTable(
    metrics=("macs",),
    context_decisions=(),
    constant=np.array([[1000]]),
    entries=np.array([[[[0], [0], [10]], [[0], [0], [20]], [[0], [0], [30]]]]),
    cell_edges=((0, 1), (0, 2), (1, 2)),
)
CHOICES = (3, 3, 3)
PRICES = PriceList([CELL], CHOICES)


class Problem(NamedTuple):
    """The arguments of `cost_estimate`."""

    genes: np.ndarray
    prices: PriceList
    formula: RewardFormula | None
    accuracy: np.ndarray | None


@st.composite
def tables(draw: st.DrawFn, name: str, choices: list[int], cell: tuple[Any, int] | None) -> CostTable:
    """A random table: counts or measures, sums or maxima, with 0 to 3 context decisions, with or without entries."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    context = rng.permutation(len(choices))[: draw(st.integers(0, 3))].tolist()
    contexts = int(np.prod([choices[decision] for decision in context], dtype=np.int64))
    metrics = draw(st.integers(1, 3))
    most = max(choices) + draw(st.integers(0, 1))
    whole = draw(st.booleans())
    constant, entries = (
        rng.integers(-(2**40), 2**40, shape) if whole else rng.normal(size=shape)
        for shape in ((contexts, metrics), (contexts, len(choices), most, metrics))
    )
    if not whole:
        entries[rng.random(entries.shape) < draw(st.sampled_from([0, 0.05]))] = np.nan
    in_cell = cell is not None and draw(st.booleans())
    return CostTable(
        metrics=tuple(f"{name}{metric}" for metric in range(metrics)),
        context_decisions=tuple(context),
        constant=constant,
        entries=entries if draw(st.booleans()) else None,
        cell_edges=cell[0] if in_cell and cell is not None else None,
        zero_choice=cell[1] if in_cell and cell is not None else 0,
        combine=draw(st.sampled_from(["sum", "max"])),
    )


@st.composite
def formulas(draw: st.DrawFn, names: tuple[str, ...]) -> RewardFormula:
    kind = draw(st.sampled_from(["accuracy", "weighted_sum", "soft_power", "absolute"]))
    metrics = draw(st.permutations(names))[: {"accuracy": 0, "weighted_sum": draw(st.integers(0, 2))}.get(kind, 1)]
    weights = [-0.07, draw(st.sampled_from([0.0, -1.0]))][: {"soft_power": 2}.get(kind, len(metrics))]
    return RewardFormula(
        kind=kind,  # type: ignore[arg-type]
        metrics=tuple(metrics),
        targets=(0.5, 2**39)[: len(metrics)],
        weights=tuple(weights),
        accuracy_weight=draw(st.sampled_from([0.0, 0.8])),
        largest_ratio=draw(st.sampled_from([10.0, np.inf])),
        smallest_ratio=1e-6,
    )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """One to four tables over the same decisions, which may be the edges of a cell; with or without rewards."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nodes, is_cell = draw(st.integers(2, 6)), draw(st.booleans())
    edges = list(itertools.combinations(range(nodes), 2))
    rng.shuffle(edges)
    decisions = len(edges) if is_cell else draw(st.integers(1, 12))
    choices = draw(st.lists(st.integers(1, 5), min_size=decisions, max_size=decisions))
    cell = (tuple(map(tuple, edges)), int(rng.integers(min(choices)))) if is_cell else None
    drawn = [draw(tables(name, choices, cell)) for name in "abcd"[: draw(st.integers(1, 4))]]
    prices = PriceList(drawn, choices)
    genes = rng.integers(0, choices, (draw(st.integers(0, 40)), decisions))
    if not draw(st.booleans()):
        return Problem(genes, prices, None, None)
    accuracy = rng.random(len(genes))
    accuracy[rng.random(len(genes)) < 0.1] = np.nan
    return Problem(genes, prices, draw(formulas(prices.names)), accuracy)


def assert_same(found: Estimate, expected: Estimate) -> None:
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_allclose(found.measures, expected.measures, rtol=1e-12, atol=1e-12)
    assert (found.rewards is None) == (expected.rewards is None)
    if found.rewards is not None:
        np.testing.assert_allclose(found.rewards, expected.rewards, rtol=1e-9, atol=1e-12)


@needs_native
@settings(deadline=None, max_examples=300)
@given(problems())
def test_native_equals_reference(problem: Problem) -> None:
    assert_same(cost_estimate(*problem), cost_estimate_reference(*problem))


def memory_of(space: SearchSpace, genes: np.ndarray) -> list[int]:
    table = space.memory_table()
    assert table is not None
    return cost_estimate(genes, space.prices(space.cost_table(), table)).counts[:, -1].tolist()


@pytest.mark.parametrize(
    ("shape", "channels", "cells"),
    [((3, 32, 32, 10), 16, 5), ((1, 8, 8, 10), 8, 1), ((1, 5, 11, 1000), 3, 2), ((4, 40, 9, 2), 1, 1)],
)
def test_peak_memory_of_all_cells_is_exact(shape: tuple[int, int, int, int], channels: int, cells: int) -> None:
    options = NASBench201Options(channels=channels, cells=cells, allow_disconnected=True)
    space = NASBench201Space(ImageShape(*shape), options)
    architectures = list(space)
    assert len(architectures) == 15_625
    assert memory_of(space, space.genes(architectures)) == [space.peak_activation_bytes(a) for a in architectures]


def test_peak_memory_of_a_whole_small_mobilenet_space_is_exact() -> None:
    options = MobileNetOptions(
        stages=((8, 2, 1), (24, 2, 2)), kernels=(3,), expansions=(1, 2, 6), width_multipliers=(0.5, 1, 1.5)
    )
    space = MobileNetSpace(ImageShape(3, 9, 20, 70), options)
    architectures = list(space)
    assert len(architectures) == space.size == 864
    assert memory_of(space, space.genes(architectures)) == [space.peak_activation_bytes(a) for a in architectures]


@pytest.mark.parametrize(("shape", "samples"), [((3, 32, 32, 10), 4_000), ((1, 12, 31, 100), 2_000)])
def test_peak_memory_of_random_mobilenets_is_exact(shape: tuple[int, int, int, int], samples: int) -> None:
    space, rng = MobileNetSpace(ImageShape(*shape)), np.random.default_rng(0)
    architectures = [space.sample(rng) for _ in range(samples)]
    assert memory_of(space, space.genes(architectures)) == [space.peak_activation_bytes(a) for a in architectures]


@needs_native
def test_many_rows_take_the_threaded_path_and_agree() -> None:
    rng = np.random.default_rng(0)
    genes, formula = rng.integers(0, 3, (400_000, 3)), RewardFormula("absolute", ("macs",), (1e3,), (-0.1,))
    accuracy = rng.random(400_000)
    assert_same(
        cost_estimate(genes, PRICES, formula, accuracy), cost_estimate_reference(genes, PRICES, formula, accuracy)
    )


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
    assert price(np.array([genes]), PRICES).counts.tolist() == [[cost]]


@pytest.mark.parametrize("price", [cost_estimate, cost_estimate_reference])
def test_context_is_most_significant_first(price: Any) -> None:
    table = CostTable(("a",), (1, 0), np.arange(6)[:, None] * 100, np.zeros((6, 2, 3, 1), dtype=np.int64))
    genes = np.array([[0, 0], [1, 0], [0, 1], [1, 2]])
    assert price(genes, PriceList([table], (2, 3))).counts[:, 0].tolist() == [0, 100, 200, 500]


@pytest.mark.parametrize("price", [cost_estimate, cost_estimate_reference])
def test_tables_of_all_kinds_in_one_call(price: Any) -> None:
    """Counts beside measures in the order of their types, a maximum, an unknown entry, and a reward of a measure."""
    entries = np.array([[[[1.5], [2.5]], [[4.0], [np.nan]]]])
    peak = CostTable(("peak",), (), np.array([[3]]), np.array([[[[1], [7]], [[5], [2]]]]), combine="max")
    latency = CostTable(("ms",), (), np.array([[0.5]]), entries)
    macs = CostTable(("macs",), (0,), np.array([[10], [20]]), None)
    prices = PriceList([latency, peak, macs], (2, 2))
    assert prices.names == ("peak", "macs", "ms")
    genes, accuracy = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]), np.array([0.9, np.nan, 0.7, 0.6])
    formula = RewardFormula("absolute", ("ms",), (3.0,), (-0.1,))
    counts, measures, rewards = price(genes, prices, formula, accuracy)
    assert counts.tolist() == [[5, 10], [7, 20], [7, 20], [3, 10]]
    np.testing.assert_array_equal(measures[:, 0], [6, 7, np.nan, np.nan])
    np.testing.assert_allclose(rewards, [0.8, np.nan, np.nan, np.nan])


def test_no_architectures_cost_nothing() -> None:
    formula = RewardFormula("accuracy")
    estimate = cost_estimate(np.empty((0, 3), dtype=np.int64), PRICES, formula, np.empty(0))
    assert [array.shape for array in estimate if array is not None] == [(0, 1), (0, 0), (0,)]


def test_a_price_list_can_be_pickled_after_use() -> None:
    genes = np.array([[2, 2, 2]])
    cost_estimate(genes, PRICES)
    assert cost_estimate(genes, pickle.loads(pickle.dumps(PRICES))).counts.tolist() == [[1060]]


GENES = np.zeros((2, 3), dtype=np.int64)
ACCURACY = np.zeros(2)
FORMULA = RewardFormula("absolute", ("macs",), (1.0,), (-0.1,))


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
        ("genes", np.array([[0, 0, 0], [0, 0, -1]]), r"genes\[1, 2\] = -1 is outside 0..2"),
        ("accuracy", None, "formula and accuracy go together"),
        ("accuracy", np.zeros(3), r"accuracy must have shape \[2\], got \[3\]"),
        ("accuracy", np.zeros(2, dtype=np.float32), "accuracy must have dtype float64, got float32"),
        ("formula", None, "formula and accuracy go together"),
        ("formula", RewardFormula("best"), "formula must be one of accuracy, .*, got 'best'"),  # type: ignore[arg-type]
        ("formula", dataclasses.replace(FORMULA, metrics=("ms",)), "formula needs 'ms', but the tables have macs"),
        ("formula", dataclasses.replace(FORMULA, weights=(1.0, 2.0)), "'absolute' does not go with 1 metrics, 1 tar.*"),
        ("formula", dataclasses.replace(FORMULA, targets=()), "'absolute' does not go with 1 metrics, 0 targets"),
        ("formula", dataclasses.replace(FORMULA, targets=("1",)), "formula must have numbers as targets and weights"),
    ],
)
@pytest.mark.parametrize("with_native", [True, False])
def test_bad_input_is_named(
    name: str, value: Any, says: str, with_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_native:
        monkeypatch.setattr(native, "module", lambda: None)
    arguments = {"genes": GENES, "prices": PRICES, "formula": FORMULA, "accuracy": ACCURACY, name: value}
    with pytest.raises(NativeError, match=f"^cost_estimate: .*{says}"):
        cost_estimate(**arguments)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("constant", np.zeros((1, 2), dtype=np.int64), r"constant must have shape \[1, 1\], got \[1, 2\]"),
        ("constant", np.zeros((1, 1)), "entries must have dtype float64, got int64"),
        ("constant", np.zeros((1, 1), dtype=np.float32), "constant must have dtype int64, got float32"),
        ("constant", None, "constant must be a numpy array, got NoneType"),
        ("entries", np.zeros((3, 3, 1), dtype=np.int64), "entries must have shape"),
        ("entries", np.zeros((1, 3, 2, 1), dtype=np.int64), "entries must have 3 choices or more, got 2"),
        ("entries", np.zeros((1, 3, 3, 1)), "entries must have dtype int64, got float64"),
        ("entries", np.zeros((1, 3, 6, 1), dtype=np.int64)[:, :, ::2], "entries must be contiguous"),
        ("context_decisions", (3,), r"context_decisions\[0\] = 3 is outside 0..2"),
        ("context_decisions", (0,), r"constant must have shape \[3, 1\], got \[1, 1\]"),
        ("context_decisions", ("x",), "context_decisions must hold integers"),
        ("context_decisions", ((0,),), "context_decisions must be numbers of decisions"),
        ("context_decisions", 0, "context_decisions must be a sequence of integers, got 0"),
        ("cell_edges", ((0, 1), (0, 2)), r"cell_edges must have shape \[3, 2\]"),
        ("cell_edges", ((0, 1), (0, 2), (2, 1)), "cell_edges must run from a lower to a higher node"),
        ("cell_edges", ((0, 1), (0, 2), (1, 64)), r"cell_edges\[2, 1\] = 64 is outside"),
        ("zero_choice", 3, r"zero_choice\[0\] = 3 is outside 0..2"),
        ("combine", "mean", "combine must be one of sum, max, got 'mean'"),
    ],
)
def test_bad_tables_are_named(name: str, value: Any, says: str) -> None:
    with pytest.raises(NativeError, match=f"^cost_estimate: .*{says}"):
        PriceList([dataclasses.replace(CELL, **{name: value})], CHOICES)


@pytest.mark.parametrize(
    ("others", "choices", "says"),
    [
        ([CELL], CHOICES, "tables have macs twice"),
        ([CostTable((f"{i}",), (), np.zeros((1, 1), dtype=np.int64), None) for i in range(4)], CHOICES, "at most 4"),
        ([dataclasses.replace(CELL, metrics=("a",), zero_choice=1)], CHOICES, "must have the same edges"),
        ([], (3, 0, 3), "choices must be one positive number for each decision"),
        ([], (), "choices must be one positive number for each decision"),
        ([], "abc", "choices must hold integers"),
    ],
)
def test_tables_that_do_not_go_together_are_refused(others: list[CostTable], choices: Any, says: str) -> None:
    with pytest.raises(NativeError, match=f"^cost_estimate: .*{says}"):
        PriceList([CELL, *others], choices)


@settings(deadline=None, max_examples=100)
@given(problems(), st.integers(-(2**63), 2**63 - 1), st.randoms(use_true_random=False))
def test_any_gene_is_priced_or_refused(problem: Problem, value: int, random: Any) -> None:
    genes, prices = problem.genes, problem.prices
    if not genes.size:
        return
    row, decision = random.randrange(genes.shape[0]), random.randrange(genes.shape[1])
    genes[row, decision] = value
    if 0 <= value < prices.choices[decision]:
        assert_same(cost_estimate(*problem), cost_estimate_reference(*problem))
    else:
        with pytest.raises(NativeError, match=rf"genes\[{row}, {decision}\] = {value} is outside"):
            cost_estimate(*problem)


@pytest.mark.parametrize("function", [cost_estimate, cost_estimate_reference])
@pytest.mark.parametrize(
    ("genes", "says"),
    [
        (np.array([[0, 0, 0], [0, -1, 0]]), r"genes\[1, 1\] = -1 is outside 0..2"),
        (np.array([[0, 0, 3]]), r"genes\[0, 2\] = 3 is outside 0..2"),
        (np.zeros((1, 2), dtype=np.int64), r"genes must have shape \[any, 3\]"),
        (np.zeros((1, 3), dtype=np.float64), "genes must have dtype int64"),
    ],
)
def test_bad_genes_are_named_by_the_reference_too(function: Any, genes: Any, says: str) -> None:
    with pytest.raises(NativeError, match=f"^cost_estimate: {says}"):
        function(genes, PRICES)


def test_the_choices_that_genes_are_checked_against_cannot_change() -> None:
    with pytest.raises(ValueError, match="read-only"):
        PriceList([CELL], CHOICES).choices[0] = 99


def test_sums_wrap_as_those_of_numpy_do() -> None:
    huge = np.full((1, 2, 1, 1), 2**62)
    prices = PriceList([CostTable(("a",), (), np.array([[2**62]]), huge)], (1, 1))
    genes = np.zeros((1, 2), dtype=np.int64)
    assert_same(cost_estimate(genes, prices), cost_estimate_reference(genes, prices))


def test_without_native_the_reference_answers_and_refuses_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "module", lambda: None)
    assert cost_estimate(np.array([[2, 2, 2]]), PRICES).counts.tolist() == [[1060]]
    with pytest.raises(NativeError, match=r"genes\[0, 0\] = 9 is outside 0..2"):
        cost_estimate(np.array([[9, 2, 2]]), PRICES)
