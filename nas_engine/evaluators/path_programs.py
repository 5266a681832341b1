"""Describes the supernets of the built-in spaces to the native op that scores their paths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from nas_engine.nn.mobilenet import resized
from nas_engine.nn.mobilenet_supernet import ElasticInvertedResidual, MobileNetSupernet
from nas_engine.nn.nasbench201 import EDGES, KERNELS, OPERATIONS, ReductionBlock, edge_name
from nas_engine.nn.nasbench201_supernet import NASBench201Supernet, SharedCell
from nas_engine.nn.supernet import Genes, Supernet
from nas_engine.ops.supernet_program import Head, Node, SupernetProgram, Term, TermKind

Context = tuple[int, ...]


class PathPrograms(ABC):
    """Native descriptions of all paths of one supernet.

    Paths of one context share a program; the context is what decides the sizes of feature maps.
    """

    @property
    @abstractmethod
    def choices(self) -> tuple[int, ...]:
        """Number of choices of each decision."""

    @abstractmethod
    def context(self, genes: Genes) -> Context:
        """The context of a path."""

    @abstractmethod
    def images(self, images: Tensor, context: Context) -> Tensor:
        """What node 0 of the context's program reads, for float32 images [n, channels, height, width]."""

    @abstractmethod
    def program(self, context: Context, height: int, width: int) -> SupernetProgram:
        """The program of a context; `height` and `width` are those of the images that `images` gives."""


def path_programs(supernet: Supernet) -> PathPrograms | None:
    """The description of `supernet`; None where native code cannot score it."""
    # By exact type: a subclass may compute something else.
    if type(supernet) is NASBench201Supernet:
        return NASBench201Programs(supernet)
    if type(supernet) is MobileNetSupernet:
        return MobileNetPrograms(supernet)
    return None


