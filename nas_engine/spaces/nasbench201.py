"""The NAS-Bench-201 space: five operations on each of the six edges of a cell that is repeated in three stages."""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Sequence
from functools import cache
from typing import cast

import numpy as np
from pydantic import Field

from nas_engine.errors import ConfigError, nearest_hint
from nas_engine.nn.nasbench201 import EDGES, KERNELS, OPERATIONS, NASBench201Network, live_edges
from nas_engine.nn.nasbench201_supernet import NASBench201Supernet
from nas_engine.options import Options
from nas_engine.spaces.base import CellStructure, CostTable, SearchSpace
from nas_engine.spaces.diagram import DecisionDiagram
from nas_engine.spaces.nasbench201_canonical import representatives
from nas_engine.types import Architecture, Decision, ImageShape

_MIN_IMAGE_SIZE = 4
_FLOAT_BYTES = 4
_EXAMPLE = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"


class NASBench201Options(Options):
    """Size of the networks. The published space has 16 channels and 5 cells a stage."""

    channels: int = Field(8, ge=1, le=1024, description="channels of the first stage; doubled in the second and third")
    cells: int = Field(1, ge=1, le=100, description="cells in each of the three stages")
    allow_disconnected: bool = Field(
        False, description="also allow cells without a path from input to output, as the published tables do"
    )


class NASBench201Space(SearchSpace):
    """Dong & Yang 2020, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search".

    The decisions are the edges 0>1, 0>2, 1>2, 0>3, 1>3, 2>3 and each gene is an index into `OPERATIONS`, so that the
    digits of the genes are the column ``ops`` of the published tables. 15,284 of the 15,625 cells connect input and
    output; they compute 5,043 different functions (see `nasbench201_canonical`).
    """

    name = "nasbench201"
    Options = NASBench201Options
    cell = CellStructure(EDGES, OPERATIONS.index("none"), OPERATIONS.index("skip_connect"))

    def __init__(self, shape: ImageShape, options: NASBench201Options = NASBench201Options()) -> None:
        """Set up decisions, masks and costs.

        Args:
            shape: images and classes of the networks.
            options: size of the networks and which cells are allowed.

        Raises:
            ConfigError: the images are too small to be halved twice.
        """
        if min(shape.height, shape.width) < _MIN_IMAGE_SIZE:
            raise ConfigError(
                f"images of {shape.height} x {shape.width} are too small for {self.name!r}, which halves them twice: "
                f"use images of at least {_MIN_IMAGE_SIZE} x {_MIN_IMAGE_SIZE}"
            )
        self.shape = shape
        self.options = options
        self.decisions = tuple(Decision(f"edge {source}>{target}", OPERATIONS) for source, target in EDGES)
        step = _any_choice if options.allow_disconnected else _reach
        self.diagram = DecisionDiagram([len(OPERATIONS)] * len(EDGES), frozenset({0}), step)
        self._stages = _stages(shape, options.channels)
        self._largest_map = max(channels * pixels for channels, pixels in self._stages)
        self._peak_outside_cells = _peak_outside_cells(self._stages, shape.classes)

    def encode(self, architecture: Architecture) -> str:
        """The official string, for example ``|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|``."""
        return _official(architecture.genes)

    def decode(self, text: str) -> Architecture:
        """The architecture that is written as official string, as six digits (``334131``) or as `Architecture.key`.

        Raises:
            ConfigError: the text is none of these, names an unknown operation, or is a cell that the options exclude.
        """
        if text.startswith(f"{self.name}:"):
            return self.from_key(text)
        genes = _genes_from_digits(text) if text.isascii() and text.isdigit() else _genes_from_official(text)
        if not self.diagram.contains(genes):
            raise ConfigError(
                f"{text!r} has no path from input to output; choose another cell or set allow_disconnected: true"
            )
        return self.architecture(genes)

    def canonical(self, architecture: Architecture) -> Architecture:
        """The cheapest cell of the same function (see `nasbench201_canonical.representatives`)."""
        return Architecture(self.name, representatives()[architecture.genes])

    def build(self, architecture: Architecture) -> NASBench201Network:
        """A fresh network that holds the live edges of `architecture` only."""
        operations = [OPERATIONS[gene] for gene in architecture.genes]
        return NASBench201Network(
            operations, self.options.channels, self.options.cells, self.shape.channels, self.shape.classes
        )

    def supernet(self) -> NASBench201Supernet:
        """A fresh supernet with all operations on all edges of all cells."""
        return NASBench201Supernet(self.options.channels, self.options.cells, self.shape.channels, self.shape.classes)

    def cost_table(self) -> CostTable:
        """Exact params and MACs of the networks that `build` returns, dead edges excluded."""
        operation_costs = [self._operation_cost(name) for name in OPERATIONS]
        return CostTable(
            metrics=("params", "macs"),
            context_decisions=(),
            constant=np.array([self._fixed_cost()], dtype=np.int64),
            entries=np.array([[operation_costs] * len(EDGES)], dtype=np.int64),
            cell_edges=EDGES,
            zero_choice=OPERATIONS.index("none"),
        )

    def peak_activation_bytes(self, architecture: Architecture) -> int:
        """Exact for `build(architecture)` in eval mode without gradients, float32, with the image held throughout."""
        image = self.shape.channels * self.shape.height * self.shape.width
        in_cells = _peak_maps_of_cell(architecture.genes) * self._largest_map
        return _FLOAT_BYTES * (image + max(in_cells, self._peak_outside_cells))

    def _operation_cost(self, operation: str) -> tuple[int, int]:
        """(params, MACs) of `operation` on one edge of all cells."""
        if operation not in KERNELS:
            return 0, 0
        costs = [_conv_cost(c, c, KERNELS[operation], pixels) for c, pixels in self._stages]
        norms = sum(2 * channels for channels, _ in self._stages)
        params, macs = (sum(column) for column in zip(*costs, strict=True))
        return self.options.cells * (params + norms), self.options.cells * macs

    def _fixed_cost(self) -> tuple[int, int]:
        """(params, MACs) of stem, reduction blocks and classifier."""
        first, second, third = self._stages
        layers = [_conv_cost(self.shape.channels, first[0], 3, first[1])]
        for (inputs, _), (outputs, pixels) in ((first, second), (second, third)):
            layers += [_conv_cost(inputs, outputs, kernel, pixels) for kernel in (3, 1)]
            layers.append(_conv_cost(outputs, outputs, 3, pixels))
        layers.append(_conv_cost(third[0], self.shape.classes, 1, 1))
        # BatchNorm has a weight and a bias: one layer in the stem, two in each reduction block, one in the head.
        norms = 2 * (first[0] + 2 * second[0] + 2 * third[0] + third[0])
        params, macs = (sum(column) for column in zip(*layers, strict=True))
        return params + norms + self.shape.classes, macs


