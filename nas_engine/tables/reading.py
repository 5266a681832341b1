"""Columns of a table file: CSV, TSV, JSONL, JSON, NPZ or pickle, packed by gzip or not; only those that are needed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_engine.data.safe_pickle import load_plain_pickle
from nas_engine.errors import ConfigError, nearest_hint

KEY = "$key"
"""The name of the column that holds the keys, where a JSON file is a mapping from keys to rows."""

ROW = "$row"
"""The name of the column that holds the number of each row, from 0."""

Column = Sequence[Any] | npt.NDArray[Any]
Reader = Callable[[bytes, Sequence[str]], Mapping[str, Column]]


class _NoColumn(Exception):
    def __init__(self, name: str, available: Iterable[str]) -> None:
        self.name, self.available = name, list(available)


def read_columns(path: Path, names: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Column]:
    """Read some columns of a table, as they stand in the file.

    Args:
        path: a file ending in .csv, .tsv, .jsonl, .json, .npz or .pickle, and perhaps .gz after that.
        names: columns; dotted paths into nested JSON (``test_acc.0``), into arrays of an NPZ of two dimensions, and to
            the lists of a pickle (``nasbench201.cifar10.edgegpu_latency`` in the file of HW-NAS-Bench).
        optional: more columns, which may be absent.

    Returns:
        The columns by name, all of one length.

    Raises:
        ConfigError: the file cannot be read, or a column is missing.
    """
    named = list(dict.fromkeys(names))
    wanted = [name for name in named if name != ROW]
    extra = [name for name in dict.fromkeys(optional) if name not in named]
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    reader = _READERS.get(suffixes[-1] if suffixes else "")
    if reader is None:
        raise ConfigError(
            f"table file {str(path)!r} must end in one of {', '.join(_READERS)}, and may be packed as .gz"
        )
    try:
        content = path.read_bytes()
        columns = _read(reader, gzip.decompress(content) if path.suffix == ".gz" else content, wanted, extra)
    except _NoColumn as error:
        raise ConfigError(
            f"table {path.name!r} has no column {error.name!r}: {nearest_hint(error.name, error.available)}"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot read table {str(path)!r} ({error.strerror or error}): name an existing file"
        ) from error
    except (EOFError, zlib.error, zipfile.BadZipFile, ValueError, csv.Error) as error:
        raise ConfigError(f"table {str(path)!r} is damaged or no {suffixes[-1]} file: {_one_line(error)}") from error
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"columns of table {path.name!r} differ in length: {lengths}")
    if ROW in named:
        columns[ROW] = np.arange(next(iter(lengths.values()), 0))
    return columns


def _read(reader: Reader, content: bytes, wanted: list[str], extra: list[str]) -> dict[str, Column]:
    while True:
        try:
            return dict(reader(content, [*wanted, *extra]))
        except _NoColumn as error:
            if error.name not in extra:
                raise
            extra = [name for name in extra if name != error.name]


def numbers(column: Column, name: str, source: str) -> npt.NDArray[np.float64]:
    """A column as float64 [rows]; an empty text, None and ``nan`` are NaN.

    Raises:
        ConfigError: a value is no number; the message names its row.
    """
    try:
        values = np.asarray(column, dtype=np.float64)
        if values.ndim != 1:
            raise ConfigError(f"table {source!r}: column {name!r} holds lists; name one entry of them, as '{name}.0'")
        return values
    except (ValueError, TypeError):
        return np.array([_number(value, name, source, row) for row, value in enumerate(column)])


def _number(value: Any, name: str, source: str, row: int) -> float:
    if value is None or (isinstance(value, str) and value.strip().lower() in {"", "na", "none", "null"}):
        return np.nan
    try:
        return float(value)
    except (ValueError, TypeError):
        raise ConfigError(f"table {source!r}, row {row + 1}: {value!r} in column {name!r} is no number") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _read_separated(separator: str) -> Reader:
    def read(content: bytes, names: Sequence[str]) -> dict[str, Column]:
        text = content.decode("utf-8-sig")
        # Only between quotes is the end of a line no end of a row.
        lines: Iterable[str] = io.StringIO(text, newline="") if '"' in text else text.split("\n")
        rows = csv.reader(lines, delimiter=separator, strict=True)
        header = next(rows, [])
        for name in names:
            if name not in header:
                raise _NoColumn(name, header)
        # Values that are not needed are let go row by row: this takes a third of the time of keeping them.
        take, width = _taking([header.index(name) for name in names]), len(header)
        body = [take(row) for row in rows if len(row) == width or _is_row(row, width, rows.line_num)]
        return dict(zip(names, zip(*body, strict=True) if body else [()] * len(names), strict=True))

    return read


def _taking(indices: Sequence[int]) -> Callable[[list[str]], tuple[str, ...]]:
    return itemgetter(*indices) if len(indices) > 1 else lambda row: tuple(row[index] for index in indices)


def _is_row(row: list[str], width: int, line: int) -> bool:
    """False for an empty line, which is passed over.

    Raises:
        ValueError: the row is not empty and has another number of values than the header.
    """
    if row:
        raise ValueError(f"line {line} has {len(row)} values instead of {width}")
    return False


def _read_json(content: bytes, names: Sequence[str]) -> dict[str, Column]:
    loaded = json.loads(content)
    if isinstance(loaded, dict) and loaded and all(isinstance(row, dict) for row in loaded.values()):
        columns = _from_rows(list(loaded.values()), [name for name in names if name != KEY], [KEY])
        return {**columns, **({KEY: list(loaded)} if KEY in names else {})}
    if isinstance(loaded, dict):  # columns
        return _lists(loaded, names)
    if not isinstance(loaded, list):
        raise ValueError("it holds neither rows nor columns")
    return _from_rows(loaded, names)


def _read_json_lines(content: bytes, names: Sequence[str]) -> dict[str, Column]:
    return _from_rows([json.loads(line) for line in content.splitlines() if line.strip()], names)


def _from_rows(rows: list[Any], names: Sequence[str], more: Sequence[str] = ()) -> dict[str, Column]:
    return {name: [_inside(row, name, more) for row in rows] for name in names}


def _inside(row: Any, path: str, more: Sequence[str]) -> Any:
    """The value at a dotted path; a name that itself holds dots is tried first."""
    if isinstance(row, dict) and path in row:
        return row[path]
    value = row
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise _NoColumn(path, [*(row if isinstance(row, dict) else ()), *more])
    return value


def _read_pickle(content: bytes, names: Sequence[str]) -> dict[str, Column]:
    try:
        loaded = load_plain_pickle(content)
    except Exception as error:  # a malformed pickle raises almost any type
        raise ValueError(str(error)) from error
    return _lists(loaded, names)


def _lists(columns: dict[str, Any], names: Sequence[str]) -> dict[str, Column]:
    found = {name: _inside(columns, name, ()) for name in names}
    for name, column in found.items():
        if not _is_list(column):
            raise _NoColumn(name, (key for key, other in columns.items() if _is_list(other)))
    return found


def _is_list(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim == 1)


def _read_npz(content: bytes, names: Sequence[str]) -> dict[str, Column]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        stems = {name: name if name in archive else name.rpartition(".")[0] for name in names}
        arrays = {stem: archive[stem] for stem in dict.fromkeys(stems.values()) if stem in archive}
        available = archive.files
    columns: dict[str, Column] = {}
    for name, stem in stems.items():
        array, part = arrays.get(stem), name.rpartition(".")[2]
        if array is not None and stem == name and array.ndim == 1:
            columns[name] = array
        elif array is not None and array.ndim == 2 and part.isdecimal() and int(part) < array.shape[1]:
            columns[name] = array[:, int(part)]
        else:
            raise _NoColumn(name, available)
    return columns


_READERS: dict[str, Reader] = {
    ".csv": _read_separated(","),
    ".tsv": _read_separated("\t"),
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".npz": _read_npz,
    ".pickle": _read_pickle,
    ".pkl": _read_pickle,
}
