"""What an update learns from: each sample stands beside its own reward, replayed ones too."""

from __future__ import annotations

import pytest

from nas_engine.controllers.learner import Learner
from nas_engine.controllers.options import PPOOptions
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.types import Architecture

MERGING = BlockSpace(options=BlockSpaceOptions(blocks=4, widths=4, merge_skips=True))


@pytest.mark.parametrize(("replay", "again"), [(0, 0), (5, 5), (1_000, 20)])
def test_samples_stand_beside_their_rewards(replay: int, again: int) -> None:
    learner = Learner(MERGING, PPOOptions(replay=replay, advantages="raw"), seed=0)
    known: dict[Architecture, float] = {}
    for step in range(2):
        proposed = learner.proposer.propose(10)
        known |= {architecture: step + 0.01 * number for number, architecture in enumerate(proposed)}
        genes, scores = learner.collect(proposed, [known[architecture] for architecture in proposed])
    samples = [MERGING.canonical(Architecture("blocks", tuple(row))) for row in genes.tolist()]
    assert scores.tolist() == [known[sample] for sample in samples]
    # The batch, what of it was drawn under another name, and then the replayed.
    assert set(samples[: len(samples) - again]) == set(proposed)
    assert len(set(samples[len(samples) - again :])) == again
