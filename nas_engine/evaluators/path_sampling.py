"""Which paths of a supernet are trained on one batch: uniform, fair or sandwich sampling."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from nas_engine.nn.supernet import Supernet
from nas_engine.spaces.diagram import DecisionDiagram

Path = tuple[int, ...]
PathSampler = Callable[[np.random.Generator], list[Path]]
"""Random generator -> genes of the paths whose gradients are averaged in one optimiser step."""


def uniform_paths(diagram: DecisionDiagram, count: int, rng: np.random.Generator) -> list[Path]:
    """`count` paths drawn independently and uniformly from all valid ones.

    Guo et al. 2020, "Single Path One-Shot Neural Architecture Search with Uniform Sampling", section 3.3.
    """
    return diagram.samples(rng, count)


def sandwich_paths(
    diagram: DecisionDiagram, largest: Path, smallest: Path, count: int, rng: np.random.Generator
) -> list[Path]:
    """The largest path, the smallest, and `count` - 2 random ones.

    Yu & Huang 2019, "Universally Slimmable Networks and Improved Training Techniques", section 3.2.
    """
    return [largest, smallest, *uniform_paths(diagram, count - 2, rng)]


def fair_paths(diagram: DecisionDiagram, rng: np.random.Generator) -> list[Path]:
    """As many paths as the largest decision has choices; together they hold each choice of each decision once.

    Chu et al. 2021, "FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search", section
    3.2 (strict fairness). Where the paper's setting does not hold:

    - A decision with fewer choices repeats them as evenly as possible: counts differ by at most one.
    - Rules of the space: choices are dealt to the unfinished paths by a random assignment that breaks as few rules as
      possible at this decision; a path that is still dealt a forbidden choice takes a random allowed one instead.
    """
    count = max(diagram.choices)
    states = np.zeros(count, dtype=np.int64)
    columns = []
    for choices in diagram.choices:
        genes = _dealt(_evenly(choices, count, rng), diagram.allowed[states, :choices], rng)
        states = diagram.transitions[states, genes].astype(np.int64)
        columns.append(genes)
    return [tuple(int(gene) for gene in path) for path in zip(*columns, strict=True)]


def path_sampler(name: str, diagram: DecisionDiagram, supernet: Supernet, paths_per_step: int) -> PathSampler:
    """The sampler called `name` (``uniform``, ``fair`` or ``sandwich``) for one space.

    Args:
        name: the strategy.
        diagram: the valid paths.
        supernet: knows its largest and smallest path.
        paths_per_step: paths of one step; ``fair`` has its own number, ``sandwich`` at least 2.
    """
    if name == "fair":
        return partial(fair_paths, diagram)
    if name == "sandwich":
        return partial(sandwich_paths, diagram, supernet.largest(), supernet.smallest(), max(2, paths_per_step))
    return partial(uniform_paths, diagram, paths_per_step)


def _evenly(choices: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    rounds = [rng.permutation(choices) for _ in range(-(-count // choices))]
    return np.concatenate(rounds)[:count]


def _dealt(
    genes: npt.NDArray[np.int64], allowed: npt.NDArray[np.bool_], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    # Random costs below 1 make the cheapest assignment a random one; a broken rule costs more than all of them.
    cost = rng.random((len(genes), len(genes))) + len(genes) * ~allowed[:, genes]
    dealt: npt.NDArray[np.int64] = genes[linear_sum_assignment(cost)[1]]
    for path in np.flatnonzero(~allowed[np.arange(len(genes)), dealt]):
        dealt[path] = rng.choice(np.flatnonzero(allowed[path]))
    return dealt
