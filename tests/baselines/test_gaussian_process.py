from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from nas_engine.baselines.gaussian_process import GaussianProcessController
from nas_engine.baselines.random import RandomController
from nas_engine.scores import log_rank_scores
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Space
from nas_engine.surrogates import candidates
from nas_engine.surrogates.ensemble import RewardModel
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.testing.controller_contract import ControllerContract
from nas_engine.types import ImageShape

SHAPE = ImageShape(3, 32, 32, 10)


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred random candidates in place of a thousand: the tests that call for many proposals are fast."""
    monkeypatch.setattr(candidates, "_DRAWN", 100)


@pytest.mark.usefixtures("few_candidates")
class TestContract(ControllerContract):
    @pytest.fixture
    def make_controller(self):
        return lambda space, seed: GaussianProcessController(space, seed=seed)


class TestContractOnATable(TestContract):
    @pytest.fixture
    def space(self, incomplete_table, tmp_path: Path):
        return incomplete_table(tmp_path / "space.npz", rows=700, decisions=5, choices=4)

    @pytest.fixture
    def tiny_space(self, incomplete_table, tmp_path: Path):
        return incomplete_table(tmp_path / "tiny.npz", rows=14, decisions=3, choices=3)


@pytest.mark.usefixtures("few_candidates")
@pytest.mark.parametrize("make", [NASBench201Space, MobileNetSpace])
def test_large_spaces(check_large_space, make):
    space = make(SHAPE)
    check_large_space(lambda seed: GaussianProcessController(space, seed=seed), space)


@pytest.mark.usefixtures("few_candidates")
def test_finds_good_architectures_of_a_separable_problem(regret):
    found = [regret(lambda space, seed: GaussianProcessController(space, seed=seed), s, 100) for s in range(3)]
    random = [regret(lambda space, seed: RandomController(space, seed=seed), s, 100) for s in range(3)]
    assert np.mean(found) < 0.5 * np.mean(random)


@pytest.mark.parametrize("seed", range(8))
def test_proposes_the_highest_expected_improvement(seed):
    """Of a space whose 64 architectures are all candidates, integrated numerically over the posterior."""
    space = BlockSpace(options=BlockSpaceOptions(blocks=3, widths=4))
    controller = GaussianProcessController(space, GaussianProcessController.Options(random_first=12), seed)
    told = controller.propose(12)
    rewards = [float(np.sin(2.0 + np.dot(architecture.genes, (1.0, 0.3, 2.0)))) for architecture in told]
    controller.update(told, rewards)
    [proposed] = controller.propose(1)

    scores = log_rank_scores(np.array(rewards))
    model = RewardModel(space, length_scales=(1.0,))
    model.fit(space.genes(told), scores)
    unseen = [architecture for architecture in space if architecture not in told]
    quantiles = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    improvements = [
        np.maximum(mean + deviation * quantiles - scores.max(), 0).mean()
        for mean, deviation in zip(*model.predict(space.genes(unseen)), strict=True)
    ]
    assert proposed == unseen[int(np.argmax(improvements))]
