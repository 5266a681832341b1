"""The printed table of a benchmark, with published results beside one's own."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_engine.errors import ConfigError, nearest_hint
from nas_engine.tables.description import Published

_TOO_MANY = "cells without a column"


def read_published(published: Published) -> list[dict[str, Any]]:
    """Results of others in the form of our rows, with ``budget`` and ``source``.

    Raises:
        ConfigError: the file cannot be read or lacks a column.
    """
    path = Path(published.file)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, restkey=_TOO_MANY, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read published results {str(path)!r} ({error}): name a CSV file") from error
    for number, row in enumerate(rows, start=1):
        if _TOO_MANY in row:
            raise ConfigError(f"{path.name!r}, row {number}: more cells than the header has; repair or remove it")
    needed = [published.method, *(name for pair in published.columns.values() for name in pair)]
    needed += [name for name in (published.seconds, published.source) if name]
    for name in needed:
        if not rows or name not in rows[0]:
            raise ConfigError(f"{path.name!r} has no column {name!r}: {nearest_hint(name, rows[0] if rows else [])}")
    return [_published_row(published, row, path.name) for row in rows]


def _published_row(published: Published, row: Mapping[str, str], file: str) -> dict[str, Any]:
    found: dict[str, Any] = {"method": row[published.method]}
    for column, (mean, deviation) in published.columns.items():
        found[f"mean_{column}"] = _number(row[mean], mean, file)
        found[f"std_{column}"] = _number(row[deviation], deviation, file)
    found["budget"] = _number(row[published.seconds], published.seconds, file) if published.seconds else None
    found["source"] = row[published.source] if published.source else ""
    return found


def _number(text: str, column: str, file: str) -> float | None:
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise ConfigError(f"{file!r}: {text!r} in column {column!r} is no number") from None


def render(
    rows: Sequence[Mapping[str, Any]], report: Sequence[str], published: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The Markdown table.

    Args:
        rows: as `nas_engine.suite.summary.row` makes them.
        report: names of the report columns.
        published: rows of `read_published`.
    """
    head = ["method", *report, "to optimum: mean", "median", "p95", "reached", "evaluations", "unique", "seconds here"]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    lines += [_line(_own_cells(row, report)) for row in rows]
    if published:
        lines.append(_line(["*published*", *[""] * (len(head) - 1)]))
        lines += [_line([*_published_cells(row, report), *[""] * 7]) for row in published]
    return "\n".join(lines)


def _own_cells(row: Mapping[str, Any], report: Sequence[str]) -> list[str]:
    share = row["evaluations_to_optimum_share"]
    bound = "" if share == 1 else "≥ "
    return [
        row["method"],
        *(_mean_and_deviation(row, name) for name in report),
        f"{bound}{row['evaluations_to_optimum_mean']:.1f}",
        *(_count(row[f"evaluations_to_optimum_{name}"]) for name in ("median", "p95")),
        f"{share:.1%}",
        f"{row['evaluations_mean']:.1f}",
        f"{row['unique_evaluations_mean']:.1f}",
        f"{row['wall_seconds']:.1f}",
    ]


def _published_cells(row: Mapping[str, Any], report: Sequence[str]) -> list[str]:
    budget = "" if row["budget"] is None else f", {row['budget']:,.0f} s"
    source = f" ({row['source']})" if row["source"] else ""
    return [f"{row['method']}{budget}{source}", *(_mean_and_deviation(row, name) for name in report)]


def _mean_and_deviation(row: Mapping[str, Any], name: str) -> str:
    mean, deviation = row.get(f"mean_{name}"), row.get(f"std_{name}")
    if mean is None:
        return ""
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
