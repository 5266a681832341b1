"""The policy network: its distribution is the one it claims, under the masks of the space."""

from __future__ import annotations

import copy
import math
from collections import Counter

import numpy as np
import pytest
import torch

from nas_engine.controllers.lstm import LSTMPolicy
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions

MASKED = BlockSpace(options=BlockSpaceOptions(blocks=3, widths=3, max_total_width=3))


def make_policy(space: BlockSpace, seed: int = 0, **options: float) -> LSTMPolicy:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LSTMPolicy(space.diagram, embedding_size=8, hidden_size=16, **options)


def decided_policy(space: BlockSpace) -> LSTMPolicy:
    """A policy far from uniform."""
    policy = make_policy(space)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        policy.weights.logit_weight.normal_(std=3.0)
    return policy


def test_samples_are_valid_architectures():
    for genes in decided_policy(MASKED).sample(500, torch.Generator().manual_seed(0)).tolist():
        assert MASKED.diagram.contains(genes)


def test_probabilities_of_all_architectures_sum_to_one():
    genes = np.array(list(MASKED.diagram))
    log_probs = decided_policy(MASKED).evaluate(genes).log_probs.sum(axis=1)
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-5)


def test_samples_follow_the_evaluated_probabilities():
    policy = decided_policy(MASKED)
    genes = np.array(list(MASKED.diagram))
    expected = policy.evaluate(genes).log_probs.sum(axis=1)
    expected = np.exp(expected).tolist()
    n = 20_000
    counts = Counter(map(tuple, policy.sample(n, torch.Generator().manual_seed(2)).tolist()))
    for row, probability in zip(genes.tolist(), expected, strict=True):
        deviation = math.sqrt(probability * (1 - probability) / n)
        assert abs(counts[tuple(row)] / n - probability) < 5 * deviation + 1e-4


def test_entropy_is_that_of_the_conditional_distributions():
    """Over all architectures, sum of p * (entropies of its decisions) is the entropy of the whole distribution."""
    rollout = decided_policy(MASKED).evaluate(np.array(list(MASKED.diagram)))
    log_probs = rollout.log_probs.sum(axis=1)
    whole = -(np.exp(log_probs) * log_probs).sum()
    chained = (np.exp(log_probs) * rollout.entropies.sum(axis=1)).sum()
    assert chained == pytest.approx(whole, rel=1e-4)


def test_starts_close_to_uniform_over_the_open_choices():
    policy = make_policy(MASKED)
    genes = np.array(list(MASKED.diagram))
    masks = [[MASKED.mask(row[:position]).sum() for position in range(3)] for row in genes.tolist()]
    expected = -np.log(np.array(masks, dtype=np.float64))
    np.testing.assert_allclose(policy.evaluate(genes).log_probs, expected, atol=0.02)


def test_forced_decisions_are_not_open_and_cost_nothing():
    rollout = decided_policy(MASKED).evaluate(np.array([[2, 1, 0]]))
    assert rollout.open.tolist() == [[True, True, False]]
    assert rollout.log_probs[0, 2] == 0
    assert rollout.entropies[0, 2] == 0
    assert rollout.mean_entropy == pytest.approx(rollout.entropies[0, :2].mean())


def test_every_weight_gets_a_gradient():
    policy = make_policy(MASKED)
    _, evaluation = policy.follow(np.array(list(MASKED.diagram)))
    gradient = policy.gradient(evaluation, np.ones_like(evaluation.outputs))
    policy.vector[:] = gradient  # to look at it by the names of the weights
    for name, part in policy.weights._asdict().items():
        assert bool(part.abs().sum() > 0), name


def test_a_step_against_the_gradient_of_a_loss_lowers_it():
    """By about the squared norm of the gradient times the step: it is the gradient of that loss, to first order."""
    policy = decided_policy(MASKED)
    genes = np.array(list(MASKED.diagram))
    loss_weights = np.random.default_rng(0).standard_normal((3, *genes.shape)).astype(np.float32)
    _, evaluation = policy.follow(genes)
    gradient = policy.gradient(evaluation, loss_weights)
    step = 1e-3 / np.linalg.norm(gradient)
    policy.vector -= step * gradient
    after = policy.follow(genes)[1]
    lowered = float((loss_weights * (evaluation.outputs.astype(np.float64) - after.outputs)).sum())
    assert lowered == pytest.approx(float(step * np.square(gradient).sum()), rel=0.05)


def test_a_copy_has_weights_of_its_own():
    policy = decided_policy(MASKED)
    genes = np.array(list(MASKED.diagram))
    before = policy.evaluate(genes).log_probs
    other = copy.deepcopy(policy)
    other.scale_logits(0.0)
    np.testing.assert_array_equal(policy.evaluate(genes).log_probs, before)
    assert not np.array_equal(other.evaluate(genes).log_probs, before)


@pytest.mark.parametrize("name", ["logit_bias", "logit_weight"])
def test_a_state_of_other_shapes_changes_nothing(name: str):
    policy, other = decided_policy(MASKED), make_policy(MASKED)
    state = policy.state_dict()
    state[name] = state[name][:1]  # a shape that could be broadcast
    before = other.vector.copy()
    with pytest.raises(ValueError, match=f"{name} of the state"):
        other.load_state_dict(state)
    np.testing.assert_array_equal(other.vector, before)


def test_temperature_flattens_and_the_tanh_constant_bounds():
    genes = np.array(list(MASKED.diagram))
    sharp = decided_policy(MASKED)
    flat, bounded = make_policy(MASKED, temperature=10.0), make_policy(MASKED, tanh_constant=1.0)
    for other in (flat, bounded):
        other.load_state_dict(sharp.state_dict())
        assert other.evaluate(genes).mean_entropy > sharp.evaluate(genes).mean_entropy
    # Logits within (-1, 1): no open choice of three is less likely than e^-2 times the others.
    assert bounded.evaluate(genes).log_probs.min() >= -math.log(1 + 2 * math.exp(2)) - 1e-6


def test_scaling_the_logits_down_makes_it_uniform():
    policy = decided_policy(MASKED)
    policy.scale_logits(0.0)
    rollout = policy.evaluate(np.array([[0, 0, 0]]))
    np.testing.assert_allclose(rollout.entropies, np.full((1, 3), math.log(3)), rtol=1e-6)
