"""Which NAS-Bench-201 cells compute the same function: a normal form of the sums that cells are, and its classes.

Two cells belong to one class exactly if their convolutions can be paired, each with one of the same kind, so that
equal weights in each pair give the same function by these laws alone:

- a skip is the identity, so an edge that skips from a sum contributes the terms of that sum;
- edges on no path from input to output contribute nothing (they are never built);
- sums are associative and commutative, and keep count: x + x is not x;
- average pooling is linear: the pooled sum is the sum of the pooled terms;
- two convolutions are two terms, even with equal inputs, because each has weights of its own.

The published count (6,466 classes, `CellStructure.to_unique_str` of Dong & Yang 2020) expands shared nodes: it equates
``c(a(x)) + d(a(x))`` with ``c(a(x)) + d(b(x))``, which has one convolution more. Here they differ. On the other hand
the published form keeps nested sums and zeros apart that are one here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from nas_engine.nn.nasbench201 import EDGES, OPERATIONS, live_edges

Genes = tuple[int, ...]
Term = tuple[int, int]
"""(how often pooled, convolution); `_INPUT` in place of a convolution is the input of the cell."""

_INPUT = -1
# Most expensive first, so that cells compare by their counts of these. It does not depend on the channels.
_BY_COST = tuple(map(OPERATIONS.index, ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3", "skip_connect")))


@cache
def representatives() -> dict[Genes, Genes]:
    """Maps the genes of every cell to those of the cheapest equivalent cell, ties broken by order of genes.

    All cells of a class have the same convolutions (hence the same parameters and MACs); the representative has the
    fewest poolings, then the fewest skips. The first call takes about a second.
    """
    all_genes = itertools.product(range(len(OPERATIONS)), repeat=len(EDGES))
    live_of = {genes: without_dead_edges(genes) for genes in all_genes}
    form_of = {live: normal_form(live) for live in set(live_of.values())}
    cheapest: dict[object, Genes] = {}
    for live in sorted(form_of, key=_cost_order):
        cheapest.setdefault(form_of[live], live)
    return {genes: cheapest[form_of[live]] for genes, live in live_of.items()}


def without_dead_edges(genes: Genes) -> Genes:
    """The same cell with ``none`` on every edge that has no effect."""
    live = live_edges([OPERATIONS[gene] for gene in genes])
    return tuple(gene if edge in live else 0 for edge, gene in zip(EDGES, genes, strict=True))


def normal_form(live: Genes) -> object:
    """A hashable value that is equal for two cells without dead edges exactly if they are of one class.

    The convolutions are numbered by what they compute. Twins, which compute the same but for their weights, can be
    numbered in several ways; the form is the smallest over all of them, so it does not depend on the edges.
    """
    output, convolutions = _expand(live)
    return min(_numbered(output, convolutions, order) for order in _orders(convolutions))


def _cost_order(live: Genes) -> tuple[tuple[int, ...], Genes]:
    return tuple(map(live.count, _BY_COST)), live


def _expand(live: Genes) -> tuple[list[Term], list[tuple[int, list[Term]]]]:
    """The output as terms, and each convolution as its kind and the terms of its input."""
    nodes: list[list[Term]] = [[(0, _INPUT)], [], [], []]
    convolutions: list[tuple[int, list[Term]]] = []
    for (source, target), gene in zip(EDGES, live, strict=True):
        match OPERATIONS[gene]:
            case "skip_connect":
                nodes[target] += nodes[source]
            case "avg_pool_3x3":
                nodes[target] += [(pooled + 1, atom) for pooled, atom in nodes[source]]
            case "nor_conv_1x1" | "nor_conv_3x3":
                nodes[target].append((0, len(convolutions)))
                convolutions.append((gene, nodes[source]))
    return nodes[-1], convolutions


def _orders(convolutions: Sequence[tuple[int, list[Term]]]) -> Iterator[tuple[int, ...]]:
    """The convolutions sorted by kind and expanded input, in every order of equal ones."""
    shapes: list[Any] = []
    for kind, inputs in convolutions:
        expanded = sorted((pooled, () if atom == _INPUT else shapes[atom]) for pooled, atom in inputs)
        shapes.append((kind, tuple(expanded)))
    by_shape = sorted(range(len(shapes)), key=shapes.__getitem__)
    twins = [list(group) for _, group in itertools.groupby(by_shape, key=shapes.__getitem__)]
    for arrangement in itertools.product(*map(itertools.permutations, twins)):
        yield tuple(itertools.chain.from_iterable(arrangement))


def _numbered(
    output: list[Term], convolutions: Sequence[tuple[int, list[Term]]], order: tuple[int, ...]
) -> tuple[object, ...]:
    number = {convolution: position for position, convolution in enumerate(order)}
    number[_INPUT] = _INPUT

    def renamed(terms: list[Term]) -> tuple[Term, ...]:
        return tuple(sorted((pooled, number[atom]) for pooled, atom in terms))

    return renamed(output), tuple((convolutions[c][0], renamed(convolutions[c][1])) for c in order)
