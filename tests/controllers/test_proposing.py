"""Proposals are new and canonical; learned from are their canonical genes and those that were drawn."""

from __future__ import annotations

import numpy as np
import torch

from nas_engine.controllers.lstm import FloatArray, IntArray, LSTMPolicy
from nas_engine.controllers.proposing import Proposer
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions

MERGING = BlockSpace(options=BlockSpaceOptions(blocks=4, widths=3, merge_skips=True))


def make(space: BlockSpace, certain_of: tuple[int, ...] | None = None, certainty: float = 30.0) -> Proposer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = LSTMPolicy(space.diagram, embedding_size=4, hidden_size=8)
    if certain_of:
        policy.weights.logit_bias[torch.arange(len(certain_of)), torch.tensor(certain_of)] = certainty
    return Proposer(space, policy, seed=0)


def test_a_proposal_is_learned_from_in_canonical_form_and_as_it_was_drawn():
    proposer = make(MERGING, certain_of=(0, 2, 0, 1))
    [proposed] = proposer.propose(1)
    assert proposed.genes == (2, 1, 0, 0)
    genes, rewards = proposer.collect([proposed], [0.5], most_free=0)
    assert genes.tolist() == [[2, 1, 0, 0], [0, 2, 0, 1]]
    assert rewards.tolist() == [0.5, 0.5]


def test_a_proposal_that_was_drawn_in_canonical_form_is_one_sample():
    proposer = make(MERGING, certain_of=(2, 1, 0, 0))
    [proposed] = proposer.propose(1)
    genes, rewards = proposer.collect([proposed], [0.5], most_free=0)
    assert genes.tolist() == [[2, 1, 0, 0]]
    assert rewards.tolist() == [0.5]


def test_what_others_proposed_is_learned_from_in_canonical_form():
    genes, _ = make(MERGING).collect([MERGING.architecture((0, 2, 0, 1))], [0.5], most_free=0)
    assert genes.tolist() == [[2, 1, 0, 0]]


def test_a_certain_policy_is_completed_by_neighbours_of_the_best():
    proposer = make(MERGING, certain_of=(1, 1, 1, 1))
    [known] = proposer.propose(1)
    proposer.collect([known], [1.0], most_free=0)
    neighbours = {MERGING.canonical(neighbour) for neighbour in MERGING.neighbours(known)}
    assert set(proposer.propose(len(neighbours))) == neighbours
    assert proposer.repeated_share == 1


def test_known_architectures_drawn_again_are_free_samples():
    proposer = make(MERGING, certain_of=(1, 1, 1, 1))
    [known] = proposer.propose(1)
    proposer.collect([known], [1.0], most_free=5)
    fresh = proposer.propose(2)
    genes, rewards = proposer.collect(fresh, [0.1, 0.2], most_free=5)
    assert rewards.tolist() == [0.1, 0.2] + [1.0] * 5
    assert genes[2:].tolist() == [[1, 1, 1, 1]] * 5


def test_free_samples_do_not_outlive_the_update_they_belong_to():
    proposer = make(MERGING, certain_of=(1, 1, 1, 1))
    proposer.collect(proposer.propose(1), [1.0], most_free=5)
    fresh = proposer.propose(1)
    proposer.collect(fresh, [0.1], most_free=0)
    _, rewards = proposer.collect(fresh, [0.1], most_free=5)
    assert rewards.tolist() == [0.1]


def test_best_is_sorted_and_keeps_the_earlier_of_equals():
    proposer = make(MERGING)
    told = [MERGING.architecture(genes) for genes in ((1, 0, 0, 0), (2, 0, 0, 0), (2, 2, 0, 0), (1, 2, 0, 0))]
    proposer.collect(told, [0.3, 0.9, 0.3, 0.1], most_free=0)
    assert proposer.best(3) == [told[1], told[0], told[2]]


def test_a_replay_holds_the_best_and_others_each_at_most_once():
    proposer = make(MERGING)
    scores = np.random.default_rng(0).permutation(40).astype(float)
    for count in (0, 3, 8, 40, 100):
        chosen = proposer.replay(scores, count)
        assert len(set(chosen.tolist())) == len(chosen) == min(count, 40)
        best = set(np.argsort(-scores)[: min(count, 40) // 4].tolist())
        assert best <= set(chosen.tolist())
    assert {int(proposer.replay(scores, 2)[0]) for _ in range(300)} == set(range(40))


def nine_architectures():
    """A space, a policy that prefers some of it, and that policy's log-probabilities."""
    space = BlockSpace(options=BlockSpaceOptions(blocks=2, widths=3))
    policy = make(space).policy
    policy.weights.logit_bias.copy_(torch.tensor([[0.3, 1.0, 0.0], [0.0, 0.4, 0.9]]))
    return space, policy, lambda genes: policy.evaluate(genes).log_probs.sum(axis=1)


def test_the_likeliest_of_several_draws_is_proposed():
    """Of many draws from a space of few architectures, the likeliest of all that are unseen is found each time."""
    space, policy, log_probs = nine_architectures()

    def order(of: int) -> list[tuple[int, ...]]:
        proposer = Proposer(space, policy, 0, [of], log_probs)
        return [architecture.genes for _ in range(9) for architecture in proposer.propose(1)]

    every = [architecture.genes for architecture in space]
    likeliest_first = [every[i] for i in np.argsort(-log_probs(np.array(every)))]
    assert order(9) == likeliest_first
    assert order(1) != likeliest_first
    assert sorted(order(1)) == sorted(every)


def test_numbers_of_draws_take_turns_within_a_batch():
    """With 9 and 1 in turn, the second of two proposals is whatever was drawn first, and often not the likeliest."""
    space = BlockSpace(options=BlockSpaceOptions(blocks=2, widths=3))
    policy = make(space).policy

    def log_probs(genes: IntArray) -> FloatArray:
        return -(genes @ np.array([3.0, 1.0]))

    every = sorted((architecture.genes for architecture in space), key=lambda genes: 3 * genes[0] + genes[1])
    seconds = set()
    for seed in range(20):
        first, second = Proposer(space, policy, seed, [9, 1], log_probs).propose(2)
        assert first.genes == every[0]
        seconds.add(second.genes)
    assert len(seconds) > 2


def test_numbers_of_draws_take_turns():
    """1 draw, then as many as there are architectures: every second proposal is the likeliest of what is left."""
    space, policy, log_probs = nine_architectures()
    left = [architecture.genes for architecture in space]
    proposer = Proposer(space, policy, 3, [1, 9], log_probs)
    any_other = False
    for step in range(9):
        [proposed] = proposer.propose(1)
        likeliest = left[int(log_probs(np.array(left)).argmax())]
        assert step % 2 == 0 or proposed.genes == likeliest
        any_other |= proposed.genes != likeliest
        left.remove(proposed.genes)
        proposer.collect([proposed], [0.0], most_free=0)
    assert any_other