def _stages(shape: ImageShape, channels: int) -> list[tuple[int, int]]:
    """(channels, pixels) of the feature maps of each stage; sizes round up when they are halved."""
    return [(channels * 2**s, -(-shape.height // 2**s) * -(-shape.width // 2**s)) for s in range(3)]


def _peak_outside_cells(stages: Sequence[tuple[int, int]], classes: int) -> int:
    """Largest number of floats alive in stem, reduction blocks or head, without the image."""
    sizes = [channels * pixels for channels, pixels in stages]
    # Stem: the convolution's output and its BatchNorm's.
    peaks = [2 * sizes[0]]
    for before, after in itertools.pairwise(sizes):
        # Reduction: the block's input with its ReLU and first convolution, or with both branches and their sum.
        peaks.append(max(2 * before + after, before + 3 * after))
    # Head: last features, their BatchNorm and the pooled features, or last and pooled features and the logits.
    last, pooled = sizes[-1], stages[-1][0]
    peaks.append(last + pooled + max(last, classes))
    return max(peaks)


def _any_choice(position: int, state: Hashable, choice: int) -> Hashable:
    return state


def _reach(position: int, reached: Hashable, choice: int) -> Hashable | None:
    """Nodes that the input reaches after the decision; None where the last one leaves the output without input."""
    source, target = EDGES[position]
    nodes = cast("frozenset[int]", reached)
    if OPERATIONS[choice] != "none" and source in nodes:
        nodes |= {target}
    is_last = position == len(EDGES) - 1
    return None if is_last and target not in nodes else nodes


def _genes_from_digits(text: str) -> tuple[int, ...]:
    genes = tuple(map(int, text))
    if len(genes) != len(EDGES) or max(genes) >= len(OPERATIONS):
        raise ConfigError(
            f"{text!r} is no cell: write {len(EDGES)} digits of 0 to {len(OPERATIONS) - 1}, for example 334131"
        )
    return genes


def _genes_from_official(text: str) -> tuple[int, ...]:
    names = [match.group(1) for match in re.finditer(r"([^|+~]+)~", text)]
    for name in names:
        if name not in OPERATIONS:
            raise ConfigError(f"unknown operation {name!r} in {text!r}: {nearest_hint(name, OPERATIONS)}")
    genes = tuple(map(OPERATIONS.index, names))
    if len(genes) != len(EDGES) or _official(genes) != text:
        raise ConfigError(f"{text!r} is no cell: write it as {_EXAMPLE} or as six digits such as 334131")
    return genes


def _official(genes: Sequence[int]) -> str:
    nodes: dict[int, str] = {}
    for (source, target), gene in zip(EDGES, genes, strict=True):
        nodes[target] = f"{nodes.get(target, '|')}{OPERATIONS[gene]}~{source}|"
    return "+".join(nodes.values())


def _conv_cost(inputs: int, outputs: int, kernel: int, output_pixels: int) -> tuple[int, int]:
    """(params, MACs) of a convolution without bias; a linear layer is one with one output pixel."""
    params = inputs * outputs * kernel**2
    return params, params * output_pixels


@cache
def _peak_maps_of_cell(genes: tuple[int, ...]) -> int:
    """Largest number of distinct feature maps alive in `run_cell`, its input included."""
    operations = dict(zip(EDGES, (OPERATIONS[gene] for gene in genes), strict=True))
    edges = live_edges(tuple(operations.values()))
    fresh = itertools.count(1)
    nodes = {0: 0}  # node -> number of its feature map; a skip adds no map of its own
    peak = 1 if edges else 2  # a cell without live edges makes zeros
    for position, (source, target) in enumerate(edges):
        alive = {0, *nodes.values()}  # the caller holds the input throughout
        operation = operations[source, target]
        term = nodes[source] if operation == "skip_connect" else next(fresh)
        # A convolution holds two maps beside the nodes (ReLU and output, then BatchNorm's input and output).
        peak = max(peak, len(alive | {term}) + (operation in KERNELS))
        if target in nodes:
            peak = max(peak, len(alive | {term}) + 1)
            term = next(fresh)
        nodes[target] = term
        if all(later_source != source for later_source, _ in edges[position + 1 :]):
            del nodes[source]
    return peak
