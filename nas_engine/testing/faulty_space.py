"""A search space with one broken architecture, to test that what breaks in one evaluation stays there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nas_engine.nn.supernet import Genes, Supernet
from nas_engine.spaces.base import CostTable, SearchSpace
from nas_engine.types import Architecture

Fault = Callable[[Tensor], Tensor]
"""Logits -> what the broken network returns instead; may raise."""


class FaultySpace(SearchSpace):
    """Another space, except that one architecture does not work.

    Its stand-alone network is always broken, its path in the supernet only when scored (without gradients), so that
    the supernet itself can be trained.
    """

    def __init__(self, space: SearchSpace, broken: Architecture, fault: Fault) -> None:
        """Wrap `space`.

        Args:
            space: does everything else.
            broken: the architecture that does not work.
            fault: what happens to its logits.
        """
        self.name, self.shape = space.name, space.shape
        self.decisions, self.diagram = space.decisions, space.diagram
        self._space, self._broken, self._fault = space, broken, fault

    def encode(self, architecture: Architecture) -> str:
        """As the wrapped space."""
        return self._space.encode(architecture)

    def decode(self, text: str) -> Architecture:
        """As the wrapped space."""
        return self._space.decode(text)

    def canonical(self, architecture: Architecture) -> Architecture:
        """As the wrapped space."""
        return self._space.canonical(architecture)

    def build(self, architecture: Architecture) -> nn.Module:
        """The network, followed by the fault where it is the broken one."""
        network = self._space.build(architecture)
        return _FaultyNetwork(network, self._fault) if architecture == self._broken else network

    def supernet(self) -> Supernet:
        """The supernet with one broken path."""
        return _FaultySupernet(self._space.supernet(), self._broken.genes, self._fault)

    def cost_table(self) -> CostTable:
        """As the wrapped space."""
        return self._space.cost_table()

    def peak_activation_bytes(self, architecture: Architecture) -> int:
        """As the wrapped space."""
        return self._space.peak_activation_bytes(architecture)

    def memory_table(self) -> CostTable | None:
        """As the wrapped space."""
        return self._space.memory_table()


class _FaultyNetwork(nn.Module):
    def __init__(self, network: nn.Module, fault: Fault) -> None:
        super().__init__()
        self.network = network
        self._fault = fault

    def forward(self, images: Tensor) -> Tensor:
        return self._fault(self.network(images))


class _FaultySupernet(Supernet):
    def __init__(self, supernet: Supernet, broken: tuple[int, ...], fault: Fault) -> None:
        super().__init__()
        self.supernet = supernet
        self._broken, self._fault = broken, fault

    def forward(self, images: Tensor, genes: Genes) -> Tensor:
        logits: Tensor = self.supernet(images, genes)
        scoring = not torch.is_grad_enabled()
        return self._fault(logits) if scoring and tuple(genes) == self._broken else logits

    def largest(self) -> tuple[int, ...]:
        return self.supernet.largest()

    def smallest(self) -> tuple[int, ...]:
        return self.supernet.smallest()
