"""ppo-model with zero-cost proxies: the contract, the warm start, what is paid for, and what a true proxy is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import nas_engine as ne
from nas_engine.controllers.ppo_model import PPOModelController, PPOModelOptions
from nas_engine.data.loading import load_dataset
from nas_engine.errors import ConfigError
from nas_engine.proxies.base import ProxyScores
from nas_engine.proxies.scoring import NetworkProxies
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.surrogates import ensemble
from nas_engine.surrogates.ensemble import RewardModel
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.testing.controller_contract import ControllerContract, MakeController
from nas_engine.types import Architecture


class Written:
    """Proxies that are known functions of the genes; remembers what was asked for."""

    names = ("sum", "gaps")

    def __init__(self) -> None:
        self.seconds, self.asked = 0.0, []

    def __call__(self, architectures: Sequence[Architecture]) -> np.ndarray:
        self.asked += architectures
        self.seconds += len(architectures)
        gaps = [np.nan if sum(a.genes) % 3 else float(a.genes[0]) for a in architectures]
        return np.stack([np.array([float(sum(a.genes)) for a in architectures]), np.array(gaps)], axis=1)


OPTIONS = PPOModelOptions(proxies=Written.names, proxy_pool=30, proxy_candidates=5)


class TestContract(ControllerContract):
    @pytest.fixture
    def make_controller(self) -> MakeController:
        return lambda space, seed: PPOModelController(space, OPTIONS, seed, Written())


def test_starts_with_the_best_of_a_random_pool(space: BlockSpace) -> None:
    proxies = Written()
    controller = PPOModelController(space, OPTIONS, seed=1, proxies=proxies)
    first = controller.propose(3)  # none is evaluated yet
    pool = list(proxies.asked)
    assert 20 < len(pool) <= 30
    assert len(set(pool)) == len(pool)
    # The sum is one of two proxies, and the other says nothing of most.
    sums = sorted((sum(a.genes) for a in pool), reverse=True)
    assert min(sum(a.genes) for a in first) >= sums[len(pool) // 4]


def test_pays_for_each_architecture_once_and_for_all_it_evaluates(space: BlockSpace) -> None:
    """Beyond the pool: a few candidates a proposal, and whatever is told from outside."""
    proxies = Written()
    controller = PPOModelController(space, OPTIONS, seed=1, proxies=proxies)
    told = [Architecture(space.name, genes) for genes in ((0, 0, 0, 0), (0, 0, 0, 1))]
    controller.update(told, [0.1, 0.2])
    evaluated = list(told)
    for _ in range(10):
        proposed = controller.propose(1)
        before = len(proxies.asked)
        controller.update(proposed, [float(proposed[0].genes[0])])
        evaluated += proposed
        assert len(proxies.asked) == before
    controller.propose(1)
    assert len(set(proxies.asked)) == len(proxies.asked) <= 30 + 2 + 10 * (5 + 1)
    assert set(evaluated) <= set(proxies.asked)


def test_what_is_proposed_has_been_looked_at(space: BlockSpace) -> None:
    proxies = Written()
    controller = PPOModelController(space, OPTIONS, seed=2, proxies=proxies)
    for _ in range(12):
        [proposed] = controller.propose(1)
        assert proposed in proxies.asked
        controller.update([proposed], [float(sum(proposed.genes))])


def test_what_is_expected_goes_by_all_proxies_computed(space: BlockSpace) -> None:
    """Computing some changes what is expected of all others: no prediction from before may be left."""
    controller = PPOModelController(space, OPTIONS, seed=2, proxies=Written())
    for number in range(12):
        [proposed] = controller.propose(1)
        if number >= OPTIONS.random_first:
            assert controller._proxies is not None
            [mean], _ = controller._model.predict(
                space.genes([proposed]), controller._proxies.normal_scores([proposed])
            )
            assert controller._expected[proposed] == pytest.approx(mean, abs=1e-9)
        controller.update([proposed], [float(sum(proposed.genes))])


def test_a_resumed_search_pays_for_nothing_twice(space: BlockSpace) -> None:
    """A fresh controller that takes over asks for what the first one would have asked for next, and nothing else."""
    one, other = Written(), Written()
    controller = PPOModelController(space, OPTIONS, seed=3, proxies=one)
    for number in range(8):
        proposed = controller.propose(1)
        controller.update(proposed, [float(number % 3)])
    resumed = PPOModelController(space, OPTIONS, seed=4, proxies=other)
    resumed.load_state_dict(controller.state_dict())
    paid = len(one.asked)
    for number in range(6):
        proposed = controller.propose(1)
        assert resumed.propose(1) == proposed
        assert controller.update(proposed, [float(number)]) == resumed.update(proposed, [float(number)])
    assert other.asked == one.asked[paid:]


def evaluations_to_best(cells: SearchSpace, rewards: dict[Architecture, float], seed: int, source: Any) -> int:
    goal = sorted(rewards.values())[-len(rewards) // 500]
    options = PPOModelOptions(proxies=() if source is None else source.names)
    controller = PPOModelController(cells, options, seed, source)
    for number in range(1, 81):
        [proposed] = controller.propose(1)
        if rewards[proposed] >= goal:
            return number
        controller.update([proposed], [rewards[proposed]])
    return 81


def test_a_proxy_that_tells_much_of_the_truth_saves_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward of random interactions, of which a proxy tells much, is found with fewer evaluations than without it.

    And with fewer than where the proxy chooses the first architecture, but the model does not see it.
    """
    cells = NASBench201Space(ne.types.ImageShape(3, 32, 32, 10))
    rng = np.random.default_rng(5)
    single, pair = rng.standard_normal((6, 5)), 0.7 * rng.standard_normal((6, 6, 5, 5))
    rewards = {}
    for cell in dict.fromkeys(map(cells.canonical, cells)):
        genes = cell.genes
        total = sum(single[i, g] for i, g in enumerate(genes))
        rewards[cell] = float(total + sum(pair[i, j, genes[i], genes[j]] for i in range(6) for j in range(i)))

    class Truthful:
        names, seconds = ("truthful",), 0.0

        def __call__(self, architectures: Sequence[Architecture]) -> np.ndarray:
            noise = [2 * np.random.default_rng(list(a.genes)).normal() for a in architectures]
            return (np.array([rewards[a] for a in architectures]) + noise)[:, None]

    with_proxy = [evaluations_to_best(cells, rewards, seed, Truthful()) for seed in range(8)]
    without = [evaluations_to_best(cells, rewards, seed, None) for seed in range(8)]
    monkeypatch.setattr(ensemble, "_PROXIES_SLOPE", 0.0)
    monkeypatch.setattr(ensemble, "_PROXIES_WEIGHT", 1e-9)
    hidden = [evaluations_to_best(cells, rewards, seed, Truthful()) for seed in range(8)]
    assert np.mean(with_proxy) < 0.7 * np.mean(without), (with_proxy, without)
    assert np.mean(with_proxy) < 0.7 * np.mean(hidden), (with_proxy, hidden)


