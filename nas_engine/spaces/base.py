"""What a search space is: decisions, the rules between them, and how a choice of genes becomes a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nas_engine.errors import ConfigError
from nas_engine.ops.cost_estimate import cost_estimate
from nas_engine.ops.cost_table import CostTable, PriceList
from nas_engine.spaces.diagram import DecisionDiagram
from nas_engine.types import Architecture, Decision, ImageShape

if TYPE_CHECKING:
    from torch import nn

    from nas_engine.nn.supernet import Supernet


__all__ = ["CellStructure", "CostTable", "SearchSpace"]


@dataclass(frozen=True)
class CellStructure:
    """Decisions as the edges of a cell.

    Attributes:
        edges: (source node, target node) of each decision; node 0 is the input, the largest the output.
        zero_choice: index of the choice that means no connection, or None.
        identity_choice: index of the choice that passes its input on, or None.
    """

    edges: tuple[tuple[int, int], ...]
    zero_choice: int | None
    identity_choice: int | None


class SearchSpace(ABC):
    """A set of architectures for images of one shape.

    Subclasses set `name`, `decisions`, `shape` and `diagram`, where the decisions are the edges of a cell also `cell`,
    and implement the abstract methods. Promises:

    - `decode(encode(a)) == a` for every valid architecture; both are pure.
    - `canonical` is idempotent, returns a valid architecture, and two architectures with the same canonical form
      compute the same function when given the same weights. The canonical form is the cheapest member it knows.
    - `build` returns a plain `nn.Module` mapping float32 [batch, channels, height, width] to logits
      [batch, classes], with weights drawn from torch's global generator (seed it, or use `torch.random.fork_rng`).
    - `cost_table` is exact for what `build` returns: parameters, and multiply-accumulates of convolutions and linear
      layers for one image.
    - `memory_table`, where there is one, gives what `peak_activation_bytes` gives, to the last byte.
    - Nothing here changes after construction; a space may be pickled and shared between threads.
    """

    name: str
    decisions: tuple[Decision, ...]
    shape: ImageShape
    diagram: DecisionDiagram
    cell: CellStructure | None = None
    known_metric_names: tuple[str, ...] = ("params", "macs")

    @abstractmethod
    def encode(self, architecture: Architecture) -> str:
        """The space's own text form, for example the official NAS-Bench-201 string."""

    @abstractmethod
    def decode(self, text: str) -> Architecture:
        """Inverse of `encode`.

        Raises:
            ConfigError: the text is not an architecture of this space; the message names the offending part.
        """

    @abstractmethod
    def canonical(self, architecture: Architecture) -> Architecture:
        """The representative of all architectures that compute the same function."""

    @abstractmethod
    def build(self, architecture: Architecture) -> nn.Module:
        """A fresh stand-alone network."""

    @abstractmethod
    def supernet(self) -> Supernet:
        """A fresh weight-sharing network over all architectures of the space."""

    @abstractmethod
    def cost_table(self) -> CostTable:
        """Exact costs by table, metrics ``("params", "macs")``."""

    @abstractmethod
    def peak_activation_bytes(self, architecture: Architecture) -> int:
        """Largest sum of live float32 activations, in bytes, during eager inference of one image."""

    def memory_table(self) -> CostTable | None:
        """`peak_activation_bytes` of every valid architecture as a table, to price many at once.

        None, as here, where a space has no such table: then `peak_activation_bytes` is called for each architecture.
        """
        return None

    def prices(self, *tables: CostTable) -> PriceList:
        """Tables of this space, and of devices that run it, ready for one call of `cost_estimate`.

        Raises:
            NativeError: a table does not go with the decisions of the space or with the others.
        """
        return PriceList(tables, [len(decision.choices) for decision in self.decisions])

    def genes(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.int64]:
        """Their genes as native code takes them, int64 [n, decisions]."""
        genes = np.array([architecture.genes for architecture in architectures], dtype=np.int64)
        return genes.reshape(len(architectures), len(self.decisions))

    @property
    def size(self) -> int:
        """Number of valid architectures (before canonicalisation)."""
        return self.diagram.size

    def known_metrics(self, genes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """What is known of architectures before any evaluation, at no cost.

        Args:
            genes: int64 [n, decisions] of valid architectures.

        Returns:
            float64 [n, metrics], columns `known_metric_names`; NaN where something is not known.
        """
        return cost_estimate(genes, self._known_prices).counts.astype(np.float64)

    @cached_property
    def _known_prices(self) -> PriceList:
        return self.prices(self.cost_table())

    def mask(self, prefix: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which choices some valid architecture continues with, bool [choices of decision len(prefix)].

        Raises:
            ConfigError: `prefix` is complete or not the start of a valid architecture.
        """
        state = self.diagram.walk(prefix) if len(prefix) < len(self.decisions) else None
        if state is None:
            raise ConfigError(f"{list(prefix)} is no open prefix of an architecture of {self.name!r}")
        return self.diagram.allowed[state, : len(self.decisions[len(prefix)].choices)]

    def architecture(self, genes: Sequence[int]) -> Architecture:
        """Checked construction from genes.

        Raises:
            ConfigError: wrong number of genes, a gene out of range, or a combination that the masks exclude.
        """
        genes = tuple(int(gene) for gene in genes)
        if len(genes) != len(self.decisions):
            raise ConfigError(
                f"{self.name!r} has {len(self.decisions)} decisions, got {len(genes)} genes {list(genes)}"
            )
        for gene, decision in zip(genes, self.decisions, strict=True):
            if not 0 <= gene < len(decision.choices):
                raise ConfigError(f"gene {gene} for {decision.name!r} is outside 0..{len(decision.choices) - 1}")
        if not self.diagram.contains(genes):
            raise ConfigError(f"genes {list(genes)} are not a valid architecture of {self.name!r} (see its masks)")
        return Architecture(self.name, genes)

    def from_key(self, key: str) -> Architecture:
        """Inverse of `Architecture.key`.

        Raises:
            ConfigError: the key is of another space or malformed.
        """
        name, _, text = key.partition(":")
        if name != self.name or not all(part.isdecimal() for part in text.split("-")):
            raise ConfigError(f"{key!r} is no architecture key of {self.name!r}; it looks like '{self.name}:0-1-2'")
        return self.architecture([int(part) for part in text.split("-")])

    def sample(self, rng: np.random.Generator) -> Architecture:
        """An architecture drawn uniformly from all valid ones."""
        return Architecture(self.name, self.diagram.sample(rng))

    def samples(self, rng: np.random.Generator, count: int) -> list[Architecture]:
        """Architectures drawn uniformly, all at once: those that as many calls of `sample` give.

        A space that draws in a way of its own overrides both.
        """
        return [Architecture(self.name, genes) for genes in self.diagram.samples(rng, count)]

    def neighbours(self, architecture: Architecture) -> list[Architecture]:
        """All valid architectures that differ in exactly one gene."""
        found = []
        for position, decision in enumerate(self.decisions):
            for gene in range(len(decision.choices)):
                genes = (*architecture.genes[:position], gene, *architecture.genes[position + 1 :])
                if gene != architecture.genes[position] and self.diagram.contains(genes):
                    found.append(Architecture(self.name, genes))
        return found

    def __iter__(self) -> Iterator[Architecture]:
        """All valid architectures in lexicographic order of genes."""
        return (Architecture(self.name, genes) for genes in self.diagram)