class _Nodes:
    """The list of nodes while a program is written down."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        self.nodes = [Node(channels, height, width)]

    def add(
        self,
        channels: int,
        terms: list[Term],
        *,
        stride: int = 1,
        relu6: bool = False,
        optional: bool = False,
        zero_of: int | None = None,
    ) -> int:
        """Append a node whose size is that of its first source over `stride`; returns its index."""
        source = self.nodes[terms[0].source]
        height, width = -(-source.height // stride), -(-source.width // stride)
        self.nodes.append(Node(channels, height, width, tuple(terms), relu6, optional, zero_of))
        return len(self.nodes) - 1


class NASBench201Programs(PathPrograms):
    """One program: sizes do not depend on the path."""

    def __init__(self, supernet: NASBench201Supernet) -> None:
        """Describe `supernet`."""
        self._supernet = supernet

    @property
    def choices(self) -> tuple[int, ...]:
        """One operation for each edge."""
        return (len(OPERATIONS),) * len(EDGES)

    def context(self, genes: Genes) -> Context:
        """All paths share the one context."""
        return ()

    def images(self, images: Tensor, context: Context) -> Tensor:
        """The images themselves."""
        return images

    def program(self, context: Context, height: int, width: int) -> SupernetProgram:
        """Stem, cells and reduction blocks, head; an edge of a cell is one term for each operation."""
        convolution, norm = _convolution_and_norm(self._supernet.stem.children())
        nodes = _Nodes(convolution.in_channels, height, width)
        last = nodes.add(convolution.out_channels, [_convolution(0, convolution, norm)])
        for layer in self._supernet.body:
            if isinstance(layer, SharedCell):
                last = _add_cell(nodes, last, layer)
            else:
                last = _add_reduction(nodes, last, cast(ReductionBlock, layer))
        head = self._supernet.head
        return SupernetProgram(
            tuple(nodes.nodes), Head(last, cast(nn.Linear, head[-1]), cast(nn.BatchNorm2d, head[0])), self.choices
        )


def _add_cell(nodes: _Nodes, last: int, cell: SharedCell) -> int:
    channels = nodes.nodes[last].channels
    index_of = {0: last}
    for target in (1, 2, 3):
        incoming = [edge for edge in EDGES if edge[1] == target]
        terms = [term for edge in incoming for term in _edge_terms(index_of[edge[0]], edge, cell)]
        # Inner nodes without a live edge do not exist; a cell without any gives 0.0 times its input.
        zero_of = last if target == 3 else None
        index_of[target] = nodes.add(channels, terms, optional=target < 3, zero_of=zero_of)
    return index_of[3]


def _edge_terms(source: int, edge: tuple[int, int], cell: SharedCell) -> list[Term]:
    operations = cast(nn.ModuleDict, cell.edges[edge_name(edge)])
    decision = EDGES.index(edge)
    terms = []
    for choice, name in enumerate(OPERATIONS[1:], start=1):
        if name in KERNELS:
            convolution, norm = _convolution_and_norm(list(operations[name].children())[1:])
            terms.append(_convolution(source, convolution, norm, rectified=True, choice=(decision, choice)))
        else:
            pool = name == "avg_pool_3x3"
            kind = TermKind.AVERAGE_POOL if pool else TermKind.IDENTITY
            terms.append(Term(source, kind, 3 if pool else 1, choice=(decision, choice)))
    return terms


def _add_reduction(nodes: _Nodes, last: int, block: ReductionBlock) -> int:
    layers = list(block.residual)
    first, first_norm = _convolution_and_norm(layers[1:3])
    second, second_norm = _convolution_and_norm(layers[4:6])
    inner = nodes.add(
        first.out_channels, [_convolution(last, first, first_norm, rectified=True)], stride=first.stride[0]
    )
    pooled = nodes.add(nodes.nodes[last].channels, [Term(last, TermKind.AVERAGE_POOL, 2, 2)], stride=2)
    shortcut = _convolution(pooled, cast(nn.Conv2d, block.shortcut[1]), None)
    residual = _convolution(inner, second, second_norm, rectified=True)
    return nodes.add(second.out_channels, [residual, shortcut])


class MobileNetPrograms(PathPrograms):
    """One program for each width and resolution."""

    def __init__(self, supernet: MobileNetSupernet) -> None:
        """Describe `supernet`."""
        self._supernet = supernet

    @property
    def choices(self) -> tuple[int, ...]:
        """Width, resolution, then for each layer an operation or, where it may be skipped, one more."""
        supernet = self._supernet
        operations = len(supernet.operations)
        layers = (operations + skippable for skippable in supernet.skippable)
        return (len(supernet.widths), len(supernet.resolutions), *layers)

    def context(self, genes: Genes) -> Context:
        """Width and resolution."""
        return genes[0], genes[1]

    def images(self, images: Tensor, context: Context) -> Tensor:
        """The images at the context's resolution."""
        return resized(images, self._supernet.resolutions[context[1]])

    def program(self, context: Context, height: int, width: int) -> SupernetProgram:
        """Stem, layers, head; a layer is one hidden pair of nodes for each operation, and their sum."""
        supernet, widths = self._supernet, self._supernet.widths[context[0]]
        nodes = _Nodes(supernet.stem.in_channels, height, width)
        stem = _convolution(0, supernet.stem, supernet.stem_norm)
        last = nodes.add(widths.stem, [stem], relu6=True)
        for index, channels in enumerate(widths.layers):
            last = self._add_layer(nodes, last, index, channels)
        head = nodes.add(widths.head, [_convolution(last, supernet.head, supernet.head_norm)], relu6=True)
        return SupernetProgram(tuple(nodes.nodes), Head(head, supernet.classifier), self.choices)

    def _add_layer(self, nodes: _Nodes, last: int, index: int, channels: int) -> int:
        layer = cast(ElasticInvertedResidual, self._supernet.layers[index])
        before, decision, stride = nodes.nodes[last].channels, 2 + index, layer.stride
        shortcut = stride == 1 and before == channels
        terms = []
        for choice, (kernel, expansion) in enumerate(self._supernet.operations):
            hidden = before * expansion
            chosen = (decision, choice)
            expand = _convolution(last, layer.expand, layer.expand_norm, choice=chosen)
            expanded = nodes.add(hidden, [expand], relu6=True, optional=True)
            depthwise = Term(expanded, TermKind.DEPTHWISE, kernel, stride, False, layer.depthwise, layer.depthwise_norm)
            filtered = nodes.add(hidden, [depthwise], stride=stride, relu6=True, optional=True)
            terms.append(_convolution(filtered, layer.project, layer.project_norm))
            if shortcut:
                terms.append(Term(last, TermKind.IDENTITY, choice=chosen))
        if self._supernet.skippable[index]:
            terms.append(Term(last, TermKind.IDENTITY, choice=(decision, len(self._supernet.operations))))
        return nodes.add(channels, terms)


def _convolution_and_norm(layers: Iterable[nn.Module]) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution, norm = layers
    return cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, norm)


def _convolution(
    source: int,
    convolution: nn.Conv2d,
    norm: nn.BatchNorm2d | None,
    *,
    rectified: bool = False,
    choice: tuple[int, int] | None = None,
) -> Term:
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    kind = TermKind.CONVOLUTION
    return Term(source, kind, kernel, stride, rectified, convolution, norm, choice)
