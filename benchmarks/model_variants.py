"""What of ppo-model, its reward model and its zero-cost proxies earns the results on NAS-Bench-201.

Among them what is no option: parts of the kernel left out or weighted otherwise, proxies that choose the start and the
candidates but are hidden from the model, a random start, and expected improvement divided by the true cost of an
evaluation. Settings are chosen by val12_cifar10, the reward, alone, and on seeds that no reported result uses.

    python model_variants.py --seeds 200 --proxies results/nasbench201_proxies.csv.gz --out results/model_variants.json
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from record import Row, arguments, write_rows

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
    acquisition: Literal["ucb", "ei", "ei_per_second"] = "ucb"
    weights: Mapping[str, float] = field(default_factory=dict)  # constants of the reward model, by name

    @property
    def proxies(self) -> tuple[str, ...]:
        """As given, not by the name."""
        return self.asked

    def build(self, space: SearchSpace, seed: int, proxies: ProxyScores | None = None) -> Any:
        """A fresh controller."""
        return self.make(space, PPOModelOptions(proxies=self.asked, acquisition=self.acquisition), seed, proxies)


_variant = partial(Variant, controller="ppo-model")
VARIANTS = (
    _variant("ppo-model"),
    _variant("no linear part", weights={"_LINEAR_WEIGHT": 0.0}),
    _variant("half the linear part", weights={"_LINEAR_WEIGHT": 0.5}),
    _variant("twice the linear part", weights={"_LINEAR_WEIGHT": 2.0}),
    _variant("no near features", weights={"_SUMMARY_WEIGHT": 0.0}),
    _variant("no paths", weights={"_PATHS_WEIGHT": 0.0}),
    _variant("no genes", weights={"_GENES_WEIGHT": 0.0}),
    _variant("noise 0.02", weights={"_NOISE": 0.02}),
    _variant("ei", acquisition="ei"),
    _variant("ei per second", make=ImprovementPerSecond, acquisition="ei"),
    _variant("ei per expected second", acquisition="ei_per_second"),
    _variant("naswot,synflow", asked=TWO),
    _variant("all three proxies", asked=(*TWO, "grad_norm")),
    _variant("naswot,synflow, random start", make=RandomStart, asked=TWO),
    _variant("naswot,synflow, hidden from the model", asked=TWO, weights={"_PROXIES_WEIGHT": 1e-9}),
    _variant("naswot,synflow, ei", asked=TWO, acquisition="ei"),
    _variant("naswot,synflow, ei per second", make=ImprovementPerSecond, asked=TWO, acquisition="ei"),
    _variant("naswot,synflow, ei per expected second", asked=TWO, acquisition="ei_per_second"),
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


def results_of(proxies: Path, number: int, budget: str, seeds: range) -> list[SeedResult]:
    """Some seeds of a variant, in this process."""
    torch.set_num_threads(1)
    space = TableSpace(load_table(load_description("nasbench201", proxies=proxies)))
    with weights_of(VARIANTS[number]):
        return run_block(space, VARIANTS[number], seeds, BUDGETS[budget])


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
            row: Row = {"case": f"{budget}: {name}", "variant": variant, "metric": metric, "value": value, "unit": ""}
            rows.append(row)
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
