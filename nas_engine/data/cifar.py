"""CIFAR-10 and CIFAR-100 as their author publishes them (Krizhevsky 2009): python and binary archive folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas_engine.data.raw import AnyArray, ByteArray, RawDataset, RawSplit, unreadable
from nas_engine.data.safe_pickle import load_plain_pickle
from nas_engine.errors import DataError

_PIXELS = 3 * 32 * 32
_REMEDY = "extract the archive again"


def is_cifar_folder(folder: Path) -> bool:
    """Whether `folder` looks like an extracted CIFAR archive."""
    return bool(_batches(folder)) or (folder / "train.bin").is_file() or _is_cifar100_python(folder)


def read_cifar(folder: Path) -> RawDataset:
    """Read an extracted CIFAR archive; CIFAR-100 by its 100 fine classes.

    Pickles are read by an unpickler that can build plain data only.

    Args:
        folder: ``cifar-10-batches-py``, ``cifar-10-batches-bin``, ``cifar-100-python`` or ``cifar-100-binary``.

    Returns:
        Train and test.

    Raises:
        DataError: a file is missing, truncated, corrupt or not what its name says.
    """
    batches = _batches(folder)
    if not batches:
        binary = (folder / "train.bin").is_file()
        files = [[folder / f"{name}{'.bin' * binary}"] for name in ("train", "test")]
        label_column, names_file = 1, "fine_label_names.txt" if binary else "meta"
    else:
        binary = batches[0].suffix == ".bin"
        files = [batches, [folder / f"test_batch{'.bin' * binary}"]]
        label_column, names_file = 0, "batches.meta.txt" if binary else "batches.meta"
    train, test = (_split(folder, paths, label_column if binary else None) for paths in files)
    names_path = folder / names_file
    return RawDataset(train, None, test, _names(names_path) if names_path.is_file() else None, pixel_max=255.0)


def _is_cifar100_python(folder: Path) -> bool:
    return (folder / "train").is_file() and any((folder / name).is_file() for name in ("test", "meta"))


def _batches(folder: Path) -> list[Path]:
    for pattern in (r"data_batch_(\d+)", r"data_batch_(\d+)\.bin"):
        numbered = {int(match[1]): path for path in folder.iterdir() if (match := re.fullmatch(pattern, path.name))}
        missing = sorted(set(range(1, max(numbered, default=0) + 1)) - set(numbered))
        if missing:
            raise DataError(f"{folder} has no batch {missing[0]} although later ones are there; {_REMEDY}")
        if numbered:
            return [numbered[number] for number in sorted(numbered)]
    return []


def _split(folder: Path, paths: Sequence[Path], label_column: int | None) -> RawSplit:
    parts = [_python(path) if label_column is None else _binary(path, label_column) for path in paths]
    images = np.concatenate([planes for planes, _ in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.concatenate([part for _, part in parts])
    return RawSplit(f"{paths[0].name}{' ...' * (len(paths) > 1)} of {folder}", images, labels)


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(f"{path.parent} is a CIFAR folder but has no {path.name}; {_REMEDY}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error, _REMEDY) from error


def _unpickled(path: Path) -> dict[str, Any]:
    content = _content(path)
    try:
        return load_plain_pickle(content)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle raises almost any type
        raise unreadable(path, error, _REMEDY) from error


def _python(path: Path) -> tuple[ByteArray, AnyArray]:
    batch = _unpickled(path)
    labels = batch.get("labels", batch.get("fine_labels"))
    data = batch.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_PIXELS,):
        raise DataError(f"{path} has no 'data' of bytes of shape [n, {_PIXELS}]; it is no CIFAR batch: {_REMEDY}")
    if isinstance(labels, list) and all(type(label) is int and abs(label) < 2**63 for label in labels):
        labels = np.array(labels, dtype=np.int64)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.shape != (len(data),):
        raise DataError(f"{path} has no 'labels' or 'fine_labels', one for each of {len(data)} images: {_REMEDY}")
    return data, labels


def _binary(path: Path, label_column: int) -> tuple[ByteArray, ByteArray]:
    content = np.frombuffer(_content(path), dtype=np.uint8)
    record = label_column + 1 + _PIXELS
    if len(content) == 0 or len(content) % record:
        raise DataError(
            f"{path} has {len(content)} bytes; allowed: a multiple of {record} (labels and 32x32x3 pixels): {_REMEDY}"
        )
    records = content.reshape(-1, record)
    return records[:, label_column + 1 :], records[:, label_column]


def _names(path: Path) -> tuple[str, ...]:
    if path.suffix == ".txt":
        return tuple(line.strip() for line in _content(path).decode("utf-8", "replace").splitlines() if line.strip())
    meta = _unpickled(path)
    names = meta.get("fine_label_names", meta.get("label_names"))
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise DataError(f"{path} has no list 'label_names' or 'fine_label_names'; {_REMEDY} or delete this file")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names)