@pytest.mark.parametrize(("named", "handed"), [(("sum",), Written), (("sum", "gaps"), lambda: None), ((), Written)])
def test_proxies_must_be_those_that_the_options_name(space: BlockSpace, named: tuple[str, ...], handed: Any) -> None:
    with pytest.raises(ConfigError, match=r"controller\.proxies are "):
        PPOModelController(space, PPOModelOptions(proxies=named), 0, handed())


def test_proxies_are_trusted_until_the_data_say_otherwise() -> None:
    """Of architectures that differ in nothing else: one score, then scores that follow the proxy, or contradict it."""
    space = BlockSpace(options=BlockSpaceOptions(blocks=2, widths=5))
    genes = space.genes(list(space))
    standing = np.random.default_rng(0).standard_normal((len(genes), 1))

    def rise(count: int, sign: float) -> float:
        model = RewardModel(space)
        model.fit(genes[:count], sign * standing[:count, 0], standing[:count])
        low, high = model.predict(genes[20:21].repeat(2, 0), np.array([[-1.0], [1.0]]))[0]
        return float(high - low)

    assert rise(1, 0.0) > 1.0
    assert rise(20, 1.0) > 1.5
    assert rise(20, -1.0) < -0.5


def test_a_proxy_beyond_the_data_leaves_the_model_less_certain() -> None:
    """A predicted variance counts what proxies vary by: far from the data it grows with the square of their value."""
    space = BlockSpace(options=BlockSpaceOptions(blocks=2, widths=5))
    genes = space.genes(list(space))
    model = RewardModel(space)
    model.fit(genes[:3], np.array([0.1, -0.1, 0.0]), np.zeros((3, 1)))
    _, (near, far, farther) = model.predict(genes[12:13].repeat(3, 0), np.array([[0.0], [3.0], [6.0]]))
    assert far > near + 0.2
    assert (farther**2 - near**2) / (far**2 - near**2) == pytest.approx(4, rel=1e-6)


