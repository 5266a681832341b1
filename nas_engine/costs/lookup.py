"""Costs read from a table that someone measured: one row for each architecture, in CSV."""

from __future__ import annotations

import csv
import gzip
import logging
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TextIO

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field, field_validator

from nas_engine.errors import ConfigError, nearest_hint
from nas_engine.options import Options, located
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture

logger = logging.getLogger(__name__)

Row = Mapping[str, str]


class LookupOptions(Options):
    """Where the table is and what its columns mean."""

    path: Annotated[str, AfterValidator(located)] = Field(
        "", description="CSV file with a header line, .csv or .csv.gz"
    )
    columns: dict[str, str] = Field(
        {}, description="column of the file -> metric with its unit in the name, for example edge_ms: latency_ms"
    )
    key_column: str = Field("ops", description="column of the architecture: gene digits, key or text of the space")
    keys_path: Annotated[str, AfterValidator(located)] | None = Field(
        None, description="second CSV with index_column and key_column, for a table that only numbers architectures"
    )
    index_column: str = Field("idx", description="column that joins the two files; not used without keys_path")
    missing_value: float | None = Field(None, description="number that stands for 'not measured', for example -1")

    @field_validator("columns")
    @classmethod
    def _distinct_metrics(cls, columns: dict[str, str]) -> dict[str, str]:
        if len(set(columns.values())) < len(columns):
            raise ValueError("two columns give the same metric")
        return columns


class LookupCost:
    """Cost model over a table; an architecture without a row, or not measured in it, costs NaN.

    An architecture is looked up by its own genes and, where they have no row, in canonical form. Rows that describe
    no architecture of the space (a table may be of a larger one) are left out and logged.
    """

    Options = LookupOptions

    def __init__(self, space: SearchSpace, options: LookupOptions = LookupOptions()) -> None:
        """Read the table into memory.

        Args:
            space: whose architectures the rows describe.
            options: where the table is and what its columns mean.

        Raises:
            ConfigError: a file is missing or no CSV, a column does not exist, a cell is no number, no row is an
                architecture of `space`, or one has two rows that differ.
        """
        if not options.path or not options.columns:
            missing = "columns" if options.path else "path"
            raise ConfigError(
                f"cost 'lookup' needs {missing!r}: give a CSV file as path, and columns {{column: metric}}"
            )
        self.space = space
        self.options = options
        self._unknown = np.full(len(options.columns), np.nan)
        self._costs: dict[tuple[int, ...], npt.NDArray[np.float64]] = {}
        foreign: list[str] = []
        for where, key, row in self._keyed_rows():
            try:
                architecture = self._parse_key(key)
            except ConfigError as error:
                foreign.append(f"{where}: {error}")
            else:
                self._add(where, architecture, self._parse_costs(where, row))
        if not self._costs:
            raise ConfigError(f"no row is an architecture of {space.name!r}: {foreign[0] if foreign else options.path}")
        if foreign:
            logger.info("%d rows are outside the space %r, the first: %s", len(foreign), space.name, foreign[0])

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics in the order of the option `columns`."""
        return tuple(self.options.columns.values())

    def estimate(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """Costs as the table has them, float64 [n, metrics]; NaN where it has none."""
        return np.array([self._find(a) for a in architectures], dtype=np.float64).reshape(-1, len(self.names))

    def _find(self, architecture: Architecture) -> npt.NDArray[np.float64]:
        costs = self._costs.get(architecture.genes)
        return costs if costs is not None else self._costs.get(self.space.canonical(architecture).genes, self._unknown)

    def _keyed_rows(self) -> Iterator[tuple[str, str, Row]]:
        """(where it stands, for messages; text of the architecture; row) of each line of the table."""
        options = self.options
        if options.keys_path is None:
            for where, row in _read(options.path, [options.key_column, *options.columns]):
                yield where, row[options.key_column], row
            return
        names = [options.index_column, options.key_column]
        keys = {row[options.index_column]: row[options.key_column] for _, row in _read(options.keys_path, names)}
        for where, row in _read(options.path, [options.index_column, *options.columns]):
            index = row[options.index_column]
            if index not in keys:
                raise ConfigError(f"{where}: {options.index_column} {index!r} has no row in {options.keys_path!r}")
            yield where, keys[index], row

    def _parse_key(self, key: str) -> Architecture:
        if key.isdigit():
            return self.space.architecture([int(digit) for digit in key])
        return self.space.from_key(key) if key.startswith(f"{self.space.name}:") else self.space.decode(key)

    def _parse_costs(self, where: str, row: Row) -> npt.NDArray[np.float64]:
        costs = []
        for column in self.options.columns:
            try:
                value = float(row[column] or "nan")
            except ValueError:
                raise ConfigError(f"{where}: {column} is {row[column]!r}, which is no number") from None
            costs.append(math.nan if value == self.options.missing_value else value)
        return np.array(costs)

    def _add(self, where: str, architecture: Architecture, costs: npt.NDArray[np.float64]) -> None:
        known = self._costs.setdefault(architecture.genes, costs)
        if not np.array_equal(known, costs, equal_nan=True):
            values = f"{known.tolist()} instead of {costs.tolist()}"
            raise ConfigError(f"{where}: {architecture.key} has another row with {values}; remove one of them")


def _read(path: str, columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """The named columns of each line of a CSV file, with its place in it for messages."""
    try:
        with _open(path) as file:
            reader = csv.reader(file)
            header = next(reader, [])
            positions = {column: _position(path, header, column) for column in columns}
            for cells in reader:
                where = f"{path!r} line {reader.line_num}"
                if len(cells) != len(header):
                    raise ConfigError(f"{where} has {len(cells)} cells, the header {len(header)}: repair or remove it")
                yield where, {column: cells[position] for column, position in positions.items()}
    except FileNotFoundError as error:
        raise ConfigError(f"cost table {path!r} does not exist: name a .csv or .csv.gz file") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read cost table {path!r}: {' '.join(str(error).split())}") from error


def _open(path: str) -> TextIO:
    if path.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return Path(path).open(encoding="utf-8", newline="")


def _position(path: str, header: Sequence[str], column: str) -> int:
    if column not in header:
        raise ConfigError(f"{path!r} has no column {column!r}: {nearest_hint(column, header)}")
    return header.index(column)
