"""The rows of a table as a search space: its architectures are exactly those that somebody has evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt

from nas_engine.errors import ConfigError, nearest_hint
from nas_engine.registry import resolve
from nas_engine.spaces.base import CellStructure, CostTable, SearchSpace
from nas_engine.spaces.diagram import DecisionDiagram
from nas_engine.tables.proxies import TableProxies, load_proxies
from nas_engine.tables.table import Table
from nas_engine.types import Architecture, Decision, ImageShape

if TYPE_CHECKING:
    from torch import nn

    from nas_engine.nn.supernet import Supernet

_NO_IMAGES = ImageShape(channels=0, height=0, width=0, classes=0)
_ANY_IMAGES = ImageShape(channels=3, height=32, width=32, classes=10)


class TableSpace(SearchSpace):
    """A table as a search space; its rows need not be all combinations of choices.

    Every row is its own architecture: isomorphic rows have different measured values. Where the description says
    ``merge_isomorphic``, rows that its `space` calls equal are one, represented by the row of the canonical form, or
    the first row of the class where the table lacks that one.

    A table holds no networks: `build`, `supernet`, `cost_table` and `peak_activation_bytes` raise a ConfigError, and
    `shape` is that of no image.

    Attributes:
        table: the table; row `i` is architecture number `i` in lexicographic order.
        cell: what the decisions mean as edges of a cell, or None.
        known_metric_names: metrics known before an evaluation.
        architectures: all rows, in order.
    """

    def __init__(self, table: Table) -> None:
        """Set up masks over the rows of a table.

        Raises:
            ConfigError: the description's `cell` or `space` does not fit the decisions.
        """
        self.table = table
        self.name = table.name
        self.decisions = table.decisions
        self.shape = _NO_IMAGES
        self.diagram = DecisionDiagram.from_sequences([len(d.choices) for d in table.decisions], table.genes)
        self.cell = _cell(table)
        self.known_metric_names = table.known_names
        self.architectures = [Architecture(self.name, tuple(genes)) for genes in table.genes.tolist()]
        self._row_of = {architecture.genes: row for row, architecture in enumerate(self.architectures)}
        self._neighbours: dict[int, list[Architecture]] = {}
        self._representatives = _representatives(self) if table.description.merge_isomorphic else None

    @cached_property
    def optimum(self) -> float:
        """The highest reward of a canonical architecture."""
        rows = slice(None) if self._representatives is None else sorted(set(self._representatives))
        return float(self.table.rewards[rows].max())

    @cached_property
    def proxies(self) -> TableProxies:
        """Zero-cost proxies of all rows; their file is read when they are first asked for.

        Raises:
            ConfigError: the table has none, or their file cannot be used.
        """
        return load_proxies(self.table)

    @cached_property
    def distinct(self) -> int:
        """Number of different canonical architectures."""
        return len(self.architectures) if self._representatives is None else len(set(self._representatives))

    def rows_of(self, genes: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Rows of `genes` [n, decisions]; -1 where the table has none."""
        return self.diagram.rank(genes)

    def row_of(self, genes: Sequence[int]) -> int:
        """The row of one architecture.

        Raises:
            KeyError: the table has none.
        """
        return self._row_of[tuple(genes)]

    def known_metrics(self, genes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """What is known before an evaluation, at no cost.

        Args:
            genes: int64 [n, decisions].

        Returns:
            float64 [n, metrics], columns `known_metric_names`; NaN where the table has a gap or no such row.
        """
        rows = self.rows_of(genes)
        return np.where(rows[:, None] >= 0, self.table.known[rows], np.nan)

    def encode(self, architecture: Architecture) -> str:
        """Genes joined by ``-``."""
        return "-".join(map(str, architecture.genes))

    def decode(self, text: str) -> Architecture:
        """The architecture of genes joined by ``-``.

        Raises:
            ConfigError: the text is none, or the table has no such row.
        """
        parts = text.split("-")
        if not all(part.isascii() and part.isdecimal() for part in parts):
            raise ConfigError(f"{text!r} is no architecture of {self.name!r}: write genes as 0-1-2")
        return self.architecture([int(part) for part in parts])

    def canonical(self, architecture: Architecture) -> Architecture:
        """The architecture itself, or the representative of its class where isomorphic rows are merged."""
        if self._representatives is None:
            return architecture
        return self.architectures[self._representatives[self._row_of[architecture.genes]]]

    def sample(self, rng: np.random.Generator) -> Architecture:
        """A row drawn uniformly."""
        return self.architectures[int(rng.integers(len(self.architectures)))]

    def samples(self, rng: np.random.Generator, count: int) -> list[Architecture]:
        """Rows drawn uniformly: those that as many calls of `sample` draw."""
        return [self.architectures[row] for row in rng.integers(len(self.architectures), size=count).tolist()]

    def neighbours(self, architecture: Architecture) -> list[Architecture]:
        """All rows that differ in exactly one gene; they are remembered, because climbs come by again."""
        row = self._row_of[architecture.genes]
        if row not in self._neighbours:
            self._neighbours[row] = list(self._one_gene_away(architecture.genes))
        return list(self._neighbours[row])

    def __iter__(self) -> Iterator[Architecture]:
        """All rows in lexicographic order of genes."""
        return iter(self.architectures)

    def build(self, architecture: Architecture) -> nn.Module:
        """Not possible: a table holds no networks."""
        self._refuse()

    def supernet(self) -> Supernet:
        """Not possible: a table holds no networks."""
        self._refuse()

    def cost_table(self) -> CostTable:
        """Not possible: see `known_metrics` for what the table knows."""
        self._refuse()

    def peak_activation_bytes(self, architecture: Architecture) -> int:
        """Not possible: a table holds no networks."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(
            f"table {self.name!r} holds no networks: search a space of the engine with 'evaluator: tabular' instead"
        )

    def _one_gene_away(self, genes: tuple[int, ...]) -> Iterator[Architecture]:
        for position, decision in enumerate(self.decisions):
            for gene in range(len(decision.choices)):
                row = self._row_of.get((*genes[:position], gene, *genes[position + 1 :]))
                if row is not None and gene != genes[position]:
                    yield self.architectures[row]


def engine_space(name: str, decisions: Sequence[Decision]) -> SearchSpace:
    """A space of the engine whose genes are those of a table, with everything allowed that it can allow.

    Raises:
        ConfigError: there is none of that name, or its decisions are others.
    """
    factory = resolve("space", name)
    free = {"allow_disconnected": True} if "allow_disconnected" in factory.Options.model_fields else {}
    space: SearchSpace = factory(_ANY_IMAGES, factory.Options(**free))
    check_same_genes(space, decisions)
    return space


def check_same_genes(space: SearchSpace, decisions: Sequence[Decision]) -> None:
    """Whether genes of a space mean the same in a table: choices of the same names in the same order, or bare digits.

    Raises:
        ConfigError: the numbers of decisions or of choices differ, or the choices of a decision do.
    """
    ours, theirs = ([len(d.choices) for d in some] for some in (space.decisions, decisions))
    if ours != theirs:
        raise ConfigError(
            f"space {space.name!r} has decisions with {ours} choices, the table has {theirs}: use a table of this space"
        )
    for our, their in zip(space.decisions, decisions, strict=True):
        if their.choices not in (our.choices, tuple(map(str, range(len(our.choices))))):
            raise ConfigError(
                f"choices of {their.name!r} are {', '.join(their.choices)} in the table, in space {space.name!r} "
                f"{', '.join(our.choices)}: give decisions.choices the names of the space, in its order"
            )


def _cell(table: Table) -> CellStructure | None:
    cell, decisions = table.description.cell, table.decisions
    if cell is None:
        return None
    edges = []
    for text in cell.edges:
        source, _, target = text.partition(">")
        if not (source.isdecimal() and target.isdecimal() and int(source) < int(target)):
            raise ConfigError(f"cell.edges: {text!r} is no edge; write it as '0>1', from a lower to a higher node")
        edges.append((int(source), int(target)))
    if len(edges) != len(decisions):
        raise ConfigError(f"cell.edges: {len(edges)} edges for {len(decisions)} decisions; give one for each")
    if any(decision.choices != decisions[0].choices for decision in decisions):
        raise ConfigError("cell: the decisions have different choices; the edges of a cell share theirs")
    return CellStructure(tuple(edges), _choice(cell.zero, "zero", table), _choice(cell.identity, "identity", table))


def _choice(name: str | None, what: str, table: Table) -> int | None:
    choices = table.decisions[0].choices
    if name is not None and name not in choices:
        raise ConfigError(f"cell.{what}: {name!r} is no choice: {nearest_hint(name, choices)}")
    return None if name is None else choices.index(name)


def _representatives(space: TableSpace) -> list[int]:
    """The row that stands for the class of each row."""
    merging = engine_space(str(space.table.description.space), space.decisions)
    first: dict[Architecture, int] = {}
    forms = [merging.canonical(Architecture(merging.name, a.genes)) for a in space.architectures]
    for row, form in enumerate(forms):
        first.setdefault(form, row)
    present = {form: space._row_of.get(form.genes, row) for form, row in first.items()}
    return [present[form] for form in forms]
