"""What every benchmark shares: facts about the machine, repeated timing, and result rows as JSON and as a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict


class Row(TypedDict):
    """One measured number: `case` is what was measured, `variant` by which means, `unit` that of `value`."""

    case: str
    variant: str
    metric: str
    value: float
    unit: str


def make_row(case: str, variant: str, metric: str, value: float, unit: str) -> Row:
    """One row."""
    return {"case": case, "variant": variant, "metric": metric, "value": value, "unit": unit}


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the two options of every benchmark, ``--quick`` and ``--out``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer repeats and smaller cases, to see that it runs")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write the rows here")
    return parser


def machine_facts() -> dict[str, str | int]:
    """Processor, core count, Python, versions of what is timed, date (UTC) and commit."""
    import numpy
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def interleaved_seconds(variants: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Wall seconds of each variant, `repeats` times in turn, so that a busy moment of the machine hits all alike.

    One untimed round warms caches first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def rate_rows(case: str, seconds: Mapping[str, Sequence[float]], count: int, unit: str) -> list[Row]:
    """Median, slowest and fastest rate of each variant, where one call handles `count` things."""
    rows: list[Row] = []
    for variant, times in seconds.items():
        for metric, value in (("median", statistics.median(times)), ("slowest", max(times)), ("fastest", min(times))):
            rows.append(make_row(case, variant, metric, count / value, unit))
    return rows


def median_of(rows: Sequence[Row], case: str, variant: str) -> float:
    """The median that `rate_rows` wrote."""
    [value] = [r["value"] for r in rows if (r["case"], r["variant"], r["metric"]) == (case, variant, "median")]
    return value


def report_goal(label: str, value: float, goal: float, unit: str, *, at_most: bool = False) -> None:
    """Print a measured value beside its goal, a lower bound unless `at_most`."""
    reached = value <= goal if at_most else value >= goal
    bound = "at most" if at_most else "at least"
    print(f"goal {'reached' if reached else 'MISSED'}: {label}: {value:,.6g} {unit}, {bound} {goal:,.6g}")


def write_rows(rows: Sequence[Row], out: Path | None) -> None:
    """Print `rows` as a table and, where `out` is given, write ``{"machine": ..., "rows": [...]}`` to it."""
    widths = [max(len(str(row[key])) for row in rows) for key in ("case", "variant", "metric")]
    for row in rows:
        names = (row["case"], row["variant"], row["metric"])
        left = "  ".join(name.ljust(width) for name, width in zip(names, widths, strict=True))
        print(f"{left}  {row['value']:>16,.6g} {row['unit']}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"machine": machine_facts(), "rows": list(rows)}, indent=1) + "\n")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
