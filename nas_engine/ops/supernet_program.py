"""Describes a weight-sharing network to native code: feature maps as sums of terms, some of which a path chooses."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

IntArray = npt.NDArray[np.int64]
_T = TypeVar("_T")
NONE = -1
"""No weight, no norm, no decision, no node."""


class TermKind(IntEnum):
    """What a term computes; the numbers are those of ``csrc/ops/supernet_eval.h``."""

    CONVOLUTION = 0
    DEPTHWISE = 1
    AVERAGE_POOL = 2
    IDENTITY = 3


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of a feature map.

    Attributes:
        source: index of the node that is read; before the node that the term belongs to.
        kind: what is computed. Convolutions pad by ``kernel // 2``; average pools pad by ``(kernel - 1) // 2``, leave
            padding out of the mean, and round sizes up.
        kernel: side of the window.
        stride: of the window.
        rectified: reads ``relu(source)``.
        convolution: holds the weight [outputs, inputs, k, k], of which the first channels and the centre are used.
        norm: follows the convolution; with affine parameters and running statistics.
        choice: (decision, gene): the term exists on the paths that have this gene there; None: on all paths.
    """

    source: int
    kind: TermKind
    kernel: int = 1
    stride: int = 1
    rectified: bool = False
    convolution: nn.Conv2d | None = None
    norm: nn.BatchNorm2d | None = None
    choice: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A feature map [batch, channels, height, width]: the sum of its terms, then perhaps ReLU6.

    Attributes:
        optional: without terms on a path the node does not exist there and terms that read it vanish; a node that
            is not optional is zeros then.
        zero_of: an earlier node of the same shape: where this node has no terms it is 0.0 times that one, so that a
            NaN or an infinity there is not lost; None: plain zeros. Not for optional nodes.
    """

    channels: int
    height: int
    width: int
    terms: tuple[Term, ...] = ()
    relu6: bool = False
    optional: bool = False
    zero_of: int | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """Logits = linear(mean over pixels(relu(norm(node)))); without a norm the node is averaged as it is."""

    node: int
    linear: nn.Linear
    norm: nn.BatchNorm2d | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SupernetProgram:
    """All paths of a weight-sharing network.

    Attributes:
        nodes: feature maps; node 0 is the image and has no terms.
        head: turns the last feature map into logits.
        choices: number of choices of each decision; a gene is below it.
        tables: the same as native code takes it.
        described: what native code was told last, by where the weights were then; they are checked only when they
            have moved.
    """

    nodes: tuple[Node, ...]
    head: Head
    choices: tuple[int, ...]
    tables: ProgramTables = field(init=False, repr=False)
    described: dict[Hashable, object] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Collect the numbers that do not change when the weights do."""
        object.__setattr__(self, "tables", ProgramTables.of(self))

    @property
    def decisions(self) -> int:
        """Number of genes of a path."""
        return len(self.choices)

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """All BatchNorm layers, in the order in which terms use them; the head's is the last."""
        return self.tables.norms

    def places(self) -> Hashable:
        """Changes whenever one of the tensors moves, or changes its dtype or shape; not when its numbers change."""
        tensors = [_member(one, one._parameters, "weight") for one in self.tables.convolutions]
        for norm in self.tables.norms:
            tensors += [_member(norm, norm._parameters, name) for name in ("weight", "bias")]
            tensors += [_member(norm, norm._buffers, name) for name in ("running_mean", "running_var")]
        tensors += [self.head.linear.weight, self.head.linear.bias]
        return tuple(map(_place, tensors)), tuple(norm.eps for norm in self.tables.norms)

    def tensors(self) -> Iterable[tuple[str, Tensor | None, tuple[int | None, ...]]]:
        """(name, tensor, shape it must have) of everything whose address native code gets."""
        for index, convolution in enumerate(self.tables.convolutions):
            weight = convolution.weight
            side = weight.shape[-1] if isinstance(weight, Tensor) and weight.ndim else None
            yield f"convolution {index} weight", weight, (None, None, side, side)
        for index, norm in enumerate(self.tables.norms):
            channels = len(norm.weight) if isinstance(norm.weight, Tensor) else None
            yield f"norm {index} weight", norm.weight, (None,)
            for name in ("bias", "running_mean", "running_var"):
                yield f"norm {index} {name}", getattr(norm, name), (channels,)
        linear = self.head.linear
        yield "head weight", linear.weight, (None, None)
        yield "head bias", linear.bias, (len(linear.weight),)


def _member(layer: nn.Module, members: Mapping[str, Tensor | None], name: str) -> Tensor | None:
    # `layer.weight` would take three times as long, at each call and for hundreds of tensors.
    found: Tensor | None = members[name] if name in members else getattr(layer, name)
    return found


def _place(tensor: Tensor | None) -> Hashable:
    return None if tensor is None else (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


@dataclass(frozen=True, slots=True, eq=False)
class ProgramTables:
    """A program as native code takes it, without addresses: these are looked up at each call.

    Attributes:
        nodes: int64 [nodes, 8], columns as in ``ProgramNode`` of ``csrc/ops/supernet_eval.h``.
        terms: int64 [terms, 9], columns as in ``ProgramTerm``.
        convolutions: in the order of the terms' weight indices.
        norms: in the order of the terms' norm indices.
    """

    nodes: IntArray
    terms: IntArray
    convolutions: tuple[nn.Conv2d, ...]
    norms: tuple[nn.BatchNorm2d, ...]

    @staticmethod
    def of(program: SupernetProgram) -> ProgramTables:
        """Number convolutions and norms, and lay out nodes and terms."""
        terms = [term for node in program.nodes for term in node.terms]
        convolutions = _distinct(term.convolution for term in terms)
        norms = _distinct([*(term.norm for term in terms), program.head.norm])
        firsts = np.cumsum([0, *(len(node.terms) for node in program.nodes)])
        node_rows = [
            (
                *(int(first), len(node.terms), node.channels, node.height, node.width, node.relu6, node.optional),
                NONE if node.zero_of is None else node.zero_of,
            )
            for first, node in zip(firsts, program.nodes, strict=False)
        ]
        of_convolution, of_norm = _numbers(convolutions), _numbers(norms)
        term_rows = [
            (
                *(term.kind, term.source, term.kernel, term.stride, term.rectified),
                *(of_convolution[id(term.convolution)], of_norm[id(term.norm)]),
                *(term.choice or (NONE, NONE)),
            )
            for term in terms
        ]
        return ProgramTables(
            np.array(node_rows, dtype=np.int64).reshape(-1, 8),
            np.array(term_rows, dtype=np.int64).reshape(-1, 9),
            tuple(convolutions),
            tuple(norms),
        )


def _distinct(things: Iterable[_T | None]) -> list[_T]:
    return list({id(thing): thing for thing in things if thing is not None}.values())


def _numbers(things: Sequence[object]) -> dict[int, int]:
    return {id(None): NONE, **{id(thing): index for index, thing in enumerate(things)}}
