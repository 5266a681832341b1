"""The published REINFORCE: it learns, repeats itself as published, and keeps the promises it can keep."""

from __future__ import annotations

import numpy as np
import pytest

from nas_engine.baselines.categorical_reinforce import CategoricalReinforceController, CategoricalReinforceOptions
from nas_engine.testing.block_space import BlockSpace
from nas_engine.testing.controller_contract import ControllerContract, MakeController


class TestPublishedReinforce(ControllerContract):
    # It pays for an architecture as often as it draws it, as published.
    test_never_proposes_twice = None
    test_proposals_without_an_update_between_differ = None
    test_never_proposes_what_it_was_told = None
    test_exhausts_a_tiny_space = None

    test_survives_odd_rewards = None  # this one too counts different proposals; see below

    @pytest.fixture
    def make_controller(self) -> MakeController:
        return lambda space, seed: CategoricalReinforceController(space, seed=seed)


@pytest.mark.parametrize("reward", [0.0, 1e30, 1.7e308, -1.7e308, 1e-300])
def test_it_survives_odd_rewards(reward: float) -> None:
    controller = CategoricalReinforceController(BlockSpace())
    for sign in (1, -1, 1, 0.5):
        diagnostics = controller.update(controller.propose(3), [reward, sign * reward, 0.0])
        assert np.isfinite(controller.logits).all()
        assert np.isfinite(list(diagnostics.values())).all()


def test_an_update_is_the_published_step() -> None:
    space = BlockSpace()
    controller = CategoricalReinforceController(space, CategoricalReinforceOptions(learning_rate=0.1), seed=0)
    (first,) = controller.propose(1)
    before = controller.logits.copy()
    controller.update([first], [5.0])
    assert controller.baseline == pytest.approx(5.0), "the first reward is its own baseline"
    assert np.array_equal(controller.logits, before), "so it teaches nothing"
    (second,) = controller.propose(1)
    probabilities = np.exp(before) / np.exp(before).sum(axis=1, keepdims=True)
    controller.update([second], [6.0])
    # Bias-corrected average: (0.9 * 0.1 * 5 + 0.1 * 6) / (1 - 0.9 ** 2).
    assert controller.baseline == pytest.approx((0.09 * 5 + 0.1 * 6) / 0.19)
    # The first moment of Adam after a zero gradient and g is 0.1 g / 0.19, the second 0.001 g^2 / 0.001999.
    chosen = np.eye(probabilities.shape[1])[list(second.genes)]
    step = np.sign(chosen - probabilities) * 0.1 * (0.1 / 0.19) / np.sqrt(0.001 / 0.001999)
    assert np.allclose(controller.logits - before, step, atol=1e-6)


def test_it_solves_a_separable_problem(separable) -> None:
    space = BlockSpace()
    rewards, optimum = separable(0)
    controller = CategoricalReinforceController(space, CategoricalReinforceOptions(learning_rate=0.05), seed=0)
    told = []
    for _ in range(1_500):
        proposed = controller.propose(1)
        told += rewards(proposed)
        diagnostics = controller.update(proposed, told[-1:])
    assert np.mean(told[-100:]) > np.mean(told[:100]) + 0.5 * (optimum - np.mean(told[:100]))
    assert diagnostics["entropy"] < 0.7 * np.log(5)
