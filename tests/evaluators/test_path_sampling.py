"""Which paths are trained: frequencies, fairness, and the rules of the space."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_engine.evaluators.path_sampling import fair_paths, path_sampler, sandwich_paths, uniform_paths
from nas_engine.spaces.diagram import DecisionDiagram
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions

seeds = st.integers(0, 2**32 - 1)


def free(choices):
    return DecisionDiagram(choices, 0, lambda position, state, choice: 0)


@given(choices=st.integers(1, 6), decisions=st.integers(1, 8), seed=seeds)
def test_fair_sampling_trains_each_choice_of_each_decision_exactly_once(choices, decisions, seed):
    paths = fair_paths(free([choices] * decisions), np.random.default_rng(seed))
    assert len(paths) == choices
    for genes in zip(*paths, strict=True):
        assert sorted(genes) == list(range(choices))


@given(choices=st.lists(st.integers(1, 6), min_size=1, max_size=6), seed=seeds)
def test_fair_sampling_repeats_the_choices_of_small_decisions_evenly(choices, seed):
    paths = fair_paths(free(choices), np.random.default_rng(seed))
    assert len(paths) == max(choices)
    for count, genes in zip(choices, zip(*paths, strict=True), strict=True):
        times = Counter(genes)
        assert set(times) == set(range(count))
        assert max(times.values()) - min(times.values()) <= 1


@given(limit=st.integers(0, 12), seed=seeds)
def test_fair_sampling_keeps_the_rules_of_the_space(limit, seed):
    diagram = BlockSpace(options=BlockSpaceOptions(blocks=4, max_total_width=limit)).diagram
    paths = fair_paths(diagram, np.random.default_rng(seed))
    assert len(paths) == 5
    assert all(map(diagram.contains, paths))


def test_fair_sampling_breaks_no_rule_where_an_assignment_exists():
    # The second choice must differ from the first: a derangement always exists, so both columns stay permutations.
    differ = DecisionDiagram([4, 4], None, lambda position, state, choice: choice if choice != state else None)
    rng = np.random.default_rng(0)
    for _ in range(50):
        for genes in zip(*fair_paths(differ, rng), strict=True):
            assert sorted(genes) == [0, 1, 2, 3]


def test_fair_paths_mix_choices_uniformly():
    rng = np.random.default_rng(0)
    pairs = Counter(path for _ in range(900) for path in fair_paths(free([3, 3]), rng))
    assert len(pairs) == 9
    assert all(abs(times - 300) < 80 for times in pairs.values())  # 5.7 standard deviations


def test_uniform_paths_are_uniform_over_valid_architectures():
    diagram = BlockSpace(options=BlockSpaceOptions(blocks=2, widths=3, max_total_width=2)).diagram
    paths = Counter(uniform_paths(diagram, 3000, np.random.default_rng(0)))
    assert len(paths) == diagram.size == 6
    assert all(abs(times - 500) < 100 for times in paths.values())  # 4.9 standard deviations


def test_sandwich_trains_both_ends_and_random_paths():
    space = BlockSpace()
    largest, smallest = space.supernet().largest(), space.supernet().smallest()
    paths = sandwich_paths(space.diagram, largest, smallest, 4, np.random.default_rng(0))
    assert paths[:2] == [(4,) * 6, (0,) * 6]
    assert len(paths) == 4
    assert all(map(space.diagram.contains, paths))


@pytest.mark.parametrize(("name", "paths"), [("uniform", 1), ("fair", 5), ("sandwich", 2)])
def test_samplers_by_name(name, paths):
    space = BlockSpace()
    sampler = path_sampler(name, space.diagram, space.supernet(), paths_per_step=1)
    drawn = sampler(np.random.default_rng(0))
    assert len(drawn) == paths
    assert drawn == sampler(np.random.default_rng(0))
