"""PPO with a reward model keeps the contract on all kinds of spaces, learns, and needs few evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from nas_engine.controllers.ppo import PPOController, PPOOptions
from nas_engine.controllers.ppo_model import PPOModelController, PPOModelOptions
from nas_engine.scores import log_rank_scores
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Space
from nas_engine.spaces.seen import SeenArchitectures
from nas_engine.spaces.table import TableSpace
from nas_engine.surrogates.ensemble import RewardModel
from nas_engine.tables.description import load_description
from nas_engine.tables.table import load_table
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.testing.controller_contract import ControllerContract, MakeController
from nas_engine.types import Architecture, ImageShape

SHAPE = ImageShape(3, 32, 32, 10)

Rewards = Callable[[Architecture], float]


class TestContractOnCells(ControllerContract):
    @pytest.fixture
    def make_controller(self) -> MakeController:
        # Fewer candidates than by default: how many are considered is nothing to the promises.
        options = PPOModelOptions(imagined=16, climbs=1)
        return lambda space, seed: PPOModelController(space, options, seed)

    @pytest.fixture
    def space(self) -> SearchSpace:
        return NASBench201Space(SHAPE)


class TestContractOnATable(TestContractOnCells):
    @pytest.fixture
    def space(self, incomplete_table: Callable[..., TableSpace], tmp_path: Path) -> SearchSpace:
        return incomplete_table(tmp_path / "space.npz", rows=700, decisions=5, choices=4)

    @pytest.fixture
    def tiny_space(self, incomplete_table: Callable[..., TableSpace], tmp_path: Path) -> SearchSpace:
        return incomplete_table(tmp_path / "tiny.npz", rows=14, decisions=3, choices=3)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="defaults"),
        pytest.param({"model_size": 3, "climbs": 0, "every": 1, "rounds": 2}, id="small model"),
        pytest.param({"acquisition": "ei"}, id="expected improvement"),
        pytest.param({"acquisition": "ei_per_second"}, id="expected improvement per second"),
    ],
)
def test_a_space_too_large_to_list(options: dict[str, Any]) -> None:
    """Proposals are valid, canonical and new; a state saved while eight wait continues exactly, penalties or not."""
    space = MobileNetSpace(SHAPE)
    controller, resumed = (PPOModelController(space, PPOModelOptions(**options), seed) for seed in (0, 1))
    first = controller.propose(6)
    controller.learn_seconds(first, [0.2, 5.0, 0.0, math.inf, math.nan, 80.0])
    controller.update(first, [0.3, 1.7e308, -1e9, -1e9, 0.3, 0.4])
    waiting = [*controller.propose(3), *controller.propose(5)]
    resumed.load_state_dict(controller.state_dict())
    seen = [*first, *waiting]
    for reward in ([0.5] * 8, [0.1, -1e9, 0.2, 0.3]):
        assert controller.update(waiting, reward) == resumed.update(waiting, reward)
        waiting = controller.propose(4)
        assert resumed.propose(4) == waiting
        seen += waiting
    assert [space.canonical(space.architecture(a.genes)) for a in seen] == seen
    assert len(set(seen)) == len(seen) == 22


@pytest.mark.parametrize(("every", "learned"), [(1, 10), (3, 3), (4, 2)])
def test_a_fresh_controller_may_take_over_at_any_moment(space: BlockSpace, every: int, learned: int) -> None:
    """When the policy learns next is part of the state, and so is what it last reported."""
    options = PPOModelOptions(every=every, random_first=2)

    def search(take_over: bool) -> list[Any]:
        controller, history = PPOModelController(space, options, seed=0), []
        for number in range(24):
            if take_over:
                fresh = PPOModelController(space, options, seed=number)
                fresh.load_state_dict(controller.state_dict())
                controller = fresh
            if number % 2 == 0:
                [proposed] = controller.propose(1)
            else:
                history.append((proposed, controller.update([proposed], [float(np.dot(proposed.genes, range(4)))])))
        return history

    whole = search(take_over=False)
    assert search(take_over=True) == whole
    # Twelve evaluations, of which the first two are random: the policy learned before the others, every so many.
    entropies = {diagnostics["entropy"] for _, diagnostics in whole if "entropy" in diagnostics}
    assert len(entropies) == learned


def evaluations_to(make: Callable[[], Any], reward: Rewards, goal: float, most: int) -> int:
    """Number of the evaluation that reaches `goal`; `most` where none of so many does."""
    controller = make()
    for number in range(1, most + 1):
        [proposed] = controller.propose(1)
        if (found := reward(proposed)) >= goal:
            return number
        controller.update([proposed], [found])
    return most


def test_finds_the_optimum_in_a_fraction_of_what_chance_needs(space: BlockSpace, target: tuple[int, ...]) -> None:
    """Of 256 architectures, drawn without repetition, chance needs 128 on average."""

    def reward(architecture: Architecture) -> float:
        return -float(sum(abs(a - b) for a, b in zip(architecture.genes, target, strict=True)))

    needed = [evaluations_to(lambda s=seed: PPOModelController(space, seed=s), reward, 0.0, 256) for seed in range(6)]
    assert np.mean(needed) < 40, needed


def rugged(cells: NASBench201Space) -> Rewards:
    """A reward of cells with interactions: edges like certain operations, pairs of edges certain pairs."""
    rng = np.random.default_rng(5)
    single, pair = rng.standard_normal((6, 5)), 0.5 * rng.standard_normal((6, 6, 5, 5))

    def reward(cell: Architecture) -> float:
        genes = cells.canonical(cell).genes
        total = sum(single[i, g] for i, g in enumerate(genes))
        return float(total + sum(pair[i, j, genes[i], genes[j]] for i in range(6) for j in range(i)))

    return reward


def test_finds_the_best_of_cells_where_chance_hardly_ever_does() -> None:
    """One of the best 0.2 % of cells: chance needs about 500 evaluations."""
    cells = NASBench201Space(SHAPE)
    reward = rugged(cells)
    everything = sorted((reward(cell) for cell in {cells.canonical(cell) for cell in cells}), reverse=True)
    goal = everything[len(everything) // 500]
    needed = [evaluations_to(lambda s=seed: PPOModelController(cells, seed=s), reward, goal, 250) for seed in range(4)]
    assert np.mean(needed) < 125, needed


@pytest.mark.parametrize("seed", range(5))
def test_finds_the_optimum_of_the_published_table(data_folder: Path, seed: int) -> None:
    """The highest validation accuracy of NAS-Bench-201 after 12 epochs on CIFAR-10, one of 15,625."""
    table = TableSpace(load_table(load_description("nasbench201", file=data_folder / "nasbench201_accuracy.csv.gz")))
    optimum = table.table.rewards.max()

    def reward(cell: Architecture) -> float:
        return float(table.table.rewards[table.row_of(cell.genes)])

    assert evaluations_to(lambda: PPOModelController(table, seed=seed), reward, optimum, 201) <= 200


def test_the_policy_learns_what_the_model_expects(space: BlockSpace, target: tuple[int, ...]) -> None:
    """The policy is no bystander: after forty evaluations it draws better architectures than at first."""

    def reward(genes: Sequence[int]) -> float:
        return -float(sum(abs(a - b) for a, b in zip(genes, target, strict=True)))

    def mean_of_draws(controller: PPOModelController) -> float:
        genes = controller.policy.sample(300, torch.Generator().manual_seed(0)).tolist()
        return float(np.mean([reward(row) for row in genes]))

    controller = PPOModelController(space, seed=2)
    before = mean_of_draws(controller)
    for _ in range(40):
        [proposed] = controller.propose(1)
        controller.update([proposed], [reward(proposed.genes)])
    assert mean_of_draws(controller) > before + 1.0


@pytest.mark.parametrize("acquisition", ["ucb", "ei"])
@pytest.mark.parametrize("seed", range(3))
def test_the_proposal_is_the_best_of_what_was_considered(acquisition: Any, seed: int) -> None:
    """With climbs over the whole space, it is the unseen architecture of the highest bound or expected improvement."""
    space = BlockSpace(options=BlockSpaceOptions(blocks=2, widths=5))
    options = PPOModelOptions(random_first=4, climbs=25, optimism=[2.0], acquisition=acquisition)
    controller = PPOModelController(space, options, seed)
    told = controller.propose(4)
    rewards = [float(np.sin(np.dot(architecture.genes, (1.0, 2.0)))) for architecture in told]
    controller.update(told, rewards)
    proposed = controller.propose(6)

    model, unseen = RewardModel(space), [a for a in space if a not in told]
    data, scores = list(told), log_rank_scores(np.array(rewards))
    for architecture in proposed:
        model.fit(space.genes(data), scores)
        mean, deviation = model.predict(space.genes(unseen))
        gain = mean - log_rank_scores(np.array(rewards)).max()
        improvement = gain * norm.cdf(gain / deviation) + deviation * norm.pdf(gain / deviation)
        best = int(np.argmax(mean + 2.0 * deviation if acquisition == "ucb" else improvement))
        assert architecture == unseen[best]
        # The one that waits counts as if its reward were the expected one.
        data, scores = [*data, unseen.pop(best)], np.append(scores, mean[best])


def test_model_error_is_that_of_the_architectures_just_told() -> None:
    space = BlockSpace(options=BlockSpaceOptions(blocks=2, widths=4))
    controller = PPOModelController(space, PPOModelOptions(random_first=5), seed=4)
    told = controller.propose(5)
    rewards = [0.3, 0.1, 0.7, 0.2, 0.5]
    assert "model_error" not in controller.update(told, rewards)
    waiting = controller.propose(1)
    model = RewardModel(space)
    model.fit(space.genes(told), log_rank_scores(np.array(rewards)))
    expected = model.predict(space.genes(waiting))[0][0]
    diagnostics = controller.update(waiting, [0.6])
    actual = log_rank_scores(np.array([*rewards, 0.6]))[-1]
    assert diagnostics["model_error"] == pytest.approx(abs(expected - actual))
    # A second update with the same architecture has nothing that was expected.
    assert "model_error" not in controller.update(waiting, [0.6])


def test_the_model_gets_better(space: BlockSpace, target: tuple[int, ...]) -> None:
    controller, errors = PPOModelController(space, seed=5), []
    for _ in range(60):
        proposed = controller.propose(2)
        rewards = [-float(sum(abs(a - b) for a, b in zip(p.genes, target, strict=True))) for p in proposed]
        errors.append(controller.update(proposed, rewards).get("model_error", np.nan))
    assert np.nanmean(errors[-20:]) < 0.5 * np.nanmean(errors[:10])


def test_reports_the_diagnostics_of_ppo_and_of_the_model(space: BlockSpace) -> None:
    controller = PPOModelController(space, PPOModelOptions(random_first=2, every=2))
    proposed = controller.propose(2)
    assert controller.update(proposed, [0.1, 0.2]) == {}
    proposed = controller.propose(1)
    diagnostics = controller.update(proposed, [0.3])
    ppo = PPOController(space)
    told = ppo.propose(4)
    assert set(diagnostics) == {*ppo.update(told, [0.1, 0.2, 0.3, 0.4]), "model_error"}
    assert controller.update([], []) == controller._learned


def test_what_the_model_forgets_is_neither_good_nor_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30 evaluations a model of at most ten is fitted to the five best and the five latest."""
    fitted: list[list[tuple[int, ...]]] = []
    original = RewardModel.fit

    def spy(self: RewardModel, genes: Any, scores: Any, *more: Any) -> None:
        fitted.append([tuple(row) for row in genes.tolist()])
        original(self, genes, scores, *more)

    monkeypatch.setattr(RewardModel, "fit", spy)
    space = BlockSpace()
    told = SeenArchitectures(space)
    architectures = [told.draw(np.random.default_rng(seed)) for seed in range(30)]
    rewards = [float(-abs(number - 8)) for number in range(30)]  # the best are in the first half
    controller = PPOModelController(space, PPOModelOptions(model_size=10))
    controller.update(architectures, rewards)
    controller.propose(1)
    assert fitted[0] == [architectures[number].genes for number in (6, 7, 8, 9, 10, 25, 26, 27, 28, 29)]


