"""PPO solves the identity problem, stops where it is told to, and clips what it says it clips."""

from __future__ import annotations

import numpy as np
import pytest

from nas_engine.controllers.ppo import PPOController, PPOOptions


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options", [{}, {"minibatches": 3, "free_samples": 16}, {"advantages": "standardised"}], ids=str
)
def test_finds_the_optimum_in_a_fraction_of_the_space(space, target, run, options, seed):
    history = run(PPOController(space, PPOOptions(learning_rate=0.015, **options), seed), steps=12)
    proposed = [architecture.genes for batch, _ in history for architecture in batch]
    assert target in proposed, f"not among {len(proposed)} of {space.size}"


@pytest.mark.parametrize("seed", range(5))
def test_the_policy_itself_learns_the_optimum(space, target, run, seed):
    """Not only a lucky draw: after a quarter of the space, the policy draws the best nearly every second time."""
    controller = PPOController(space, PPOOptions(learning_rate=0.015), seed)
    run(controller, steps=8)
    assert np.exp(controller.policy.evaluate(np.array([target])).log_probs.sum()) > 0.25


def test_the_value_head_learns_to_predict_the_returns(space, run):
    """On one batch again and again, the values come to explain which prefixes lead to good architectures."""
    options = PPOOptions(learning_rate=0.01, epochs=20, target_kl=0, self_imitation_weight=0, gae_lambda=1.0)
    controller = PPOController(space, options)
    proposed = controller.propose(16)
    rewards = [float(architecture.genes[0]) for architecture in proposed]
    explained = [controller.update(proposed, rewards)["explained_variance"] for _ in range(8)]
    assert explained[0] < 0.1
    assert explained[-1] > 0.5


def test_kl_ends_the_passes(space, run):
    far = PPOOptions(learning_rate=0.05, epochs=30, target_kl=0.02)
    [(_, stopped)] = run(PPOController(space, far), steps=1)
    [(_, unlimited)] = run(PPOController(space, far.model_copy(update={"target_kl": 0.0})), steps=1)
    assert stopped["gradient_steps"] < unlimited["gradient_steps"] == 30
    assert stopped["approx_kl"] < unlimited["approx_kl"]


def test_the_first_step_of_an_update_clips_nothing(space, run):
    """Before the first step the policy is the one that was drawn from: every ratio is 1."""
    [(_, diagnostics)] = run(PPOController(space, PPOOptions(epochs=1)), steps=1)
    assert diagnostics["clip_fraction"] == 0
    assert diagnostics["gradient_steps"] == 1


def test_a_tight_clip_moves_the_policy_less(space, run):
    options = {"learning_rate": 0.02, "epochs": 10, "target_kl": 0, "self_imitation_weight": 0, "value_weight": 0}
    [(_, tight)] = run(PPOController(space, PPOOptions(clip_coef=0.01, **options)), steps=1)
    [(_, loose)] = run(PPOController(space, PPOOptions(clip_coef=10.0, **options)), steps=1)
    assert tight["clip_fraction"] > loose["clip_fraction"]
    assert tight["approx_kl"] < loose["approx_kl"]


def test_minibatches_are_gradient_steps(space, run):
    options = PPOOptions(minibatches=4, epochs=2, target_kl=0)
    [(_, diagnostics)] = run(PPOController(space, options), steps=1)
    assert diagnostics["gradient_steps"] == 8


def test_reports_every_diagnostic(space, run):
    [(_, diagnostics)] = run(PPOController(space), steps=1)
    assert set(diagnostics) == {
        "approx_kl",
        "baseline",
        "clip_fraction",
        "entropy",
        "entropy_collapsed",
        "entropy_floored",
        "entropy_weight",
        "explained_variance",
        "grad_norm",
        "gradient_steps",
        "nan_guard",
        "restarts",
        "policy_loss",
        "repeated_proposals",
        "value_loss",
    }
