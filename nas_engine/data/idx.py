"""MNIST's folder of IDX files (LeCun et al. 1998), plain or gzipped; Fashion-MNIST and KMNIST are stored alike."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from nas_engine.data.raw import ByteArray, RawDataset, RawSplit, unreadable
from nas_engine.errors import DataError

_REMEDY = "download it again"


def is_idx_folder(folder: Path) -> bool:
    """Whether `folder` holds at least one of MNIST's image or label files."""
    return any(_find(folder, stem, kind) for stem in ("train", "t10k") for kind in ("images", "labels"))


def read_idx(folder: Path) -> RawDataset:
    """Read ``train-images-idx3-ubyte[.gz]``, ``train-labels-idx1-ubyte[.gz]`` and the two of ``t10k``.

    Args:
        folder: contains the four files; names with a dot (``train-images.idx3-ubyte``) are accepted too.

    Returns:
        Train and test.

    Raises:
        DataError: a file is missing, truncated, corrupt, or no IDX file of unsigned bytes.
    """
    return RawDataset(_split(folder, "train"), None, _split(folder, "t10k"), None, pixel_max=255.0)


def _split(folder: Path, stem: str) -> RawSplit:
    images = _read(_require(folder, stem, "images"), dimensions=3)
    labels = _read(_require(folder, stem, "labels"), dimensions=1)
    return RawSplit(f"{stem}-images of {folder}", images[..., None], labels)


def _find(folder: Path, stem: str, kind: str) -> Path | None:
    rank = 3 if kind == "images" else 1
    names = [f"{stem}-{kind}{joint}idx{rank}-ubyte{suffix}" for suffix in ("", ".gz") for joint in "-."]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _require(folder: Path, stem: str, kind: str) -> Path:
    path = _find(folder, stem, kind)
    if path is None:
        rank = 3 if kind == "images" else 1
        raise DataError(f"{folder} has IDX files but no {stem}-{kind}-idx{rank}-ubyte or .gz of it; add that file")
    return path


def _read(path: Path, dimensions: int) -> ByteArray:
    # Header: two zero bytes, the type (8 = unsigned byte), the number of dimensions, then each size in 4 bytes.
    length = 4 + 4 * dimensions
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            header = file.read(length)
            if len(header) < length or header[:4] != bytes([0, 0, 8, dimensions]):
                raise DataError(
                    f"{path} starts with the bytes {header[:4].hex(' ') or '(none)'}; allowed: 00 00 08 "
                    f"{dimensions:02x}, an IDX file of unsigned bytes in {dimensions} dimensions: {_REMEDY}"
                )
            shape = np.frombuffer(header, dtype=">u4", offset=4).tolist()
            # One byte more than promised shows that a file is too long. A forged header must not make Python allocate
            # what the file cannot hold: deflate expands by 1032 times at most.
            content = file.read(min(math.prod(shape) + 1, 1032 * path.stat().st_size))
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error, _REMEDY) from error
    if len(content) != math.prod(shape):
        amount = "more" if len(content) > math.prod(shape) else f"only {len(content)}"
        raise DataError(
            f"{path} promises {shape} = {math.prod(shape)} bytes but has {amount}; it is damaged: {_REMEDY}"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
