"""Candidates are canonical, unseen, and include the neighbours of the best."""

from __future__ import annotations

import numpy as np
import pytest

from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.spaces.seen import SeenArchitectures
from nas_engine.surrogates.candidates import ListedSpace, some_unseen
from nas_engine.surrogates.linear import LinearBasis
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.types import ImageShape

MERGING = BlockSpace(options=BlockSpaceOptions(blocks=4, widths=3, merge_skips=True))


@pytest.fixture
def seen() -> SeenArchitectures:
    """Twelve told, of which the second is the worst, and three waiting."""
    seen, rng = SeenArchitectures(MERGING), np.random.default_rng(0)
    told = [seen.draw(rng) for _ in range(12)]
    seen.tell(told, [1.0, -5.0, *np.arange(2.0, 12.0)])
    for _ in range(3):
        seen.draw(rng)
    return seen


def test_candidates_are_canonical_and_unseen(seen: SeenArchitectures) -> None:
    candidates = some_unseen(seen, np.random.default_rng(1))
    assert len(set(candidates)) == len(candidates)
    everything = {MERGING.canonical(architecture) for architecture in MERGING}
    assert set(candidates) == everything - {*seen.rewards, *seen.waiting}


def test_neighbours_of_the_best_are_candidates_of_a_large_space() -> None:
    space = MobileNetSpace(ImageShape(3, 32, 32, 10))
    seen, rng = SeenArchitectures(space), np.random.default_rng(2)
    told = [seen.draw(rng) for _ in range(11)]
    seen.tell(told, [float(number) for number in range(11)])
    candidates = set(some_unseen(seen, rng))
    for architecture in told[1:]:
        assert {space.canonical(near) for near in space.neighbours(architecture)} - set(told) <= candidates
    assert not {space.canonical(near) for near in space.neighbours(told[0])} - set(told) <= candidates


def test_an_exhausted_space_has_no_candidates(seen: SeenArchitectures) -> None:
    rng = np.random.default_rng(3)
    while not seen.exhausted:
        seen.draw(rng)
    assert some_unseen(seen, rng) == []


def test_the_list_of_a_space_knows_what_was_seen(seen: SeenArchitectures) -> None:
    basis = LinearBasis(MERGING)
    listed = ListedSpace(MERGING, basis)
    everything = {MERGING.canonical(architecture) for architecture in MERGING}
    assert set(listed.architectures) == everything
    assert len(listed.architectures) == len(everything)
    np.testing.assert_array_equal(listed.features, basis(MERGING.genes(listed.architectures)))
    assert all(listed.architectures[position] == a for a, position in listed.positions.items())
    np.testing.assert_array_equal(listed.sparse_features.toarray(), listed.features)
    assert seen.rewards
    assert seen.waiting
    assert [listed.architectures[at] for at in listed.seen_positions(seen)] == [*seen.rewards, *seen.waiting]
