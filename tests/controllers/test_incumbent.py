"""Proposals near the incumbent, and the random design that each start begins with."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from nas_engine.controllers.lstm import LSTMPolicy
from nas_engine.controllers.ppo import PPOController, PPOOptions
from nas_engine.controllers.reinforce import ReinforceController, ReinforceOptions
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions

BOTH = [(PPOController, PPOOptions), (ReinforceController, ReinforceOptions)]
LARGE = BlockSpace(options=BlockSpaceOptions(blocks=8, widths=5))
MASKED = BlockSpace(options=BlockSpaceOptions(blocks=3, widths=3, max_total_width=3))


def prefer(controller, gene: int) -> None:
    """Make the policy draw `gene` at nearly every decision."""
    controller.policy.weights.logit_bias[:, gene] += 4


def test_a_bonus_multiplies_the_odds_of_a_choice():
    torch.manual_seed(0)
    policy = LSTMPolicy(MASKED.diagram, embedding_size=8, hidden_size=16)
    bonus = np.zeros((3, 3), dtype=np.float32)
    bonus[:, 1] = math.log(4)
    n = 20_000
    drawn = policy.sample(n, torch.Generator().manual_seed(0), bonus).tolist()
    assert all(MASKED.diagram.contains(genes) for genes in drawn)
    plain = policy.evaluate(np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]]))
    odds = np.exp(plain.log_probs[:, 0]).tolist()
    odds[1] *= 4
    counts = Counter(genes[0] for genes in drawn)
    for gene, share in enumerate(odds):
        assert counts[gene] / n == pytest.approx(share / sum(odds), abs=0.02)


@pytest.mark.parametrize(("controller", "options"), BOTH)
def test_proposals_keep_most_choices_of_the_best_since_the_last_start(controller, options):
    best = LARGE.sample(np.random.default_rng(5))

    def agreement(bonus: float) -> float:
        learner = controller(LARGE, options(incumbent_bonus=bonus, learning_rate=1e-6), 0)
        others = [LARGE.sample(np.random.default_rng(seed)) for seed in (1, 2, 3)]
        learner.update([*others, best], [0.0, 0.1, 0.2, 1.0])
        proposed = np.array([a.genes for a in learner.propose(60)])
        return float((proposed == np.array(best.genes)).mean())

    assert agreement(0.0) < 0.35
    assert agreement(3.0) > 0.6


@pytest.mark.parametrize(("controller", "options"), BOTH)
def test_each_start_begins_with_a_random_design(controller, options):
    learner = controller(LARGE, options(initial_design=6, patience=8, learning_rate=1e-6), 0)
    prefer(learner, gene=3)
    shares = []
    for step in range(20):
        (proposed,) = learner.propose(1)
        if step == 14:  # 8 evaluations after the best: weights are fresh, and prefer nothing
            prefer(learner, gene=1)
        shares.append(float(np.mean(np.array(proposed.genes) == (3 if step < 14 else 1))))
        learner.update([proposed], [float(step == 5)])
    assert max(shares[:6]) < 1
    assert min(shares[6:14]) >= 0.5
    assert max(shares[14:20]) < 1, "random again"


@pytest.mark.parametrize(("controller", "options"), BOTH)
def test_a_batch_holds_what_is_left_of_the_design(controller, options):
    learner = controller(LARGE, options(initial_design=6), 0)
    prefer(learner, gene=3)
    proposed = learner.propose(4) + learner.propose(4)
    assert len(set(proposed)) == 8
    near = [np.mean(np.array(a.genes) == 3) >= 0.5 for a in proposed]
    assert sum(near[:6]) < 3
    assert all(near[6:])


@pytest.mark.parametrize(("controller", "options"), BOTH)
def test_a_resumed_controller_proposes_the_same(controller, options):
    settings = options(incumbent_bonus=2, initial_design=3, patience=4, likeliest_of=[4], replay=8)
    whole, resumed = controller(LARGE, settings, 0), controller(LARGE, settings, 1)
    for _ in range(10):
        whole.update(proposed := whole.propose(1), [float(sum(proposed[0].genes) % 7)])
    resumed.load_state_dict(whole.state_dict())
    for _ in range(12):
        proposed = whole.propose(1)
        assert resumed.propose(1) == proposed
        rewards = [float(sum(proposed[0].genes) % 7)]
        assert resumed.update(proposed, rewards) == whole.update(proposed, rewards)
