"""REINFORCE solves the identity problem, with every combination of baseline and scores."""

from __future__ import annotations

import numpy as np
import pytest

from nas_engine.controllers.reinforce import ReinforceController, ReinforceOptions
from nas_engine.types import Architecture


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("baseline", ["leave_one_out", "ema"])
@pytest.mark.parametrize("advantages", ["rank", "standardised", "raw"])
def test_finds_the_optimum_in_a_fraction_of_the_space(space, target, run, baseline, advantages, seed):
    options = ReinforceOptions(baseline=baseline, advantages=advantages, learning_rate=0.05)
    history = run(ReinforceController(space, options, seed), steps=12)
    proposed = [architecture.genes for batch, _ in history for architecture in batch]
    assert target in proposed, f"not among {len(proposed)} of {space.size}"


def test_the_policy_itself_learns_the_optimum(space, target, run):
    """Not only a lucky draw: in the end the policy prefers the best genes at every decision.

    The optimum is proposed once; what keeps it attractive are the free samples of it.
    """
    controller = ReinforceController(space, ReinforceOptions(learning_rate=0.05, free_samples=16), seed=0)
    run(controller, steps=20)
    log_probs = controller.policy.evaluate(np.array([target])).log_probs
    assert np.exp(log_probs).min() > 0.5


def test_rank_scores_make_learning_independent_of_the_reward_scale(space, run):
    """Proposals, not only scores, are the same when all rewards are a million times larger."""
    small, large = ReinforceController(space, seed=3), ReinforceController(space, seed=3)
    assert [batch for batch, _ in run(small, 6)] == [batch for batch, _ in run(large, 6, scale=2.0**20)]


def test_entropy_falls_while_it_learns(space, run):
    entropies = [diagnostics["entropy"] for _, diagnostics in run(ReinforceController(space, seed=1), steps=12)]
    assert entropies[0] == pytest.approx(np.log(4), rel=0.02)
    assert entropies[-1] < 0.8 * entropies[0]


def test_reports_every_diagnostic(space, run):
    [(_, diagnostics)] = run(ReinforceController(space), steps=1)
    assert set(diagnostics) == {
        "approx_kl",
        "baseline",
        "entropy",
        "entropy_collapsed",
        "entropy_floored",
        "entropy_weight",
        "grad_norm",
        "nan_guard",
        "restarts",
        "policy_loss",
        "repeated_proposals",
    }
    assert diagnostics["nan_guard"] == diagnostics["entropy_collapsed"] == diagnostics["repeated_proposals"] == 0
    assert diagnostics["approx_kl"] > 0


def test_equal_rewards_teach_nothing_but_exploration(space):
    """Without imitation and entropy bonus an update on equal rewards leaves the policy where it is."""
    controller = ReinforceController(space, ReinforceOptions(self_imitation_weight=0, entropy_weight=0))
    proposed = controller.propose(8)
    assert controller.update(proposed, [0.7] * 8)["approx_kl"] == 0


def test_the_moving_average_follows_its_decay(space):
    controller = ReinforceController(space, ReinforceOptions(baseline="ema", ema_decay=0.5, advantages="raw"))
    reported = []
    for reward in (1.0, 3.0, 3.0):
        proposed = controller.propose(2)
        reported.append(controller.update(proposed, [reward, reward])["baseline"])
    assert reported == pytest.approx([1.0, 1.0, 2.0])


def test_a_warm_start_is_learned_from(space, target):
    """Architectures that somebody else proposed raise their own probability where they scored well."""
    controller = ReinforceController(space, seed=5)
    best = np.array([target])
    before = controller.policy.evaluate(best).log_probs.sum()
    told = [Architecture(space.name, target), *controller.propose(7)]
    controller.update(told, [1.0] + [0.0] * 7)
    assert controller.policy.evaluate(best).log_probs.sum() > before


def test_an_update_without_architectures_changes_nothing(space, run):
    idle, plain = ReinforceController(space, seed=2), ReinforceController(space, seed=2)
    assert idle.update([], []) == {}
    assert [batch for batch, _ in run(idle, 2)] == [batch for batch, _ in run(plain, 2)]
