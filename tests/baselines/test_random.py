from __future__ import annotations

import numpy as np
import pytest

from nas_engine.baselines.random import RandomController
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.testing.controller_contract import ControllerContract
from nas_engine.types import ImageShape


class TestContract(ControllerContract):
    @pytest.fixture
    def make_controller(self):
        return lambda space, seed: RandomController(space, RandomController.Options(), seed)


def test_first_proposals_are_uniform_over_valid_architectures():
    # Of the valid sequences of these masks, few begin with a wide block: choosing uniformly at each decision would
    # give every first gene the same share.
    space = BlockSpace(ImageShape(1, 8, 8, 10), BlockSpaceOptions(blocks=3, widths=4, max_total_width=3))
    first = [RandomController(space, seed=seed).propose(1)[0].genes for seed in range(2_000)]
    expected = np.bincount([a.genes[0] for a in space], minlength=4) / space.size
    assert expected == pytest.approx([0.5, 0.3, 0.15, 0.05])
    # Five standard deviations of a share of 2,000 draws.
    assert np.bincount([genes[0] for genes in first], minlength=4) / 2_000 == pytest.approx(expected, abs=0.056)


def test_rewards_do_not_matter():
    space = BlockSpace()
    one, other = RandomController(space, seed=1), RandomController(space, seed=1)
    for _ in range(3):
        proposed = one.propose(5)
        assert proposed == other.propose(5)
        assert one.update(proposed, [1.0] * 5) == {}
        other.update(proposed, [-1.0, 2.0, -3.0, 4.0, 0.0])
