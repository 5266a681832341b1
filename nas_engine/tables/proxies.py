"""Zero-cost proxies of the rows of a table: a second file with the same decisions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas_engine.errors import ConfigError
from nas_engine.tables.decisions import decode
from nas_engine.tables.description import DATA_VARIABLE, ProxyColumns
from nas_engine.tables.reading import numbers, read_columns
from nas_engine.tables.table import Table

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TableProxies:
    """Proxies of all rows of a table.

    Attributes:
        names: of the proxies.
        values: [rows, proxies], higher is better; NaN where there is none.
        seconds: what computing each takes, [rows, proxies].
    """

    names: tuple[str, ...]
    values: FloatArray
    seconds: FloatArray

    @property
    def fingerprint(self) -> str:
        """Equal for equal values and seconds."""
        return hashlib.sha256(self.values.tobytes() + self.seconds.tobytes()).hexdigest()[:16]


def load_proxies(table: Table) -> TableProxies:
    """Read the proxies that the description of a table names; rows that their file lacks have none.

    Raises:
        ConfigError: the description names none, the file is nowhere or malformed, no row of it is one of the table, or
            a time is negative or unknown.
    """
    described = table.description.proxies
    if described is None:
        raise ConfigError(
            f"table {table.name!r} has no zero-cost proxies: add 'proxies' with 'file' and 'columns' to its "
            "description, or leave out the option 'proxies'"
        )
    if not Path(described.file).is_file():
        raise ConfigError(
            f"the zero-cost proxies of table {table.name!r} are in {described.file!r}, which was not found: give it "
            f"with --proxies, or put it beside the table or into the folder {DATA_VARIABLE}"
        )
    return _aligned(table, described)


def _aligned(table: Table, described: ProxyColumns) -> TableProxies:
    columns = table.description.decisions.model_copy(
        update={
            "names": tuple(decision.name for decision in table.decisions),
            "choices": tuple(decision.choices for decision in table.decisions),
        }
    )
    source, names = Path(described.file), tuple(described.columns)
    keys = columns.columns if columns.column is None else (columns.column,)
    found = read_columns(source, [*keys, *described.columns.values(), *described.seconds.values()])
    everything = np.arange(len(found[keys[0]]))
    genes = decode(columns, found, everything, source.name)[1] if len(everything) else table.genes[:0]
    places = {key: place for place, key in enumerate(map(tuple, genes.tolist()))}
    order = np.array([places.get(key, -1) for key in map(tuple, table.genes.tolist())], dtype=np.int64)
    if (order < 0).all():
        raise ConfigError(f"no row of {source.name!r} is an architecture of table {table.name!r}: name another file")

    def column(name: str | None, absent: float) -> FloatArray:
        if name is None:
            return np.full(len(order), absent)
        return np.where(order >= 0, numbers(found[name], name, source.name)[order], absent)

    values = np.stack([column(name, np.nan) for name in described.columns.values()], axis=1)
    seconds = np.stack([column(described.seconds.get(name), 0.0) for name in names], axis=1)
    if not (np.isfinite(seconds) & (seconds >= 0)).all():
        row = int(order[np.argmax(~(np.isfinite(seconds) & (seconds >= 0)).all(axis=1))])
        raise ConfigError(f"table {source.name!r}, row {row + 1}: the seconds of a proxy are negative or unknown")
    return TableProxies(names, values, seconds)