def test_a_policy_learns_from_scores_of_others(space: BlockSpace, target: tuple[int, ...]) -> None:
    """`PPOController.learn` needs no rewards in memory: scores of samples are enough."""
    controller = PPOController(space, PPOOptions(learning_rate=0.015))
    generator = torch.Generator().manual_seed(0)
    goal = np.array([target])
    before = controller.policy.evaluate(goal).log_probs.sum()
    for _ in range(15):
        genes = controller.policy.sample(48, generator)
        controller.learn(genes, (genes == goal).mean(axis=1) - 0.5)
    assert controller.policy.evaluate(goal).log_probs.sum() > before + 2.0
    assert controller.proposer.seen.rewards == {}


def test_reports_how_much_of_what_it_imagines_is_known(space):
    """Once most of a small space is evaluated, most of what the policy imagines must be known."""
    controller = PPOModelController(space, PPOModelOptions(every=1), seed=0)
    shares = []
    for _ in range(24):
        proposed = controller.propose(8)
        diagnostics = controller.update(proposed, [float(sum(a.genes)) for a in proposed])
        shares.append(diagnostics.get("repeated_proposals", 0.0))
    assert shares[1] < 0.5 < shares[-1]


def test_per_second_prefers_what_is_quick_among_what_promises_as_much() -> None:
    """Rewards say nothing of the first decision, seconds depend on nothing else: what is proposed is quick."""
    space = BlockSpace(options=BlockSpaceOptions(blocks=4, widths=5))

    def slow_genes(acquisition: Any, seed: int) -> list[int]:
        options = PPOModelOptions(random_first=15, acquisition=acquisition)
        controller = PPOModelController(space, options, seed)
        proposed: list[Architecture] = []
        for count in (15, *[1] * 15):
            told = controller.propose(count)
            controller.learn_seconds(told, [10.0 ** architecture.genes[0] for architecture in told])
            controller.update(told, [float(sum(architecture.genes[1:])) for architecture in told])
            proposed += told
        return [architecture.genes[0] for architecture in proposed[15:]]

    per_second, plain = (
        np.mean([slow_genes(acquisition, seed) for seed in range(4)]) for acquisition in ("ei_per_second", "ei")
    )
    assert per_second < 0.6 * plain
