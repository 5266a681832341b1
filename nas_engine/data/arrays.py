"""Image arrays in one NPZ file: x_train, y_train[, x_val, y_val], x_test, y_test[, classes]."""

from __future__ import annotations

import difflib
import logging
import math
import zipfile
from pathlib import Path

import numpy as np

from nas_engine.data.raw import AnyArray, RawDataset, RawSplit, unreadable
from nas_engine.errors import DataError

logger = logging.getLogger(__name__)

_REQUIRED = ("x_train", "y_train", "x_test", "y_test")
_OPTIONAL = ("x_val", "y_val")
_MAX_CHANNELS = 4
_REMEDY = "write it again with np.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)"


def read_arrays(path: Path) -> RawDataset:
    """Read an NPZ file; nothing in it is ever unpickled.

    Images may be [n, h, w, channels], [n, channels, h, w] with 1 to 4 channels, [n, h, w] or flat square grey images
    [n, h * h]. Whichever axis has a size from 1 to 4 is the channels; where both do, the file is refused. Flat colour
    images are refused because their order of channels is unknown. An array `classes` (strings) names the classes.

    Args:
        path: an existing file.

    Returns:
        Train and test, and validation where the file has it.

    Raises:
        DataError: the file is no NPZ, truncated, or lacks an array, or an array cannot be understood.
    """
    arrays = _load(path)
    _check_names(path, arrays)
    validation = _split(path, arrays, "val") if "x_val" in arrays else None
    return RawDataset(
        _split(path, arrays, "train"), validation, _split(path, arrays, "test"), _class_names(path, arrays), None
    )


def _load(path: Path) -> dict[str, AnyArray]:
    wanted = {*_REQUIRED, *_OPTIONAL, "classes"}
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no NPZ file, or its end is missing; {_REMEDY}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] if name in wanted else np.empty(0) for name in archive.files}
    except MemoryError:
        raise
    except Exception as error:  # damaged zip members and array headers raise almost any type
        if "Object arrays" in str(error):
            raise DataError(
                f"{path} holds pickled Python objects, which are never read; allowed: number and string arrays in an "
                "NPZ: convert object arrays with .astype and save again with np.savez"
            ) from error
        raise unreadable(path, error, _REMEDY) from error


def _check_names(path: Path, arrays: dict[str, AnyArray]) -> None:
    required = _REQUIRED + (_OPTIONAL if any(name in arrays for name in _OPTIONAL) else ())
    missing = [name for name in required if name not in arrays]
    if missing:
        spare = {name.lower(): name for name in arrays if name not in _REQUIRED}
        near = [spare[match] for match in difflib.get_close_matches(missing[0], spare, n=1, cutoff=0.5)]
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(
            f"{path} has no array {', '.join(map(repr, missing))}; {hint}It holds: "
            f"{', '.join(sorted(arrays)) or 'nothing'}; needed: {', '.join(required)}: rename or add it"
        )
    for name in arrays:
        # An overlooked validation array would silently be replaced by a split of the training data.
        meant = difflib.get_close_matches(name.lower(), _OPTIONAL, n=1, cutoff=0.55)
        if meant and name not in (*_REQUIRED, *_OPTIONAL):
            raise DataError(f"{path} has an unknown array {name!r}: did you mean {meant[0]!r}? Rename or remove it")
        if name not in (*_REQUIRED, *_OPTIONAL, "classes"):
            logger.info("%s: array %r is not used", path, name)


def _split(path: Path, arrays: dict[str, AnyArray], name: str) -> RawSplit:
    title = f"x_{name} of {path}"
    return RawSplit(title, _channels_last(title, arrays[f"x_{name}"]), arrays[f"y_{name}"])


def _channels_last(title: str, images: AnyArray) -> AnyArray:
    if images.ndim == 3:
        return images[..., None]
    if images.ndim == 2:
        return _unflatten(title, images)
    if images.ndim != 4:
        raise _shape_error(title, images, "store one image in each row")
    first, last = (0 < images.shape[axis] <= _MAX_CHANNELS for axis in (1, 3))
    if first and last:
        raise _shape_error(title, images, "both outer axes could be the channels: make images larger than 4x4 pixels")
    if not first and not last:
        raise _shape_error(title, images, "no axis of 1 to 4 channels: keep at most 4 channels")
    return images if last else images.transpose(0, 2, 3, 1)


def _unflatten(title: str, images: AnyArray) -> AnyArray:
    pixels = images.shape[1]
    side = math.isqrt(pixels)
    if pixels == 0 or side * side != pixels:
        raise _shape_error(title, images, "flat images must be square and grey: reshape them to [n, h, w, channels]")
    return images.reshape(len(images), side, side, 1)


def _shape_error(title: str, images: AnyArray, remedy: str) -> DataError:
    return DataError(
        f"{title} has shape {list(images.shape)}; allowed: [n, h, w, channels], [n, channels, h, w], [n, h, w] or flat "
        f"square grey images [n, h * h]; {remedy}"
    )


def _class_names(path: Path, arrays: dict[str, AnyArray]) -> tuple[str, ...] | None:
    names = arrays.get("classes")
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataError(
            f"array 'classes' of {path} has shape {list(names.shape)} and dtype {names.dtype}; allowed: strings "
            "[classes], the name of label 0, 1, ...: convert or remove it"
        )
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names.tolist())
