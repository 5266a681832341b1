"""A policy that finds nothing better starts afresh: new weights, what is known stays known, nothing twice."""

from __future__ import annotations

import numpy as np
import pytest

from nas_engine.controllers.ppo import PPOController, PPOOptions
from nas_engine.controllers.reinforce import ReinforceController, ReinforceOptions
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions

PATIENCE = 12


def flat_after_the_first(controller, batches, size=4):
    """Diagnostics of updates in which only the very first architecture gets a reward."""
    first = True
    for _ in range(batches):
        proposed = controller.propose(size)
        rewards = [float(first and not position) for position in range(size)]
        first = False
        yield proposed, controller.update(proposed, rewards)


@pytest.mark.parametrize(
    ("controller", "options"), [(PPOController, PPOOptions), (ReinforceController, ReinforceOptions)]
)
def test_starts_afresh_after_so_many_evaluations_without_a_new_best(space, controller, options):
    history = list(flat_after_the_first(controller(space, options(patience=PATIENCE), 0), 8))
    restarts = [diagnostics["restarts"] for _, diagnostics in history]
    assert restarts[:3] == [0, 0, 0], "3 batches of 4: the best is 11 evaluations ago"
    assert restarts[3] == 1, "15 evaluations ago"
    proposed = [architecture for batch, _ in history for architecture in batch]
    assert len(set(proposed)) == len(proposed), "what was known before a fresh start is not paid for again"


def test_a_design_longer_than_patience_comes_to_an_end(space):
    """The policy is asked after each random design, however short patience is."""
    controller = PPOController(space, PPOOptions(initial_design=9, patience=3), 0)
    restarts = []
    for step in range(30):
        proposed = controller.propose(1)
        restarts.append(controller.update(proposed, [float(step == 0)])["restarts"])
    assert restarts.index(1) == 11, "9 random ones and 3 of the policy"
    assert restarts.index(2) == 23


def test_a_new_best_in_time_keeps_the_policy(space):
    controller = PPOController(space, PPOOptions(patience=PATIENCE), 0)
    for step in range(8):
        proposed = controller.propose(4)
        assert controller.update(proposed, [step + 0.1 * i for i in range(4)])["restarts"] == 0


def test_only_what_came_later_is_imitated(space):
    """After a fresh start the old best is not imitated: the policy leaves it for the best of those that came since."""
    options = PPOOptions(
        patience=PATIENCE, self_imitation_weight=5.0, self_imitation_size=1, learning_rate=0.03, entropy_floor=0
    )
    controller = PPOController(space, options, 0)
    (first, *_), _ = next(updates := flat_after_the_first(controller, 4))
    first_genes = np.array([first.genes])
    log_probs = [controller.policy.evaluate(first_genes).log_probs.sum() for _ in updates]
    assert log_probs[1] > log_probs[0], "imitated as long as it is the best"
    assert log_probs[2] < log_probs[1], "and no longer"


def test_fresh_weights_are_nearly_uniform_again(space):
    """A policy that has learned has less entropy than the fresh one that takes its place."""
    options = PPOOptions(patience=PATIENCE, learning_rate=0.03, entropy_floor=0)
    controller = PPOController(space, options, 0)
    entropies, restarts = [], []
    for _, diagnostics in flat_after_the_first(controller, 4):
        entropies.append(diagnostics["entropy"])
        restarts.append(diagnostics["restarts"])
    assert restarts == [0, 0, 0, 1]
    assert entropies[3] > entropies[2]


def test_no_restart_without_patience(space):
    assert all(d["restarts"] == 0 for _, d in flat_after_the_first(PPOController(space, PPOOptions(), 0), 20))


def test_a_resumed_controller_restarts_at_the_same_evaluation(space):
    options = PPOOptions(patience=PATIENCE, replay=8)
    whole = PPOController(space, options, 0)
    list(flat_after_the_first(whole, 5))
    resumed = PPOController(space, options, 0)
    resumed.load_state_dict(whole.state_dict())
    for _ in range(6):
        proposed = whole.propose(4)
        assert resumed.propose(4) == proposed
        assert resumed.update(proposed, [0.0] * 4) == whole.update(proposed, [0.0] * 4)


@pytest.mark.parametrize(
    ("controller", "options"), [(PPOController, PPOOptions), (ReinforceController, ReinforceOptions)]
)
def test_fresh_starts_in_an_exhausted_space(controller, options):
    """All is known: every start is the last, and repeated architectures bring nothing new."""
    small = BlockSpace(options=BlockSpaceOptions(blocks=2, widths=2))
    learner = controller(small, options(patience=1, replay=4, self_imitation_weight=0.5), 0)
    for step in range(12):
        proposed = learner.propose(2)
        assert learner.update(proposed, [float(step == 0), 0.0])["nan_guard"] == 0
