"""What of ppo-model and its zero-cost proxies earns the result in 3,000 simulated seconds of NAS-Bench-201.

Variants that are no options: the warm start alone, the features alone, and expected improvement, as it is or divided by
the true cost of an evaluation, in place of the upper confidence bound. Chosen by val12_cifar10, the reward, alone.

    python proxy_variants.py --seeds 100 --proxies results/nasbench201_proxies.csv.gz --out results/proxy_variants.json
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Row, arguments, write_rows
from scipy.stats import norm

from nas_engine.controllers.ppo_model import PPOModelController, PPOModelOptions
from nas_engine.proxies.base import ProxyScores
from nas_engine.scores import log_rank_scores
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


class ExpectedImprovement(PPOModelController):
    """Jones et al. 1998, equation 15, over the candidates of the bound, divided by a power of the true seconds."""

    power = 0.0

    def _candidates(self, imagined: list[Architecture], optimism: float) -> dict[Architecture, float]:
        # The policy learns from, and climbs follow, the upper confidence bound.
        return self._values(list(super()._candidates(imagined, optimism)))

    def _looked_at(self, bounds: dict[Architecture, float], optimism: float) -> dict[Architecture, float]:
        known = list(super()._looked_at(bounds, optimism))
        return self._values(known) if known else {}

    def _values(self, considered: list[Architecture]) -> dict[Architecture, float]:
        mean, deviation = self._predict(considered)
        best = log_rank_scores(np.array(list(self._seen.rewards.values()))).max()
        z = (mean - best) / deviation
        improvement = np.log(np.maximum(deviation * (z * norm.cdf(z) + norm.pdf(z)), 1e-300))
        assert isinstance(self.space, TableSpace)
        assert self.space.table.costs is not None
        rows = [self.space.row_of(architecture.genes) for architecture in considered]
        values = improvement - self.power * np.log(self.space.table.costs[rows])
        return dict(zip(considered, values.tolist(), strict=True))


class ImprovementPerSecond(ExpectedImprovement):
    """Expected improvement over the seconds that it costs."""

    power = 1.0


@dataclass(frozen=True)
class Variant(Method):
    """A controller that has no name."""

    make: Any = PPOModelController
    asked: tuple[str, ...] = ()
    weight: float = field(default=ensemble._PROXIES_WEIGHT)

    @property
    def proxies(self) -> tuple[str, ...]:
        """As given, not by the name."""
        return self.asked

    def build(self, space: SearchSpace, seed: int, proxies: ProxyScores | None = None) -> Any:
        """A fresh controller."""
        ensemble._PROXIES_WEIGHT = self.weight
        return self.make(space, PPOModelOptions(proxies=self.asked), seed, proxies)


_variant = partial(Variant, controller="ppo-model")
VARIANTS = (
    _variant("ppo-model"),
    _variant("A naswot,synflow", asked=TWO),
    _variant("B all three", asked=(*TWO, "grad_norm")),
    _variant("D A, random start", make=RandomStart, asked=TWO),
    _variant("E A, warm start only", asked=TWO, weight=1e-9),
    _variant("ei/cost^0.0", make=ExpectedImprovement),
    _variant("ei/cost^1.0", make=ImprovementPerSecond),
    _variant("A + ei/cost^0.0", make=ExpectedImprovement, asked=TWO),
    _variant("A + ei/cost^1.0", make=ImprovementPerSecond, asked=TWO),
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
