"""The policy network: its distribution is the one it claims, under the masks of the space."""

from __future__ import annotations

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
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        policy.logit_weight.normal_(std=3.0)
    return policy


def test_samples_are_valid_architectures():
    for genes in decided_policy(MASKED).sample(500, torch.Generator().manual_seed(0)).tolist():
        assert MASKED.diagram.contains(genes)


def test_probabilities_of_all_architectures_sum_to_one():
    genes = torch.tensor(list(MASKED.diagram))
    log_probs = decided_policy(MASKED).evaluate(genes).log_probs.sum(dim=1)
    assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_samples_follow_the_evaluated_probabilities():
    policy = decided_policy(MASKED)
    genes = torch.tensor(list(MASKED.diagram))
    expected = policy.evaluate(genes).log_probs.sum(dim=1).exp().tolist()
    n = 20_000
    counts = Counter(map(tuple, policy.sample(n, torch.Generator().manual_seed(2)).tolist()))
    for row, probability in zip(genes.tolist(), expected, strict=True):
        deviation = math.sqrt(probability * (1 - probability) / n)
        assert abs(counts[tuple(row)] / n - probability) < 5 * deviation + 1e-4


def test_entropy_is_that_of_the_conditional_distributions():
    """Over all architectures, sum of p * (entropies of its decisions) is the entropy of the whole distribution."""
    rollout = decided_policy(MASKED).evaluate(torch.tensor(list(MASKED.diagram)))
    log_probs = rollout.log_probs.sum(dim=1)
    whole = -(log_probs.exp() * log_probs).sum()
    chained = (log_probs.exp() * rollout.entropies.sum(dim=1)).sum()
    assert chained.item() == pytest.approx(whole.item(), rel=1e-4)


def test_starts_close_to_uniform_over_the_open_choices():
    policy = make_policy(MASKED)
    genes = torch.tensor(list(MASKED.diagram))
    masks = [[MASKED.mask(row[:position]).sum() for position in range(3)] for row in genes.tolist()]
    expected = -np.log(np.array(masks, dtype=np.float64))
    np.testing.assert_allclose(policy.evaluate(genes).log_probs.detach(), expected, atol=0.02)


def test_forced_decisions_are_not_open_and_cost_nothing():
    rollout = decided_policy(MASKED).evaluate(torch.tensor([[2, 1, 0]]))
    assert rollout.open.tolist() == [[True, True, False]]
    assert rollout.log_probs[0, 2].item() == 0
    assert rollout.entropies[0, 2].item() == 0
    assert rollout.mean_entropy.item() == pytest.approx(rollout.entropies[0, :2].mean().item())


def test_every_weight_gets_a_gradient():
    policy = make_policy(MASKED)
    rollout = policy.evaluate(torch.tensor(list(MASKED.diagram)))
    (rollout.log_probs.mean() + rollout.values.square().mean()).backward()
    for name, weight in policy.named_parameters():
        assert weight.grad is not None, name
        assert bool(weight.grad.abs().sum() > 0), name


def test_temperature_flattens_and_the_tanh_constant_bounds():
    genes = torch.tensor(list(MASKED.diagram))
    sharp = decided_policy(MASKED)
    flat, bounded = make_policy(MASKED, temperature=10.0), make_policy(MASKED, tanh_constant=1.0)
    for other in (flat, bounded):
        other.load_state_dict(sharp.state_dict())
        assert other.evaluate(genes).mean_entropy > sharp.evaluate(genes).mean_entropy
    # Logits within (-1, 1): no open choice of three is less likely than e^-2 times the others.
    assert bounded.evaluate(genes).log_probs.min().item() >= -math.log(1 + 2 * math.exp(2)) - 1e-6


def test_scaling_the_logits_down_makes_it_uniform():
    policy = decided_policy(MASKED)
    policy.scale_logits(0.0)
    rollout = policy.evaluate(torch.tensor([[0, 0, 0]]))
    torch.testing.assert_close(rollout.entropies, torch.full((1, 3), math.log(3)))


@pytest.mark.parametrize("space", [MASKED, BlockSpace(options=BlockSpaceOptions(blocks=3, widths=4))])
def test_masks_that_never_change_are_looked_up_and_others_followed(space: BlockSpace) -> None:
    policy = decided_policy(space)
    assert (policy.fixed_masks is None) == (space is MASKED)
    genes = torch.tensor(list(space.diagram))
    found = policy.evaluate(genes)
    policy.fixed_masks = None
    followed = policy.evaluate(genes)
    assert torch.equal(found.log_probs, followed.log_probs)
    assert torch.equal(found.open, followed.open)
