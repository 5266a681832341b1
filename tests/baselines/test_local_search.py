from __future__ import annotations

import numpy as np
import pytest

from nas_engine.baselines.local_search import LocalSearchController
from nas_engine.baselines.random import RandomController
from nas_engine.testing.controller_contract import ControllerContract


class TestContract(ControllerContract):
    @pytest.fixture
    def make_controller(self):
        return lambda space, seed: LocalSearchController(space, LocalSearchController.Options(starts=4), seed)


class TestFullNeighbourhoodContract(ControllerContract):
    @pytest.fixture
    def make_controller(self):
        options = LocalSearchController.Options(starts=1, full_neighbourhood=True)
        return lambda space, seed: LocalSearchController(space, options, seed)


def rugged(architectures) -> list[float]:
    """A reward with many local optima: pseudo-random, but a function of the genes."""
    return [float(np.random.default_rng(a.genes).random()) for a in architectures]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("batch", [1, 10, 40])
def test_climbs_end_at_local_optima_only(blocks, full, batch):
    options = LocalSearchController.Options(starts=3, full_neighbourhood=full)
    controller = LocalSearchController(blocks, options, seed=batch)
    told: dict = {}
    known_before = 0
    for _ in range(-(-400 // batch)):
        proposed = controller.propose(batch)
        rewards = rugged(proposed)
        told.update(zip(proposed, rewards, strict=True))
        controller.update(proposed, rewards)
        for optimum in controller.optima[known_before:]:
            assert all(neighbour in told for neighbour in blocks.neighbours(optimum))
            assert max(told[neighbour] for neighbour in blocks.neighbours(optimum)) <= told[optimum]
        known_before = len(controller.optima)
    assert known_before >= 3


def test_a_climb_goes_up_and_stays_in_the_neighbourhood(blocks):
    controller = LocalSearchController(blocks, LocalSearchController.Options(starts=1), seed=3)
    told: dict = {}
    position = None
    for _ in range(60):
        proposed = controller.propose(1)
        told.update(zip(proposed, rugged(proposed), strict=True))
        if position is not None:
            assert proposed[0] in blocks.neighbours(position)
        before, optima = position, len(controller.optima)
        controller.update(proposed, rugged(proposed))
        position = controller.position
        if before is not None and position not in (before, None) and len(controller.optima) == optima:
            assert told[position] > told[before]


def test_full_neighbourhood_waits_for_all_and_takes_the_best(blocks):
    options = LocalSearchController.Options(starts=1, full_neighbourhood=True)
    controller = LocalSearchController(blocks, options)
    (start,) = controller.propose(1)
    controller.update([start], [0.0])
    neighbours = blocks.neighbours(start)
    first = controller.propose(len(neighbours) - 1)
    assert set(first) < set(neighbours)
    controller.update(first, [1.0 + index for index in range(len(first))])
    assert controller.position == start
    (last,) = controller.propose(1)
    assert {*first, last} == set(neighbours)
    controller.update([last], [0.5])
    assert controller.position == first[-1]


def test_without_full_neighbourhood_the_first_improvement_is_taken(blocks):
    controller = LocalSearchController(blocks, LocalSearchController.Options(starts=1))
    (start,) = controller.propose(1)
    controller.update([start], [0.0])
    worse, better = controller.propose(2)
    controller.update([worse], [-1.0])
    assert controller.position == start
    controller.update([better], [1.0])
    assert controller.position == better


def test_spare_proposals_start_the_next_climb(blocks):
    controller = LocalSearchController(blocks, LocalSearchController.Options(starts=5))
    starts = controller.propose(5)
    controller.update(starts, [0.0, 3.0, 1.0, 2.0, 0.0])
    assert controller.position == starts[1]
    neighbours = blocks.neighbours(starts[1])
    proposed = controller.propose(len(neighbours) + 5)
    assert set(neighbours) < set(proposed)
    spare = [architecture for architecture in proposed if architecture not in neighbours]
    told = controller.update(proposed, [2.5 if a == spare[2] else 2.0 if a in spare else 0.0 for a in proposed])
    assert controller.optima == [starts[1]]
    assert controller.position == spare[2]
    assert told == {"position_reward": 2.5, "local_optima": 1.0}


@pytest.mark.parametrize("options", [{}, {"starts": 1}, {"full_neighbourhood": True}], ids=str)
def test_finds_the_optimum_of_a_separable_problem(regret, options):
    made = LocalSearchController.Options(**options)
    # A separable problem has no local optimum but the global one, and a climb visits few neighbourhoods.
    assert max(regret(lambda space, seed: LocalSearchController(space, made, seed), s, 200) for s in range(10)) == 0
    assert np.mean([regret(lambda space, seed: RandomController(space, seed=seed), s, 200) for s in range(10)]) > 0.2
