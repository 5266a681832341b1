"""What all seeds of a method add up to: one row of ``results.json`` and of the printed table."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from nas_engine.spaces.table import TableSpace
from nas_engine.suite.harness import Benchmark
from nas_engine.suite.run import SeedResult


def summarise(benchmark: Benchmark, space: TableSpace, results: Sequence[SeedResult]) -> dict[str, Any]:
    """Everything about a finished benchmark but the single seeds.

    Returns:
        ``rows``, one object a method (see `row`), and what they were measured on.
    """
    description, table = benchmark.description, space.table
    settings = description.model_dump(mode="json", exclude={"file", "joined", "published", "proxies"})
    return {
        "table": description.name,
        "rows_in_table": len(table),
        "distinct_architectures": space.distinct,
        "fingerprint": table.fingerprint,
        "reward": description.reward.column,
        "optimum": table.reward_of(space.optimum),
        "merge_isomorphic": description.merge_isomorphic,
        "budget": asdict(benchmark.budget),
        "methods": {method.label: method.settings for method in benchmark.methods},
        "description": settings,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "nas_engine": importlib.metadata.version("nas-engine"),
        "machine": f"{platform.machine()} {platform.system()}, Python {platform.python_version()}",
        "rows": [
            row(method.label, [r for r in results if r.method == method.label], description.reported)
            for method in benchmark.methods
        ],
    }


def row(method: str, results: Sequence[SeedResult], report: Sequence[str]) -> dict[str, Any]:
    """One method.

    Deviations are those of the seeds (divided by n). A seed that did not reach the optimum counts in
    ``evaluations_to_optimum_mean`` with all evaluations it made, so that the mean is a lower bound where the share is
    below 1; median and 95th percentile take it as infinite and are None where they are.

    Args:
        method: its label.
        results: all its seeds, at least one.
        report: names of the report columns.
    """
    reports = np.array([result.reports or [math.nan] * len(report) for result in results], dtype=np.float64)
    columns: dict[str, Any] = {}
    for name, values in zip(report, reports.T, strict=True):
        columns |= {f"mean_{name}": _plain(values.mean()), f"std_{name}": _plain(values.std())}
    reached = [r.evaluations_to_optimum for r in results if r.evaluations_to_optimum is not None]
    spent = [r.spent if r.evaluations_to_optimum is None else r.evaluations_to_optimum for r in results]
    order = sorted(reached) + [None] * (len(results) - len(reached))
    return {
        "method": method,
        "seeds": len(results),
        **columns,
        "mean_reward": statistics.fmean(r.reward for r in results),
        "evaluations_to_optimum_mean": statistics.fmean(spent),
        "evaluations_to_optimum_median": _quantile(order, 0.5),
        "evaluations_to_optimum_p95": _quantile(order, 0.95),
        "evaluations_to_optimum_share": len(reached) / len(results),
        "evaluations_mean": statistics.fmean(r.evaluations for r in results),
        "unique_evaluations_mean": statistics.fmean(r.unique_evaluations for r in results),
        "proxy_seconds_mean": statistics.fmean(r.proxy_seconds for r in results),
        "entropy_last_mean": _mean(r.entropy_last for r in results),
        "entropy_lowest": min((r.entropy_lowest for r in results if r.entropy_lowest is not None), default=None),
        "wall_seconds": sum(r.wall_seconds for r in results),
    }


def _quantile(order: Sequence[int | None], level: float) -> float | None:
    """The smallest value that at least `level` of all are at most; None where that one never came."""
    return order[max(0, math.ceil(level * len(order)) - 1)]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
