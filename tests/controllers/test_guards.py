"""The NaN guard undoes what would ruin the weights; the entropy floor brings a collapsed policy back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nas_engine.controllers.guards import EntropyFloor, GuardedAdam
from nas_engine.controllers.lstm import FloatArray, LSTMPolicy
from nas_engine.controllers.ppo import PPOController, PPOOptions
from nas_engine.controllers.reinforce import ReinforceController, ReinforceOptions
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions


def small_policy(space) -> LSTMPolicy:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LSTMPolicy(space.diagram, embedding_size=4, hidden_size=8)


def loss_and_gradient(policy: LSTMPolicy) -> tuple[float, FloatArray]:
    """Of the sum of two architectures' log-probabilities."""
    rollout, evaluation = policy.follow(np.array([[0, 1, 2, 3], [1, 1, 1, 1]]))
    upstream = np.zeros_like(evaluation.outputs)
    upstream[0] = 1
    return float(rollout.log_probs.sum()), policy.gradient(evaluation, upstream)


@pytest.mark.parametrize("poisons_loss", [False, True])
@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e38])
def test_a_poisoned_step_undoes_the_whole_update(space, poison, poisons_loss):
    policy = small_policy(space)
    adam = GuardedAdam(policy.vector, learning_rate=0.1, max_grad_norm=1.0)
    adam.step(*loss_and_gradient(policy))
    weights = {name: weight.clone() for name, weight in policy.state_dict().items()}
    moments = adam.state_dict()

    adam.begin()
    assert adam.step(*loss_and_gradient(policy))
    loss, gradient = loss_and_gradient(policy)
    with np.errstate(over="ignore", invalid="ignore"):
        gradient *= poison * 10
    assert not adam.step(loss * poison * 10 if poisons_loss else loss, gradient)
    assert adam.undone
    for name, weight in policy.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    assert adam.state_dict()["steps"] == moments["steps"] == 1
    assert torch.equal(adam.state_dict()["mean"], moments["mean"])
    assert torch.equal(adam.state_dict()["square"], moments["square"])


def test_what_is_undone_twice_is_undone_to_the_same_state(space):
    """A step between two undone ones leaves nothing behind either."""
    policy = small_policy(space)
    adam = GuardedAdam(policy.vector, learning_rate=0.1, max_grad_norm=1.0)
    assert adam.step(*loss_and_gradient(policy))
    weights, moments = policy.vector.copy(), adam.state_dict()
    adam.begin()
    for _ in range(2):
        assert adam.step(*loss_and_gradient(policy))
        assert not adam.step(math.nan, loss_and_gradient(policy)[1])
        np.testing.assert_array_equal(policy.vector, weights)
        assert torch.equal(adam.state_dict()["mean"], moments["mean"])
        assert torch.equal(adam.state_dict()["square"], moments["square"])


def test_a_step_is_that_of_adam_with_a_clipped_gradient():
    """The same weights as with torch.optim.Adam and clip_grad_norm_, also after the moments were saved and loaded."""
    generator = np.random.default_rng(0)
    weights = generator.standard_normal(50).astype(np.float32)
    expected = torch.nn.Parameter(torch.from_numpy(weights.copy()))
    reference = torch.optim.Adam([expected], lr=0.1, eps=1e-5)
    adam = GuardedAdam(weights, learning_rate=0.1, max_grad_norm=5.0)
    for step in range(6):
        gradient = generator.standard_normal(50).astype(np.float32) * step
        expected.grad = torch.from_numpy(gradient.copy())
        norm = torch.nn.utils.clip_grad_norm_([expected], 5.0)
        reference.step()
        assert adam.step(1.0, gradient)
        assert adam.grad_norm == pytest.approx(float(norm))
        np.testing.assert_allclose(weights, expected.detach().numpy(), atol=1e-6)
        state, adam = adam.state_dict(), GuardedAdam(weights, learning_rate=0.1, max_grad_norm=5.0)
        adam.load_state_dict(state)


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
    """A broken floor is reported; the next update starts above it, and a later one holds it."""
    controller = factory(space, options, seed=2)
    history = []
    for _ in range(20):
        [(proposed, diagnostics)] = run(controller, steps=1)
        history.append(diagnostics)
        assert (diagnostics["entropy"] < options.entropy_floor) == bool(diagnostics["entropy_collapsed"])
        assert diagnostics["entropy_floored"] >= max(diagnostics["entropy"], options.entropy_floor)
        genes = np.array([architecture.genes for architecture in proposed])
        assert controller.policy.evaluate(genes).mean_entropy >= options.entropy_floor
    collapsed = [bool(diagnostics["entropy_collapsed"]) for diagnostics in history]
    first = collapsed.index(True)  # the learning rate is meant to be too high
    assert history[first + 1]["entropy_weight"] == 2 * history[first]["entropy_weight"]
    assert not all(collapsed[first:])


def test_a_saturated_policy_is_brought_back_above_the_floor(space):
    policy = small_policy(space)
    policy.weights.logit_bias[:, 0] += 1e6
    genes = np.array([[0, 0, 0, 0]])
    floor = EntropyFloor(0.1)
    collapsed = policy.evaluate(genes)
    assert collapsed.mean_entropy == 0
    left = floor.apply(policy, collapsed)
    assert left == policy.evaluate(genes).mean_entropy
    assert left >= 0.1


def test_the_boost_doubles_below_the_floor_and_returns_to_1_above(space):
    policy = small_policy(space)
    rollout = policy.evaluate(np.array([[0, 0, 0, 0]]))
    floor = EntropyFloor(2.0)  # above what four choices can have: always below the floor
    for expected in (2.0, 4.0, 8.0):
        floor.apply(policy, rollout)
        assert floor.boost == expected
    floor.floor = 0.1
    for expected in (4.0, 2.0, 1.0, 1.0):
        floor.apply(policy, rollout)
        assert floor.boost == expected


def test_a_floor_that_no_policy_can_keep_does_not_forbid_learning(space, target, run):
    """Above the entropy of uniform choices it means 0.8 of that: the target is still likelier than by chance."""
    controller = PPOController(space, PPOOptions(learning_rate=0.015, entropy_floor=10.0), seed=0)
    run(controller, steps=8)
    assert np.exp(controller.policy.evaluate(np.array([target])).log_probs.sum()) > 4 / space.size


def test_what_masks_leave_open_bounds_the_floor():
    """Of four widths few are open: no policy has the entropy of four, and none is made uniform for the lack of it."""
    masked = BlockSpace(options=BlockSpaceOptions(blocks=4, widths=4, max_total_width=2))
    controller = PPOController(masked, PPOOptions(learning_rate=0.015, entropy_floor=1.0, replay=8), seed=0)
    for _ in range(3):
        proposed = controller.propose(3)
        controller.update(proposed, [float(architecture.genes[0]) for architecture in proposed])
    assert controller.policy.weights.logit_weight.abs().max() > 1e-3
