from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nas_engine.spaces.seen import SeenArchitectures
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.types import ImageShape

SHAPE = ImageShape(1, 8, 8, 10)


@pytest.fixture
def space() -> BlockSpace:
    """15 canonical architectures of 27."""
    made = BlockSpace(SHAPE, BlockSpaceOptions(blocks=3, widths=3, merge_skips=True))
    assert made.size == 27
    return made


def canonical_forms(space):
    return set(map(space.canonical, space))


def test_spellings_are_one_architecture(space):
    seen = SeenArchitectures(space)
    assert seen.claim(space.architecture([0, 2, 1])) == space.architecture([2, 1, 0])
    assert seen.claim(space.architecture([2, 0, 1])) is None
    assert list(seen.waiting) == [space.architecture([2, 1, 0])]
    seen.tell([space.architecture([2, 0, 1])], [0.5])
    assert seen.rewards == {space.architecture([2, 1, 0]): 0.5}
    assert not seen.waiting
    assert seen.claim(space.architecture([2, 1, 0])) is None


def test_draws_everything_once_and_then_repeats(space):
    seen, rng = SeenArchitectures(space), np.random.default_rng(0)
    forms = canonical_forms(space)
    drawn = [seen.draw(rng) for _ in forms]
    assert set(drawn) == forms
    assert len(drawn) == len(forms) == 15
    assert all(seen.draw(rng) in forms for _ in range(5))
    assert seen.exhausted


def test_finds_the_last_unseen_architecture_of_a_large_space():
    space = BlockSpace(SHAPE, BlockSpaceOptions(blocks=7, widths=4))
    seen = SeenArchitectures(space)
    last = space.architecture([3, 1, 2, 0, 3, 3, 1])
    everything = [architecture for architecture in space if architecture != last]
    seen.tell(everything, [0.0] * len(everything))
    assert seen.draw(np.random.default_rng(0)) == last
    assert not seen.exhausted
    assert seen.draw(np.random.default_rng(0)) in seen
    assert seen.exhausted


def test_draws_are_uniform_over_the_valid_architectures_left(space):
    told = [space.architecture([2, 2, 2]), space.architecture([0, 0, 0])]
    first = Counter()
    for seed in range(3_000):
        seen = SeenArchitectures(space)
        seen.tell(told, [0.0, 0.0])
        first[seen.draw(np.random.default_rng(seed))] += 1
    spellings = Counter(form for form in map(space.canonical, space) if form not in told)
    for form in canonical_forms(space) - set(told):
        # Five standard deviations of a share of 3,000 draws, at most.
        assert first[form] / 3_000 == pytest.approx(spellings[form] / 25, abs=0.03)


@pytest.mark.parametrize("draws", [4, 14, 15, 17])
def test_state_continues_exactly(space, draws):
    seen, rng = SeenArchitectures(space), np.random.default_rng(1)
    drawn = [seen.draw(rng) for _ in range(draws)]
    seen.tell(drawn[::2], [float(index) for index in range(len(drawn[::2]))])
    other, other_rng = SeenArchitectures(space), np.random.default_rng()
    other.load_state_dict(seen.state_dict())
    other_rng.bit_generator.state = rng.bit_generator.state
    assert (other.rewards, list(other.waiting)) == (seen.rewards, list(seen.waiting))
    assert [other.draw(other_rng) for _ in range(6)] == [seen.draw(rng) for _ in range(6)]


def test_finds_the_unseen_among_others(space):
    seen = SeenArchitectures(space)
    told, waiting, *others = sorted(canonical_forms(space), key=lambda architecture: architecture.genes)
    seen.tell([told], [0.5])
    seen.claim(waiting)
    assert seen.unseen_among([others[3], told, others[1], waiting]) == [0, 2]
    seen.claim(others[3])
    assert seen.unseen_among([others[3], told, others[1], waiting]) == [2]
    assert seen.unseen_among([]) == []
