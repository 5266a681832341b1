"""What of ppo-model, its reward model and its zero-cost proxies earns the results on NAS-Bench-201.

Among them what is no option: parts of the kernel left out or weighted otherwise, proxies of which nothing is expected
beforehand, that are hidden from the model or turned upside down, a random start, and expected improvement divided by
the true cost of an evaluation. Settings are chosen by val12_cifar10, the reward, alone, and on seeds that no reported
result uses.

    python model_variants.py --seeds 200 --proxies results/nasbench201_proxies.csv.gz --out results/model_variants.json
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Row, arguments, make_row, write_rows

from nas_engine.controllers.ppo_model import Candidates, PPOModelController, PPOModelOptions
from nas_engine.proxies.base import ProxyScores
from nas_engine.scores import FloatArray
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.table import TableSpace
from nas_engine.suite.methods import Method
from nas_engine.suite.run import Budget, SeedResult, run_block
from nas_engine.surrogates import ensemble
from nas_engine.tables.description import load_description
from nas_engine.tables.table import load_table
from nas_engine.types import Architecture

TWO = ("naswot", "synflow")


class RandomStart(PPOModelController):
    """Proxies are features, and nothing else."""

    def _best_by_proxies(self) -> Architecture | None:
        return None


class UpsideDown(PPOModelController):
    """Proxies that say the opposite of what they said."""

    def __init__(self, space: SearchSpace, options: PPOModelOptions, seed: int, proxies: ProxyScores) -> None:
        """As the controller, with the negatives of `proxies`."""
        super().__init__(space, options, seed, Negative(proxies))


class Negative:
    """The values of other proxies, times -1."""

    def __init__(self, proxies: ProxyScores) -> None:
        """Of `proxies`, which go on counting seconds."""
        self.names, self.seconds = proxies.names, proxies.seconds
        self._proxies = proxies

    def __call__(self, architectures: Sequence[Architecture]) -> FloatArray:
        """Values [n, proxies]."""
        values: FloatArray = -self._proxies(architectures)
        self.seconds = self._proxies.seconds
        return values


class ImprovementPerSecond(PPOModelController):
    """Expected improvement (`acquisition: ei`) over the true seconds that it costs."""

    def _acquisition(self, candidates: Candidates, optimism: float) -> FloatArray:
        assert isinstance(self.space, TableSpace)
        assert self.space.table.costs is not None
        rows = self.space.rows_of(self.space.genes(candidates.architectures))
        improvement: FloatArray = super()._acquisition(candidates, optimism) - np.log(self.space.table.costs[rows])
        return improvement


@dataclass(frozen=True)
class Variant(Method):
    """A controller that has no name."""

    make: Any = PPOModelController
    asked: tuple[str, ...] = ()
    chosen: Mapping[str, Any] = field(default_factory=dict)  # options that are not the default
    weights: Mapping[str, float] = field(default_factory=dict)  # constants of the reward model, by name

    @property
    def proxies(self) -> tuple[str, ...]:
        """As given, not by the name."""
        return self.asked

    def build(self, space: SearchSpace, seed: int, proxies: ProxyScores | None = None) -> Any:
        """A fresh controller."""
        return self.make(space, PPOModelOptions(proxies=self.asked, **self.chosen), seed, proxies)


_variant = partial(Variant, controller="ppo-model")
_with_proxies = partial(_variant, asked=TWO)
_EI, _EI_PER_SECOND = {"acquisition": "ei"}, {"acquisition": "ei_per_second"}
VARIANTS = (
    _variant("ppo-model"),
    _variant("no linear part", weights={"_LINEAR_WEIGHT": 0.0}),
    _variant("no near features", weights={"_SUMMARY_WEIGHT": 0.0}),
    _variant("no genes", weights={"_GENES_WEIGHT": 0.0}),
    _variant("noise 0.02", weights={"_NOISE": 0.02}),
    _variant("ei", chosen=_EI),
    _variant("ei per second", make=ImprovementPerSecond, chosen=_EI),
    _variant("ei per expected second", chosen=_EI_PER_SECOND),
    _with_proxies("naswot,synflow"),
    _variant("all three proxies", asked=(*TWO, "grad_norm")),
    _with_proxies("naswot,synflow, nothing expected of them", weights={"_PROXIES_SLOPE": 0.0}),
    _with_proxies("naswot,synflow, hidden from the model", weights={"_PROXIES_SLOPE": 0.0, "_PROXIES_WEIGHT": 1e-9}),
    _with_proxies("naswot,synflow, upside down", make=UpsideDown),
    _with_proxies("naswot,synflow, random start", make=RandomStart),
    _with_proxies("naswot,synflow, three first", chosen={"random_first": 3}),
    _with_proxies("naswot,synflow, optimism 1, 2, 4", chosen={"optimism": [1.0, 2.0, 4.0]}),
    _with_proxies("naswot,synflow, pool of 200", chosen={"proxy_pool": 200}),
    _with_proxies("naswot,synflow, ei", chosen=_EI),
    _with_proxies("naswot,synflow, ei per expected second", chosen=_EI_PER_SECOND),
)
BUDGETS = {"3,000 s": Budget(seconds=3_000), "until the optimum": Budget(until_optimum=True, cap=200)}
_FIRST_SEED = 10_000


@contextmanager
def weights_of(variant: Variant) -> Iterator[None]:
    """The reward model as `variant` has it."""
    before = {name: getattr(ensemble, name) for name in variant.weights}
    try:
        for name, value in variant.weights.items():
            setattr(ensemble, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(ensemble, name, value)


@cache
def space_of(proxies: Path) -> TableSpace:
    """The table with its proxies, loaded once a process."""
    return TableSpace(load_table(load_description("nasbench201", proxies=proxies)))


def results_of(proxies: Path, number: int, budget: str, seeds: range) -> list[SeedResult]:
    """Some seeds of a variant, in this process."""
    torch.set_num_threads(1)
    with weights_of(VARIANTS[number]):
        return run_block(space_of(proxies), VARIANTS[number], seeds, BUDGETS[budget])


def rows_of(variant: str, budget: str, results: Sequence[SeedResult]) -> list[Row]:
    """Means and standard errors, over all seeds."""
    reached = [result.evaluations_to_optimum for result in results]
    columns = {"share at the optimum": [float(at is not None) for at in reached]}
    if BUDGETS[budget].until_optimum:
        columns["evaluations to it, 200 at most"] = [float(at or 200) for at in reached]
    else:
        columns["reward"] = [result.reward for result in results]
    rows: list[Row] = []
    for name, values in columns.items():
        error = float(np.std(values) / len(values) ** 0.5)
        for metric, value in (("mean", float(np.mean(values))), ("standard error", error)):
            rows.append(make_row(f"{budget}: {name}", variant, metric, value, ""))
    return rows


def main() -> None:
    """Run all variants and write means and standard errors."""
    parser = arguments(__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--proxies", type=Path, required=True, help="what zero_cost_proxies.py wrote")
    options = parser.parse_args()
    count = 4 if options.quick else options.seeds
    shares = [range(_FIRST_SEED + start, _FIRST_SEED + count, 8) for start in range(min(8, count))]
    rows: list[Row] = []
    with get_context("spawn").Pool() as pool:
        for number, variant in enumerate(VARIANTS):
            for budget in BUDGETS:
                tasks = [(options.proxies, number, budget, share) for share in shares]
                found = [result for part in pool.starmap(results_of, tasks, chunksize=1) for result in part]
                rows += rows_of(variant.label, budget, found)
    write_rows(rows, options.out)


if __name__ == "__main__":
    main()
