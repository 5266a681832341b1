"""What an update learns from: each sample beside its own reward, and what is known, whoever chose it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas_engine.controllers.learner import Learner
from nas_engine.controllers.options import PPOOptions, ReinforceOptions
from nas_engine.controllers.ppo import PPOController
from nas_engine.controllers.reinforce import ReinforceController
from nas_engine.scores import log_rank_scores
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.types import Architecture

MERGING = BlockSpace(options=BlockSpaceOptions(blocks=4, widths=4, merge_skips=True))
PLAIN = BlockSpace(options=BlockSpaceOptions(blocks=4, widths=4))
SMALL = {"hidden_size": 16, "embedding_size": 8}
BOTH = [(PPOController, PPOOptions), (ReinforceController, ReinforceOptions)]


def test_samples_stand_beside_their_rewards() -> None:
    learner = Learner(MERGING, PPOOptions(advantages="raw"), seed=0)
    known: dict[Architecture, float] = {}
    for step in range(2):
        proposed = learner.proposer.propose(10)
        known |= {architecture: step + 0.01 * number for number, architecture in enumerate(proposed)}
        genes, scores = learner.collect(proposed, [known[architecture] for architecture in proposed])
    samples = [MERGING.canonical(Architecture("blocks", tuple(row))) for row in genes.tolist()]
    assert scores.tolist() == [known[sample] for sample in samples]
    assert set(samples) == set(proposed)


@pytest.mark.parametrize(("controller", "options"), BOTH)
def test_a_replay_teaches_what_others_have_found(controller, options) -> None:
    """Architectures that the policy would not have drawn: path consistency learns from them all the same."""
    rng = np.random.default_rng(0)
    told = list({PLAIN.sample(rng) for _ in range(60)})
    rewards = [float(sum(architecture.genes)) for architecture in told]
    learner = controller(PLAIN, options(replay=48, entropy_floor=0, learning_rate=0.01, **SMALL), 0)
    before = float(np.mean([sum(row) for row in drawn(learner)]))
    for _ in range(20):
        learner.update(told[:1], rewards[:1])  # one known sample a step; the rest only through the replay
        learner.update(told, rewards)
    after = float(np.mean([sum(row) for row in drawn(learner)]))
    assert after > before + 2, (before, after)


def drawn(controller) -> list[list[int]]:
    return controller.policy.sample(400, torch.Generator().manual_seed(0)).tolist()


def test_a_replay_ends_at_probabilities_that_the_scores_ask_for() -> None:
    """With every architecture known, log-probabilities become the scores times the scale, up to a constant."""
    space = BlockSpace(options=BlockSpaceOptions(blocks=2, widths=3))
    every = list(space)
    rewards = [float(3 * a.genes[0] + a.genes[1] * a.genes[0]) for a in every]
    options = PPOOptions(
        replay=100, replay_scale=1.5, self_imitation_weight=0, entropy_floor=0, learning_rate=0.01, epochs=1, **SMALL
    )
    learner = Learner(space, options, seed=0)
    genes, _ = learner.collect(every, rewards)
    for _ in range(150):
        learner.begin(genes)
        learner.rehearse()
    log_probs = learner.policy.evaluate(space.genes(every)).log_probs.sum(axis=1)
    expected = 1.5 * log_rank_scores(np.array(rewards))
    np.testing.assert_allclose(log_probs - log_probs.mean(), expected - expected.mean(), atol=0.15)


@pytest.mark.parametrize(("controller", "options"), BOTH)
def test_a_replay_is_reproduced_after_a_resume(controller, options) -> None:
    settings = options(replay=12, likeliest_of=[4, 1], patience=5, self_imitation_size=1, **SMALL)
    whole, resumed = controller(PLAIN, settings, 0), controller(PLAIN, settings, 1)
    for _ in range(15):
        whole.update(proposed := whole.propose(1), [float(proposed[0].genes[0])])
    resumed.load_state_dict(whole.state_dict())
    for _ in range(6):
        proposed = whole.propose(1)
        assert resumed.propose(1) == proposed
        rewards = [float(proposed[0].genes[0])]
        assert resumed.update(proposed, rewards) == whole.update(proposed, rewards)
