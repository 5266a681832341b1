"""A table in memory: compact arrays of the rows that a search may meet, in lexicographic order of their genes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_engine.errors import ConfigError
from nas_engine.tables.decisions import Genes, decode
from nas_engine.tables.description import TableDescription
from nas_engine.tables.reading import Column, numbers, read_columns
from nas_engine.types import Decision

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """Architectures with what is known about them.

    Attributes:
        description: where it came from.
        decisions: what the genes mean.
        genes: int16 [rows, decisions]; rows are distinct and in lexicographic order.
        rewards: [rows], higher is better: those of a reward that is to be minimised are negative here.
        reports: [rows, report columns], as in the file; NaN where there is none.
        costs: simulated seconds of an evaluation, [rows], or None where the table does not say.
        known: metrics known before an evaluation, [rows, metrics]; NaN where there is none.
        known_names: names of the metrics.
    """

    description: TableDescription
    decisions: tuple[Decision, ...]
    genes: Genes
    rewards: FloatArray
    reports: FloatArray
    costs: FloatArray | None
    known: FloatArray
    known_names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.genes)

    @property
    def name(self) -> str:
        """Name of the description."""
        return self.description.name

    @property
    def fingerprint(self) -> str:
        """Equal for equal genes, rewards, reports, costs and known metrics."""
        digest = hashlib.sha256()
        for array in (self.genes, self.rewards, self.reports, self.costs, self.known):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def reward_of(self, reward: float) -> float:
        """A reward as it stands in the file."""
        return reward if self.description.reward.direction == "max" else -reward


def load_table(description: TableDescription) -> Table:
    """Read and check a table.

    Raises:
        ConfigError: a file or column is missing, a value is malformed, two rows of equal genes differ, a reward is
            NaN, a cost is not positive, or no row is left.
    """
    source = Path(description.file).name
    limits = description.limits
    measured = dict.fromkeys([*description.known.values(), *(_column_of(description, c.metric) for c in limits)])
    columns = _read(description, list(measured))
    rows = _rows_that_count(description, columns)
    if not len(rows):
        raise ConfigError(f"table {source!r} is empty: no row" + _context_text(description))
    decisions, genes = decode(description.decisions, columns, rows, source)

    def column(name: str) -> FloatArray:
        return numbers(columns[name], name, source)[rows]

    metrics = {name: _with_gaps(column(name), description.missing) for name in measured}
    keep = np.ones(len(rows), dtype=bool)
    for limit in limits:
        keep &= limit.met(metrics[_column_of(description, limit.metric)])
    if not keep.any():
        raise ConfigError(f"no row of table {source!r} meets {' and '.join(map(str, limits))}: loosen a limit")
    table = Table(
        description=description,
        decisions=decisions,
        genes=genes,
        rewards=column(description.reward.column) * (1.0 if description.reward.direction == "max" else -1.0),
        reports=np.stack([column(name) for name in description.reported], axis=1),
        costs=None if description.cost is None else column(description.cost),
        known=np.stack([*(metrics[c] for c in description.known.values()), np.empty(len(rows))], axis=1)[:, :-1],
        known_names=tuple(description.known),
    )
    table, origin = _without_duplicates(*_sorted(table, np.flatnonzero(keep), rows), source)
    _refuse_bad_values(table, origin, source)
    return table


def _column_of(description: TableDescription, metric: str) -> str:
    return description.known.get(metric, metric)


def _context_text(description: TableDescription) -> str:
    context = description.context
    return "" if context is None else f" has {context.value!r} in column {context.column!r}"


def _with_gaps(column: FloatArray, missing: float | None) -> FloatArray:
    return column if missing is None else np.where(column == missing, np.nan, column)


def _read(description: TableDescription, measured: Sequence[str]) -> dict[str, Column]:
    decisions, context, joined = description.decisions, description.context, description.joined
    names = [*decisions.columns, *((decisions.column,) if decisions.column is not None else ())]
    names += [description.reward.column, *description.reported]
    names += [name for name in (description.cost, context and context.column) if name]
    if joined is None:
        return read_columns(Path(description.file), [*names, *measured])
    # A metric stands in whichever of the two files has it.
    columns = read_columns(Path(description.file), [*names, joined.index], optional=measured)
    rest = [name for name in measured if name not in columns]
    if not rest:
        return columns
    more = read_columns(Path(joined.file), [joined.index, *rest])
    order = _order(columns[joined.index], more.pop(joined.index), joined.index, Path(joined.file).name)
    return {**columns, **{name: np.asarray(column)[order] for name, column in more.items()}}


def _order(index: Column, other: Column, name: str, source: str) -> npt.NDArray[np.int64]:
    """Where each value of `index` stands in `other`."""
    keys, others = np.asarray(index).astype(str), np.asarray(other).astype(str)
    if np.array_equal(keys, others) and len(np.unique(keys)) == len(keys):
        return np.arange(len(keys))
    places = {value: place for place, value in enumerate(others.tolist())}
    if len(places) < len(others):
        raise ConfigError(f"column {name!r} of table {source!r} holds a value twice: it cannot be joined on")
    found = [places.get(value, -1) for value in keys.tolist()]
    if -1 in found:
        raise ConfigError(f"table {source!r} has no row whose {name!r} is {str(keys[found.index(-1)])!r}")
    return np.array(found, dtype=np.int64)


def _rows_that_count(description: TableDescription, columns: dict[str, Column]) -> npt.NDArray[np.int64]:
    context = description.context
    if context is None:
        return np.arange(len(next(iter(columns.values()))))
    return np.array([row for row, value in enumerate(columns[context.column]) if str(value) == context.value], np.int64)


def _sorted(table: Table, kept: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> tuple[Table, npt.NDArray[Any]]:
    """The kept rows in lexicographic order of their genes, and where they came from."""
    order = kept[np.lexsort(table.genes[kept].T[::-1])]
    return _taken(table, order), rows[order]


def _taken(table: Table, rows: npt.NDArray[Any]) -> Table:
    return replace(
        table,
        genes=table.genes[rows],
        rewards=table.rewards[rows],
        reports=table.reports[rows],
        costs=None if table.costs is None else table.costs[rows],
        known=table.known[rows],
    )


def _without_duplicates(table: Table, rows: npt.NDArray[Any], source: str) -> tuple[Table, npt.NDArray[Any]]:
    """One row of each run of equal ones.

    Raises:
        ConfigError: two rows with the same genes say different things.
    """
    same = (table.genes[1:] == table.genes[:-1]).all(axis=1)
    values = [
        table.rewards[:, None],
        table.reports,
        table.known,
        *([] if table.costs is None else [table.costs[:, None]]),
    ]
    differ = np.any([(_differ(a)).any(axis=1) for a in values], axis=0) & same
    if differ.any():
        first = int(np.argmax(differ))
        text = "-".join(map(str, table.genes[first]))
        pair = sorted((rows[first] + 1, rows[first + 1] + 1))
        raise ConfigError(
            f"table {source!r}: rows {pair[0]} and {pair[1]} are the same architecture ({text}) with different values; "
            "keep one of them, or name a 'context' that tells them apart"
        )
    distinct = np.flatnonzero(np.concatenate([[True], ~same]))
    return _taken(table, distinct), rows[distinct]


def _differ(values: FloatArray) -> npt.NDArray[np.bool_]:
    unequal: npt.NDArray[np.bool_] = values[1:] != values[:-1]
    return unequal & ~(np.isnan(values[1:]) & np.isnan(values[:-1]))


def _refuse_bad_values(table: Table, rows: npt.NDArray[Any], source: str) -> None:
    bad = ~np.isfinite(table.rewards)
    if bad.any():
        raise ConfigError(
            f"table {source!r}, row {rows[int(np.argmax(bad))] + 1}: the reward {table.description.reward.column!r} is "
            f"no finite number ({int(bad.sum())} such rows): remove them, or exclude them by 'valid'"
        )
    if table.costs is not None:
        bad = ~(np.isfinite(table.costs) & (table.costs > 0))
        if bad.any():
            row = int(np.argmax(bad))
            raise ConfigError(
                f"table {source!r}, row {rows[row] + 1}: the cost {table.description.cost!r} is {table.costs[row]}, "
                "which is no positive number of seconds"
            )