def test_with_proxies_the_model_is_asked_at_once_and_explores_less() -> None:
    """Unless the options say otherwise; both are in what is written down of a run."""
    assert (PPOModelOptions().random_first, PPOModelOptions().optimism) == (3, [1.0, 2.0, 4.0])
    options = PPOModelOptions(proxies=("naswot",))
    assert (options.random_first, options.optimism) == (1, [1.0, 2.0])
    chosen = PPOModelOptions(proxies=("naswot",), random_first=4, optimism=[3.0])
    assert (chosen.random_first, chosen.optimism) == (4, [3.0])
    assert PPOModelOptions.model_validate(options.model_dump()) == options
    assert PPOModelOptions.model_validate(chosen.model_dump()) == chosen


def test_each_proposal_looks_at_architectures_not_looked_at_before() -> None:
    cells, proxies = NASBench201Space(ne.types.ImageShape(3, 32, 32, 10)), Written()
    controller = PPOModelController(cells, OPTIONS, seed=1, proxies=proxies)
    [proposed] = controller.propose(1)
    for _ in range(5):
        controller.update([proposed], [float(sum(proposed.genes))])
        before = len(proxies.asked)
        [proposed] = controller.propose(1)
        assert len(proxies.asked) == before + OPTIONS.proxy_candidates
        assert len(set(proxies.asked)) == len(proxies.asked)


def test_what_was_told_before_is_compared_with_a_random_pool(space: BlockSpace) -> None:
    """Evaluations from elsewhere come first: the pool is the same as without them."""
    told, untold = Written(), Written()
    controller, other = (PPOModelController(space, OPTIONS, seed=1, proxies=proxies) for proxies in (told, untold))
    controller.update([Architecture(space.name, (0, 0, 0, 0))], [0.1])
    controller.propose(1)
    other.propose(1)
    assert controller._proxies is not None
    assert 20 < controller._proxies.reference_size == len(untold.asked) < len(told.asked)
    assert told.asked[: len(untold.asked)] == untold.asked


def test_networks_of_a_real_space() -> None:
    """End to end without a table: cells are built, proxies computed on digits, and learned from."""
    digits = load_dataset("digits")
    cells = NASBench201Space(digits.shape, NASBench201Options(channels=2))
    source: ProxyScores = NetworkProxies(cells, digits, ("naswot", "synflow"))
    options = PPOModelOptions(proxies=("naswot", "synflow"), proxy_pool=10, proxy_candidates=2)
    controller = PPOModelController(cells, options, 0, source)
    for _ in range(6):
        proposed = controller.propose(1)
        controller.update(proposed, [float(sum(proposed[0].genes))])
    assert source.seconds > 0
