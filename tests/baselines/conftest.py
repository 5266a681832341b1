"""A separable problem with a known optimum, on which every method is compared with random search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nas_engine.controllers.base import Controller
from nas_engine.spaces.base import SearchSpace
from nas_engine.testing.block_space import BlockSpace
from nas_engine.types import Architecture

Rewards = Callable[[Sequence[Architecture]], list[float]]
Regret = Callable[[Callable[[SearchSpace, int], Controller], int, int], float]


@pytest.fixture
def blocks() -> BlockSpace:
    """15,625 architectures, each its own canonical form."""
    return BlockSpace()


@pytest.fixture
def separable(blocks: BlockSpace) -> Callable[[int], tuple[Rewards, float]]:
    """For a seed: rewards that are sums of one uniform random term a gene, and the highest of all rewards."""

    def problem(seed: int) -> tuple[Rewards, float]:
        terms = np.random.default_rng(1000 + seed).random((len(blocks.decisions), blocks.options.widths))
        decisions = np.arange(len(terms))

        def rewards(architectures: Sequence[Architecture]) -> list[float]:
            return [float(terms[decisions, list(a.genes)].sum()) for a in architectures]

        return rewards, float(terms.max(axis=1).sum())

    return problem


@pytest.fixture
def regret(blocks: BlockSpace, separable: Callable[[int], tuple[Rewards, float]]) -> Regret:
    """How far the best of `evaluations` proposals, ten a step, stays below the optimum of problem `seed`."""

    def measure(make: Callable[[SearchSpace, int], Controller], seed: int, evaluations: int) -> float:
        rewards, optimum = separable(seed)
        controller, best = make(blocks, seed), -np.inf
        for _ in range(evaluations // 10):
            proposed = controller.propose(10)
            told = rewards(proposed)
            controller.update(proposed, told)
            best = max(best, *told)
        return optimum - best

    return measure


@pytest.fixture
def check_large_space() -> Callable[[Callable[[int], Controller], SearchSpace], None]:
    """Proposals of a large space: canonical, each once, and the same from a state saved midway."""

    def check(make: Callable[[int], Controller], space: SearchSpace) -> None:
        controller, resumed, seen = make(0), make(1), []
        for count in (12, 1, 4):
            proposed = controller.propose(count)
            assert [space.canonical(space.architecture(a.genes)) for a in proposed] == proposed
            seen += proposed
            if count == 1:
                resumed.load_state_dict(controller.state_dict())
                resumed.update(proposed, [0.5])
            controller.update(proposed, [0.5] if count == 1 else [1.7e308, *[0.3] * (count - 2), -1e9])
        assert len(set(seen)) == 17
        assert resumed.propose(4) == seen[-4:]

    return check
