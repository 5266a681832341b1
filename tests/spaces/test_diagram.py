"""The decision diagram against brute force: counts, masks, order, and uniform samples."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nas_engine.spaces.diagram import DecisionDiagram

Rule = tuple[list[int], list[list[int]], int]


@st.composite
def sum_rules(draw) -> Rule:
    """Each choice has a weight; valid are the sequences whose weights sum to at most the limit."""
    choices = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    weights = [draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)) for count in choices]
    return choices, weights, draw(st.integers(0, 8))


def diagram_of(rule: Rule) -> DecisionDiagram:
    choices, weights, limit = rule

    def step(position: int, total: int, choice: int) -> int | None:
        total += weights[position][choice]
        # Checked only at the end, so that the diagram itself has to find out which choices are dead ends.
        return None if position == len(choices) - 1 and total > limit else total

    return DecisionDiagram(choices, 0, step)


def valid_sequences(rule: Rule) -> list[tuple[int, ...]]:
    choices, weights, limit = rule
    return [
        genes
        for genes in itertools.product(*map(range, choices))
        if sum(weight[gene] for weight, gene in zip(weights, genes, strict=True)) <= limit
    ]


@given(sum_rules())
def test_holds_exactly_the_valid_sequences_in_order(rule):
    expected = valid_sequences(rule)
    if not expected:
        with pytest.raises(ValueError, match="no architecture at all"):
            diagram_of(rule)
        return
    diagram = diagram_of(rule)
    assert diagram.size == len(expected)
    assert list(diagram) == expected
    assert [genes for genes in itertools.product(*map(range, rule[0])) if diagram.contains(genes)] == expected


@given(sum_rules())
def test_a_choice_is_open_if_and_only_if_a_valid_sequence_continues_with_it(rule):
    expected = valid_sequences(rule)
    if not expected:
        return
    diagram = diagram_of(rule)
    for position, count in enumerate(rule[0]):
        for prefix in itertools.product(*map(range, rule[0][:position])):
            following = {genes[position] for genes in expected if genes[:position] == prefix}
            state = diagram.walk(prefix)
            if state is None:
                assert not following
            else:
                assert set(np.flatnonzero(diagram.allowed[state])) == following
                assert not diagram.allowed[state, count:].any()


@given(sum_rules(), st.integers(0, 2**32 - 1))
def test_samples_are_valid(rule, seed):
    expected = valid_sequences(rule)
    if expected:
        assert diagram_of(rule).sample(np.random.default_rng(seed)) in expected


def test_samples_are_uniform_over_sequences_not_over_choices():
    # The first choice 0 leaves one continuation, the first choice 1 leaves nine.
    rule = ([2, 3, 3], [[4, 0], [0, 1, 2], [0, 1, 2]], 4)
    sequences = valid_sequences(rule)
    assert [genes[0] for genes in sequences].count(0) == 1
    assert len(sequences) == 10
    rng = np.random.default_rng(0)
    diagram = diagram_of(rule)
    counts = Counter(diagram.sample(rng) for _ in range(3_000))
    assert stats.chisquare([counts[genes] for genes in sequences]).pvalue > 0.01


def test_sizes_beyond_64_bits_are_exact():
    diagram = DecisionDiagram([7] * 40, 0, lambda position, state, choice: 0)
    assert diagram.size == 7**40
    assert diagram.unrank(7**40 - 1) == (6,) * 40
    assert diagram.unrank(7**39 + 1) == (1, *[0] * 38, 1)
    assert len(diagram.sample(np.random.default_rng(0))) == 40


def test_equal_states_are_one_node():
    diagram = DecisionDiagram([3] * 10, 0, lambda position, state, choice: 0)
    assert diagram.transitions.shape == (11, 3)


@pytest.mark.parametrize("prefix", [(-1,), (2,), (0, 3), (1, 1, 1, 1)])
def test_walk_refuses_what_is_no_prefix(prefix):
    assert DecisionDiagram([2, 3, 2], 0, lambda position, state, choice: 0).walk(prefix) is None


def test_an_incomplete_sequence_is_not_contained():
    diagram = DecisionDiagram([2, 2], 0, lambda position, state, choice: 0)
    assert diagram.walk((1,)) is not None
    assert not diagram.contains((1,))


@pytest.mark.parametrize("index", [-1, 4])
def test_ranks_outside_are_refused(index):
    diagram = DecisionDiagram([2, 2], 0, lambda position, state, choice: 0)
    with pytest.raises(IndexError, match=r"outside 0\.\.3"):
        diagram.unrank(index)


def test_pickling_keeps_the_rules():
    rule = ([2, 3, 3], [[4, 0], [0, 1, 2], [0, 1, 2]], 4)
    assert list(pickle.loads(pickle.dumps(diagram_of(rule)))) == valid_sequences(rule)


@given(sum_rules())
def test_a_table_of_the_valid_sequences_gives_the_same_language(rule):
    expected = valid_sequences(rule)
    if not expected:
        return
    table = DecisionDiagram.from_sequences(rule[0], np.array(expected))
    assert list(table) == expected
    assert table.size == len(expected)
    assert len(table.transitions) <= len(diagram_of(rule).transitions), "states with equal futures are one"


@given(sum_rules())
def test_rank_inverts_unrank_and_knows_what_is_not_valid(rule):
    expected = valid_sequences(rule)
    if not expected:
        return
    everything = np.array(list(itertools.product(*map(range, rule[0]))))
    places = {genes: place for place, genes in enumerate(expected)}
    wanted = [places.get(tuple(genes), -1) for genes in everything.tolist()]
    assert diagram_of(rule).rank(everything).tolist() == wanted


def test_a_complete_table_needs_one_state_a_decision():
    complete = np.array(list(itertools.product(range(3), range(2), range(4))))
    assert len(DecisionDiagram.from_sequences([3, 2, 4], complete).transitions) == 4


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.empty((0, 2)), "at least one row"),
        ([[0, 1, 1]], "at least one row of 2"),
        ([[0, 2]], "outside its decision"),
        ([[0, -1]], "outside its decision"),
        ([[0, 1], [0, 1]], "equal"),
        ([[1, 0], [0, 1]], "lexicographic order"),
    ],
)
def test_a_table_that_is_none_is_refused(rows, expected):
    with pytest.raises(ValueError, match=expected):
        DecisionDiagram.from_sequences([2, 2], np.array(rows, dtype=np.int64))


def test_ranks_only_what_has_a_gene_for_each_decision():
    diagram = DecisionDiagram.from_sequences([2, 3], np.array([[0, 0], [0, 2], [1, 1]]))
    invalid = [[1, 2], [-1, 0], [0, -1], [0, -2], [0, 3], [2, 0], [0, 99]]
    assert diagram.rank(np.array([[0, 2], [1, 1], *invalid])).tolist() == [1, 2, *[-1] * len(invalid)]
    assert diagram.rank(np.empty((0, 2), dtype=np.int64)).tolist() == []
    for wrong in (np.zeros((4, 1), dtype=int), np.zeros((4, 3), dtype=int), np.zeros(2, dtype=int)):
        with pytest.raises(ValueError, match="rows of 2"):
            diagram.rank(wrong)


@given(sum_rules(), st.integers(0, 2**32 - 1))
def test_many_samples_are_those_drawn_one_by_one(rule, seed):
    if not valid_sequences(rule):
        return
    diagram = diagram_of(rule)
    together, alone = np.random.default_rng(seed), np.random.default_rng(seed)
    assert diagram.samples(together, 5) == [diagram.sample(alone) for _ in range(5)]
    assert together.random() == alone.random()
    assert diagram.samples(together, 0) == []


def test_uniform_numbers_at_their_ends_draw_open_choices():
    """Closed choices first, in the middle and last: neither 0 nor the largest number below 1 draws one."""
    diagram = DecisionDiagram([5, 2], 0, lambda position, state, choice: 0 if position or choice in (1, 3) else None)

    class Constant(np.random.Generator):
        value = 0.0

        def random(self, size=None, *args, **kwargs):
            return np.full(size, self.value)

    rng = Constant(np.random.PCG64(0))
    assert diagram.sample(rng) == (1, 0)
    rng.value = np.nextafter(1.0, 0.0)
    assert diagram.sample(rng) == (3, 1)
