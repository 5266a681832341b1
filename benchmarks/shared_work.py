"""How much of the work of many random paths is the same for several of them: python shared_work.py [--quick].

Feature maps that depend on the same choices are equal, whatever the paths choose elsewhere; computing them once would
save their multiply-accumulates. This bounds what scoring gains by keeping the common beginnings of paths.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache

import numpy as np
from record import arguments, make_row, write_rows

from nas_engine.evaluators.path_programs import path_programs
from nas_engine.nn.supernet import Genes
from nas_engine.ops.supernet_program import Node, SupernetProgram, Term, TermKind
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.types import ImageShape

_SIDE = 32
_SEED = 0


def shared_share(space: SearchSpace, count: int) -> float:
    """Share of the multiply-accumulates of `count` random paths that repeat those of another one."""
    programs = path_programs(space.supernet())
    assert programs is not None  # a built-in space
    rng = np.random.default_rng(_SEED)
    total = distinct = 0
    seen: set[Hashable] = set()
    program_of = cache(lambda context: programs.program(context, _SIDE, _SIDE))
    for genes in (space.sample(rng).genes for _ in range(count)):
        context = programs.context(genes)
        for key, macs in work(program_of(context), genes):
            total += macs
            if (context, key) not in seen:
                seen.add((context, key))
                distinct += macs
    return 1 - distinct / total


def work(program: SupernetProgram, genes: Genes) -> list[tuple[Hashable, int]]:
    """For each feature map of a path what it depends on, and the multiply-accumulates of its convolutions."""
    keys: list[Hashable | None] = ["image"]
    found: list[tuple[Hashable, int]] = []
    for index, node in enumerate(program.nodes[1:], 1):
        terms = [term for term in node.terms if is_on_path(term, genes) and keys[term.source] is not None]
        exists = bool(terms) or not node.optional
        keys.append(hash((index, *((id(term), keys[term.source]) for term in terms))) if exists else None)
        if exists:
            found.append((keys[-1], sum(macs_of(term, node, program.nodes) for term in terms)))
    return found


def is_on_path(term: Term, genes: Genes) -> bool:
    """Whether the path chooses `term`."""
    return term.choice is None or genes[term.choice[0]] == term.choice[1]


def macs_of(term: Term, node: Node, nodes: Sequence[Node]) -> int:
    """Multiply-accumulates of one term for one image."""
    if term.convolution is None:
        return 0
    inputs = 1 if term.kind is TermKind.DEPTHWISE else nodes[term.source].channels
    return node.channels * node.height * node.width * term.kernel**2 * inputs


def main() -> None:
    """Print the shares."""
    options = arguments(__doc__.splitlines()[0]).parse_args()
    shape = ImageShape(3, _SIDE, _SIDE, 10)
    spaces = {
        "nasbench201 C16 N1 32x32": NASBench201Space(shape, NASBench201Options(channels=16, cells=1)),
        "mobilenet 32x32": MobileNetSpace(shape),
    }
    rows = [
        make_row(
            f"{name}, {count} random paths",
            "shared feature maps",
            "share of multiply-accumulates",
            shared_share(space, count),
            "",
        )
        for name, space in spaces.items()
        for count in ((16,) if options.quick else (16, 64, 256))
    ]
    write_rows(rows, options.out)


if __name__ == "__main__":
    main()
