from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nas_engine.baselines.random import RandomController
from nas_engine.baselines.thompson import ThompsonController
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Space
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.testing.controller_contract import ControllerContract
from nas_engine.types import ImageShape

SHAPE = ImageShape(3, 32, 32, 10)


class TestContract(ControllerContract):
    @pytest.fixture
    def make_controller(self):
        return lambda space, seed: ThompsonController(space, seed=seed)


class TestContractOnCells(TestContract):
    @pytest.fixture
    def space(self):
        return NASBench201Space(SHAPE)


class TestContractOnATable(TestContract):
    @pytest.fixture
    def space(self, incomplete_table, tmp_path: Path):
        return incomplete_table(tmp_path / "space.npz", rows=700, decisions=5, choices=4)

    @pytest.fixture
    def tiny_space(self, incomplete_table, tmp_path: Path):
        return incomplete_table(tmp_path / "tiny.npz", rows=14, decisions=3, choices=3)


@pytest.mark.parametrize(
    "space",
    [
        pytest.param(MobileNetSpace(SHAPE), id="mobilenet"),
        pytest.param(BlockSpace(options=BlockSpaceOptions(blocks=8, widths=5, merge_skips=True)), id="blocks"),
        pytest.param(BlockSpace(options=BlockSpaceOptions(blocks=3, widths=36)), id="4,000 features of each"),
    ],
)
def test_spaces_too_large_to_list(space, check_large_space):
    controller = ThompsonController(space)
    assert space.size * controller._basis.size > 100_000_000
    assert controller._listed is None
    check_large_space(lambda seed: ThompsonController(space, seed=seed), space)


def test_finds_the_optimum_of_a_separable_problem(regret):
    # The problem is linear in the choices: the model holds for it, and random search is 1.0 below the optimum.
    found = [regret(lambda space, seed: ThompsonController(space, seed=seed), s, 150) for s in range(8)]
    random = [regret(lambda space, seed: RandomController(space, seed=seed), s, 150) for s in range(8)]
    assert np.mean(found) < 0.02
    assert np.mean(random) > 0.2


def test_all_rewards_equal_is_no_information(blocks):
    """Each draw is from a posterior that prefers nothing: the proposals stay spread over all first choices."""
    controller, proposed = ThompsonController(blocks, seed=1), []
    for _ in range(30):
        batch = controller.propose(5)
        controller.update(batch, [7.0] * 5)
        proposed += batch
    counts = np.bincount([architecture.genes[0] for architecture in proposed], minlength=5)
    assert counts.min() >= 10


def test_a_noisier_score_is_believed_less(separable, blocks):
    """With much noise the proposals after a hundred rewards are worse on average than with little."""
    rewards, _ = separable(3)
    means = []
    for noise in (0.01, 100.0):
        controller = ThompsonController(blocks, ThompsonController.Options(noise=noise), seed=2)
        for _ in range(10):
            batch = controller.propose(10)
            controller.update(batch, rewards(batch))
        means.append(np.mean(rewards(controller.propose(20))))
    assert means[0] > means[1] + 0.3
