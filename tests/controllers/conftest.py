"""A search problem with a known answer, and the loop that the tests of all controllers run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nas_engine.controllers.base import Controller, Diagnostics
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.types import Architecture

Run = Callable[..., list[tuple[list[Architecture], Diagnostics]]]


@pytest.fixture
def space() -> BlockSpace:
    """4 decisions of 4 choices: 256 architectures, each its own canonical form."""
    return BlockSpace(options=BlockSpaceOptions(blocks=4, widths=4))


@pytest.fixture
def target() -> tuple[int, ...]:
    """The best architecture of `space` for `run`."""
    return (2, 0, 3, 1)


@pytest.fixture
def run(target: tuple[int, ...]) -> Run:
    """Search for `steps` batches; the reward is the share of genes that agree with `target`."""

    def search(controller: Controller, steps: int, batch: int = 8, scale: float = 1.0) -> list[Any]:
        history = []
        for _ in range(steps):
            proposed = controller.propose(batch)
            agreement = [sum(map(int.__eq__, a.genes, target)) / len(target) for a in proposed]
            history.append((proposed, controller.update(proposed, [scale * share for share in agreement])))
        return history

    return search
