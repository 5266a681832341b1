from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_engine.data.splits import stratified_split

COUNTS = st.lists(st.integers(2, 40), min_size=1, max_size=8)


@given(counts=COUNTS, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**32), order=st.randoms())
def test_splits_are_disjoint_stratified_and_cover_all(counts, fraction, seed, order) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    shuffled = labels.tolist()
    order.shuffle(shuffled)
    labels = np.array(shuffled, dtype=np.int64)
    kept, held = stratified_split(labels, fraction, np.random.default_rng(seed))
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        number = int((labels[held] == label).sum())
        assert 1 <= number <= count - 1
        assert abs(number - count * fraction) <= 1
    again = stratified_split(labels, fraction, np.random.default_rng(seed))
    np.testing.assert_array_equal(held, again[1])


def test_which_images_are_held_out_is_uniform() -> None:
    labels = np.zeros(10, dtype=np.int64)
    rng = np.random.default_rng(0)
    times = sum(np.bincount(stratified_split(labels, 0.3, rng)[1], minlength=10) for _ in range(2000))
    np.testing.assert_allclose(times / 2000, 0.3, atol=0.05)  # 5 standard deviations


def test_a_class_of_one_image_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="class 1 has 1 image"):
        stratified_split(np.array([0, 0, 1]), 0.5, np.random.default_rng(0))
