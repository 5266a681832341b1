"""The NaN guard undoes what would ruin the weights; the entropy floor brings a collapsed policy back."""

from __future__ import annotations

import math

import pytest
import torch

from nas_engine.controllers.guards import EntropyFloor, GuardedAdam
from nas_engine.controllers.lstm import LSTMPolicy
from nas_engine.controllers.ppo import PPOController, PPOOptions
from nas_engine.controllers.reinforce import ReinforceController, ReinforceOptions


def small_policy(space) -> LSTMPolicy:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LSTMPolicy(space.diagram, embedding_size=4, hidden_size=8)


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e38])
def test_a_poisoned_step_undoes_the_whole_update(space, poison):
    policy = small_policy(space)
    adam = GuardedAdam(policy, learning_rate=0.1, max_grad_norm=1.0)
    genes = torch.tensor([[0, 1, 2, 3], [1, 1, 1, 1]])
    adam.step(policy.evaluate(genes).log_probs.sum())
    weights = {name: weight.clone() for name, weight in policy.state_dict().items()}
    moments = adam.state_dict()["state"][0]["exp_avg"].clone()

    adam.begin()
    assert adam.step(policy.evaluate(genes).log_probs.sum())
    assert not adam.step(policy.evaluate(genes).log_probs.sum() * poison * 10)
    assert adam.undone
    for name, weight in policy.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    assert torch.equal(adam.state_dict()["state"][0]["exp_avg"], moments)


@pytest.mark.parametrize("factory", [ReinforceController, PPOController])
def test_learning_goes_on_after_an_undone_update(space, run, factory):
    """Raw rewards beyond float32 undo an update, which says so; the next ordinary ones are learned from."""
    controller = factory(space, factory.Options(advantages="raw"), seed=1)
    proposed = controller.propose(8)
    before = {name: weight.clone() for name, weight in controller.policy.state_dict().items()}
    assert controller.update(proposed, [1e300, -1e300] * 4)["nan_guard"] == 1
    for name, weight in controller.policy.state_dict().items():
        assert torch.equal(weight, before[name]), name
    [(_, diagnostics)] = run(controller, steps=1)
    assert diagnostics["nan_guard"] == 0
    assert diagnostics["approx_kl"] > 0


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (ReinforceController, ReinforceOptions(learning_rate=1.0, entropy_weight=0.01, max_grad_norm=10.0)),
        (PPOController, PPOOptions(learning_rate=1.0, entropy_weight=0.01, max_grad_norm=10.0, target_kl=0)),
    ],
)
def test_an_absurd_learning_rate_does_not_collapse_the_policy(space, run, factory, options):
    """A broken floor is reported; the next update starts above half of it, and a later one holds it."""
    controller = factory(space, options, seed=2)
    history = []
    for _ in range(20):
        [(proposed, diagnostics)] = run(controller, steps=1)
        history.append(diagnostics)
        assert (diagnostics["entropy"] < options.entropy_floor) == bool(diagnostics["entropy_collapsed"])
        genes = torch.tensor([architecture.genes for architecture in proposed])
        assert controller.policy.evaluate(genes).mean_entropy.item() >= options.entropy_floor / 2
    collapsed = [bool(diagnostics["entropy_collapsed"]) for diagnostics in history]
    first = collapsed.index(True)  # the learning rate is meant to be too high
    assert history[first + 1]["entropy_weight"] == 2 * history[first]["entropy_weight"]
    assert not all(collapsed[first:])


def test_a_saturated_policy_is_brought_back_above_half_the_floor(space):
    policy = small_policy(space)
    with torch.no_grad():
        policy.logit_bias[:, 0] += 1e6
    genes = torch.tensor([[0, 0, 0, 0]])
    floor = EntropyFloor(0.1)
    collapsed = policy.evaluate(genes)
    assert collapsed.mean_entropy.item() == 0
    floor.apply(policy, collapsed)
    assert policy.evaluate(genes).mean_entropy.item() >= 0.05


def test_the_boost_doubles_below_the_floor_and_returns_to_1_above(space):
    policy = small_policy(space)
    rollout = policy.evaluate(torch.tensor([[0, 0, 0, 0]]))
    floor = EntropyFloor(2.0)  # above what four choices can have: always below the floor
    for expected in (2.0, 4.0, 8.0):
        floor.apply(policy, rollout)
        assert floor.boost == expected
    floor.floor = 0.1
    for expected in (4.0, 2.0, 1.0, 1.0):
        floor.apply(policy, rollout)
        assert floor.boost == expected
