"""From the columns of a table that hold decisions to genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from nas_engine.errors import ConfigError, nearest_hint
from nas_engine.tables.description import DecisionColumns
from nas_engine.tables.reading import Column
from nas_engine.types import Decision

Genes = npt.NDArray[np.int16]
Texts = npt.NDArray[np.str_]
Rows = npt.NDArray[np.int64]
Choices = tuple[str, ...]

_MOST_CHOICES = 32_767  # genes are int16


def decode(
    columns: DecisionColumns, found: Mapping[str, Column], rows: Rows, source: str
) -> tuple[tuple[Decision, ...], Genes]:
    """The decisions of a table and their genes.

    Args:
        columns: where the decisions stand.
        found: the columns by name.
        rows: those that count, at least one.
        source: name of the table in errors.

    Returns:
        The decisions, and int16 [rows, decisions].

    Raises:
        ConfigError: a value is malformed or no choice, or names or choices do not fit the decisions.
    """
    if columns.column is None:
        names = columns.names or columns.columns
        parts = [np.asarray(found[name]).astype(str)[rows] for name in columns.columns]
    else:
        texts = np.asarray(found[columns.column]).astype(str)[rows]
        parts = _split(texts, columns, rows, source) if columns.separator else _digits(texts, columns, rows, source)
        names = columns.names or tuple(f"decision {number}" for number in range(len(parts)))
    if len(names) != len(parts) or len(set(names)) != len(names):
        raise ConfigError(f"decisions.names must be {len(parts)} different names, got {len(names)}: {', '.join(names)}")
    choices = _choices(columns, parts)
    genes = [_genes(*one, rows, source) for one in zip(parts, choices, names, strict=True)]
    return tuple(map(Decision, names, choices)), np.stack(genes, axis=1)


def _digits(texts: Texts, columns: DecisionColumns, rows: Rows, source: str) -> list[npt.NDArray[np.int64]]:
    count = len(columns.names) or len(texts[0])
    # The text as code points; a shorter text is padded with zeros, which are no digits.
    codes = np.ascontiguousarray(texts).view(np.uint32).reshape(len(texts), -1).astype(np.int64) - ord("0")
    bad: npt.NDArray[np.bool_]
    if codes.shape[1] == count:
        bad = np.any((codes < 0) | (codes > 9), axis=1)
    else:
        bad = np.array([len(text) != count for text in texts.tolist()])
    if bad.any():
        raise _malformed(texts, bad, f"{count} digits", columns, rows, source)
    return list(codes.T)


def _split(texts: Texts, columns: DecisionColumns, rows: Rows, source: str) -> list[Texts]:
    lists = [text.split(columns.separator) for text in texts.tolist()]
    count = len(columns.names) or len(lists[0])
    bad = np.array([len(parts) != count for parts in lists])
    if bad.any():
        raise _malformed(texts, bad, f"{count} parts separated by {columns.separator!r}", columns, rows, source)
    return list(np.array(lists).T)


def _malformed(
    texts: Texts, bad: npt.NDArray[np.bool_], wanted: str, columns: DecisionColumns, rows: Rows, source: str
) -> ConfigError:
    first = int(np.argmax(bad))
    return ConfigError(
        f"table {source!r}, row {rows[first] + 1}: {str(texts[first])!r} in column {columns.column!r} is not {wanted}"
    )


def _choices(columns: DecisionColumns, parts: Sequence[npt.NDArray[np.int64] | Texts]) -> list[Choices]:
    lists = [one for one in columns.choices if not isinstance(one, str)]
    names = [one for one in columns.choices if isinstance(one, str)]
    if lists and len(lists) != len(parts):
        raise ConfigError(f"decisions.choices must be one list, or one for each of {len(parts)} decisions")
    given = lists or [tuple(names)] * len(parts) if columns.choices else []
    for choices in given:
        if not choices or len(set(choices)) != len(choices):
            raise ConfigError(f"decisions.choices must be different names, at least one, got {list(choices)}")
    return given or [_found(part) for part in parts]


def _found(part: npt.NDArray[np.int64] | Texts) -> Choices:
    if part.dtype.kind == "i":
        return tuple(map(str, range(int(part.max()) + 1)))
    return tuple(sorted(set(part.tolist()), key=_by_number))


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def _genes(part: npt.NDArray[np.int64] | Texts, choices: Choices, name: str, rows: Rows, source: str) -> Genes:
    """Digits are indices of choices; texts are names of choices or, where none is, indices."""
    if len(choices) > _MOST_CHOICES:
        raise ConfigError(
            f"table {source!r}: decision {name!r} has {len(choices):,} choices, at most {_MOST_CHOICES:,} are "
            "possible: name another column"
        )
    values, places = np.unique(part, return_inverse=True)
    texts = [str(value) for value in values.tolist()]
    known = {choice: number for number, choice in enumerate(choices)}
    if part.dtype.kind == "i" or not any(text in known for text in texts):
        known = {str(number): number for number in range(len(choices))}
    genes = np.array([known.get(text, -1) for text in texts], dtype=np.int16)[places]
    if (genes < 0).any():
        first = int(np.argmax(genes < 0))
        text = str(part[first])
        raise ConfigError(
            f"table {source!r}, row {rows[first] + 1}: {text!r} is no choice of {name!r}: "
            f"{nearest_hint(text, choices)}, or throughout an index 0 to {len(choices) - 1}"
        )
    return genes
