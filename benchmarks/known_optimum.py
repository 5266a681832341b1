"""How often and how soon each controller finds the best of 15,625 architectures, where the best is known.

Scores are drawn anew for each seed, so that nothing can be tuned to one optimum. ``separable``: the sum of one random
number for each decision and choice; ``noisy``: the same, and every evaluation adds Gaussian noise of 0.3 standard
deviations of the scores; ``pairwise``: random numbers for each pair of decisions too, about a quarter of the variance.
On ``blocks`` every gene sequence is an architecture of its own; on ``nasbench201`` (all 15,625 cells) those that
compute one function are one architecture, scored by its canonical genes: 5,044 in all.

Example: ``python benchmarks/known_optimum.py --seeds 100 --out benchmarks/results/known_optimum.json``
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import numpy.typing as npt
import torch
from record import Row, arguments, make_row, write_rows

from nas_engine.registry import resolve
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.testing.block_space import BlockSpace
from nas_engine.types import Architecture, ImageShape

EVALUATIONS = 300
BATCH = 10
NOISE = 0.3
PAIR_SCALE = 0.35
CASES = ("blocks separable", "blocks noisy", "blocks pairwise", "nasbench201 separable", "nasbench201 pairwise")
CONTROLLERS = ("ppo", "reinforce", "evolution", "local-search", "random")


@dataclass(frozen=True)
class Search:
    """One search of one seed: evaluations until the optimum was proposed (None: never), and the cost of learning.

    Attributes:
        found_after: from 1.
        entropy: nats a decision at the end; NaN where the controller has none.
        update_seconds: mean processor time of one update.
        propose_seconds: mean processor time of proposing one batch.
    """

    found_after: int | None
    entropy: float
    update_seconds: float
    propose_seconds: float


@cache
def _architectures(space_name: str) -> tuple[SearchSpace, list[Architecture]]:
    """The space and its canonical architectures."""
    options = NASBench201Options(allow_disconnected=True)
    space = BlockSpace() if space_name == "blocks" else NASBench201Space(ImageShape(1, 8, 8, 10), options)
    return space, sorted({space.canonical(a) for a in space}, key=lambda architecture: architecture.genes)


def _scores(
    space: SearchSpace, architectures: Sequence[Architecture], pairwise: bool, seed: int
) -> npt.NDArray[np.float64]:
    genes = np.array([architecture.genes for architecture in architectures])
    count, choices = genes.shape[1], len(space.decisions[0].choices)
    rng = np.random.default_rng([seed, 2024])
    scores: npt.NDArray[np.float64] = rng.normal(size=(count, choices))[np.arange(count), genes].sum(axis=1)
    if pairwise:
        tables = PAIR_SCALE * rng.normal(size=(count, count, choices, choices))
        for first in range(count):
            for second in range(first + 1, count):
                scores += tables[first, second, genes[:, first], genes[:, second]]
    return scores


def search(case: str, controller_name: str, seed: int) -> Search:
    """Spend the evaluations of one search."""
    space_name, kind = case.split()
    space, architectures = _architectures(space_name)
    scores = _scores(space, architectures, kind == "pairwise", seed)
    noise = NOISE * scores.std() if kind == "noisy" else 0.0
    number = {architecture: index for index, architecture in enumerate(architectures)}
    factory = resolve("controller", controller_name)
    controller = factory(space, factory.Options(), seed)
    rng = np.random.default_rng([seed, 7])
    proposed: list[int] = []
    entropy, proposing, updating = float("nan"), 0.0, 0.0
    for _ in range(EVALUATIONS // BATCH):
        start = time.process_time()
        batch = controller.propose(BATCH)
        middle = time.process_time()
        proposed += (found := [number[architecture] for architecture in batch])
        rewards = scores[found] + noise * rng.normal(size=BATCH)
        resumed = time.process_time()
        entropy = controller.update(batch, rewards.tolist()).get("entropy", entropy)
        proposing, updating = proposing + middle - start, updating + time.process_time() - resumed
    best = int(scores.argmax())
    steps = EVALUATIONS // BATCH
    found_after = proposed.index(best) + 1 if best in proposed else None
    return Search(found_after, entropy, updating / steps, proposing / steps)


def rows_of(case: str, controller: str, searches: Sequence[Search]) -> list[Row]:
    """Share of seeds that found the optimum, evaluations to it (missing ones count as one too many), final entropy."""
    needed = [result.found_after or EVALUATIONS + 1 for result in searches]
    found = sum(result.found_after is not None for result in searches)
    values = [
        ("found within 300", 100 * found / len(searches), "% of seeds"),
        ("evaluations to optimum, mean", float(np.mean(needed)), "evaluations"),
        ("evaluations to optimum, median", float(np.median(needed)), "evaluations"),
        ("evaluations to optimum, 95 %", float(np.quantile(needed, 0.95)), "evaluations"),
        ("entropy at the end, mean", float(np.mean([result.entropy for result in searches])), "nats a decision"),
        ("entropy at the end, lowest", float(np.min([result.entropy for result in searches])), "nats a decision"),
        (
            "processor time of an update, median",
            1e3 * float(np.median([result.update_seconds for result in searches])),
            "ms",
        ),
        (
            "processor time of proposing 10, median",
            1e3 * float(np.median([result.propose_seconds for result in searches])),
            "ms",
        ),
    ]
    return [make_row(case, controller, metric, value, unit) for metric, value, unit in values if np.isfinite(value)]


def main() -> None:
    """Run all cases and controllers."""
    parser = arguments("Share of seeds that find a known optimum within 300 evaluations.")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="seeds searched at once")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="what to search")
    parser.add_argument("--controllers", nargs="+", default=CONTROLLERS, help="names of the controllers")
    options = parser.parse_args()
    count = min(options.seeds, 4) if options.quick else options.seeds
    seeds = range(options.first_seed, options.first_seed + count)
    rows: list[Row] = []
    with ProcessPoolExecutor(options.processes, initializer=partial(torch.set_num_threads, 1)) as pool:
        for case in options.cases:
            for controller in options.controllers:
                searches = list(pool.map(partial(search, case, controller), seeds))
                rows += rows_of(case, controller, searches)
    write_rows(rows, options.out)


if __name__ == "__main__":
    main()
