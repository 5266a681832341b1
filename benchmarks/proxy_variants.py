"""What of ppo-model and its zero-cost proxies earns the result in 3,000 simulated seconds of NAS-Bench-201.

Variants that are no options: the warm start alone, the features alone, and expected improvement divided by the true
cost of an evaluation. Chosen by val12_cifar10, the reward, alone.

    python proxy_variants.py --seeds 100 --proxies results/nasbench201_proxies.csv.gz --out results/proxy_variants.json
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
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
from nas_engine.suite.run import Budget, run_seed
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
    weight: float = field(default=ensemble._PROXIES_WEIGHT)

    @property
    def proxies(self) -> tuple[str, ...]:
        """As given, not by the name."""
        return self.asked

    def build(self, space: SearchSpace, seed: int, proxies: ProxyScores | None = None) -> Any:
        """A fresh controller."""
        ensemble._PROXIES_WEIGHT = self.weight
        return self.make(space, PPOModelOptions(proxies=self.asked, acquisition=self.acquisition), seed, proxies)


_variant = partial(Variant, controller="ppo-model")
VARIANTS = (
    _variant("ppo-model"),
    _variant("A naswot,synflow", asked=TWO),
    _variant("B all three", asked=(*TWO, "grad_norm")),
    _variant("D A, random start", make=RandomStart, asked=TWO),
    _variant("E A, warm start only", asked=TWO, weight=1e-9),
    _variant("ei", acquisition="ei"),
    _variant("ei per second", make=ImprovementPerSecond, acquisition="ei"),
    _variant("ei per expected second", acquisition="ei_per_second"),
    _variant("A + ei", asked=TWO, acquisition="ei"),
    _variant("A + ei per second", make=ImprovementPerSecond, asked=TWO, acquisition="ei"),
    _variant("A + ei per expected second", asked=TWO, acquisition="ei_per_second"),
)


def main() -> None:
    """Run all variants and write means and standard errors."""
    parser = arguments(__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--proxies", type=Path, help="what zero_cost_proxies.py wrote")
    options = parser.parse_args()
    torch.set_num_threads(1)
    space = TableSpace(load_table(load_description("nasbench201", proxies=options.proxies)))
    rows: list[Row] = []
    for variant in VARIANTS:
        seeds = range(2 if options.quick else options.seeds)
        results = [run_seed(space, variant, seed, Budget(seconds=3_000)) for seed in seeds]
        reached = [float(result.evaluations_to_optimum is not None) for result in results]
        columns = {"reward": [result.reward for result in results], "share at the optimum": reached}
        for name, values in columns.items():
            error = float(np.std(values) / len(values) ** 0.5)
            for metric, value in (("mean", float(np.mean(values))), ("standard error", error)):
                rows.append({"case": name, "variant": variant.label, "metric": metric, "value": value, "unit": ""})
    write_rows(rows, options.out)


if __name__ == "__main__":
    main()
