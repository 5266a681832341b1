"""From a source's own labels (integers or strings) to classes 0..classes-1, refusing labels that are neither."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from nas_engine.data.raw import AnyArray, RawDataset, RawSplit
from nas_engine.errors import DataError

IntArray = npt.NDArray[np.int64]


def encode_labels(raw: RawDataset) -> tuple[list[IntArray], tuple[str, ...]]:
    """Number the classes by the sorted distinct labels of the training split.

    Args:
        raw: what a reader found.

    Returns:
        One int64 array [n] for each of `raw.splits`, and the class names in class order.

    Raises:
        DataError: labels are not integers or strings, do not match the images in number, are negative or beyond the
            named classes, the training labels have one class only, or another split has a class that they lack.
    """
    cleaned = [_clean(split) for split in raw.splits]
    known = np.unique(cleaned[0])
    if len(known) < 2:
        raise DataError(
            f"{raw.train.name} has one class only ({known[0]!s}); a search needs images of at least 2 classes: add one"
        )
    names = _class_names(raw, known)
    encoded = []
    for split, labels in zip(raw.splits, cleaned, strict=True):
        _refuse_unknown(split, labels, known)
        encoded.append(np.searchsorted(known, labels).astype(np.int64))
    return encoded, names


def _clean(split: RawSplit) -> AnyArray:
    labels = split.labels
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"labels of {split.name} have shape {list(split.labels.shape)}; allowed: one label for each image, "
            "shape [n]: turn one-hot rows into labels with argmax(axis=1)"
        )
    if len(labels) != len(split.images):
        raise DataError(
            f"{split.name} has {len(split.images)} images but {len(labels)} labels; allowed: one label for each image: "
            "store both arrays in full"
        )
    if len(labels) == 0:
        raise DataError(
            f"{split.name} is empty; every split needs at least one image: add images or leave the split out"
        )
    if labels.dtype.kind in "US":
        return _as_text(split, labels)
    return _as_integers(split, labels)


def _as_text(split: RawSplit, labels: AnyArray) -> AnyArray:
    if labels.dtype.kind == "U":
        return labels
    try:
        return np.char.decode(labels, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"labels of {split.name} are bytes that are no UTF-8 text; store integers or str") from error


def _as_integers(split: RawSplit, labels: AnyArray) -> IntArray:
    if labels.dtype.kind not in "biuf":
        raise DataError(
            f"labels of {split.name} have dtype {labels.dtype}; allowed: integers from 0, or strings: convert them"
        )
    if labels.dtype.kind == "f":
        labels = labels.astype(np.float64)
    wrong = ~((labels >= 0) & (labels < 2.0**63))  # negated, so that NaN is wrong
    if labels.dtype.kind == "f":
        wrong |= labels != np.floor(labels)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{split.name} has {int(wrong.sum())} labels that are no class, the first is {labels[first]} at position "
            f"{first}; allowed: integers from 0, or strings: correct or remove these images"
        )
    return labels.astype(np.int64)


def _class_names(raw: RawDataset, known: AnyArray) -> tuple[str, ...]:
    if raw.class_names is None:
        return tuple(str(label) for label in known)
    if known.dtype.kind == "U":
        _refuse_unnamed((str(label) for label in known if str(label) not in raw.class_names), raw)
        return tuple(str(label) for label in known)
    _refuse_unnamed((str(label) for label in known if label >= len(raw.class_names)), raw)
    return tuple(raw.class_names[label] for label in known)


def _refuse_unnamed(labels: Iterable[str], raw: RawDataset) -> None:
    found = list(labels)
    if found:
        names = raw.class_names or ()
        raise DataError(
            f"{raw.train.name} has labels beyond its {len(names)} named classes: {_short(found)}; allowed: 0 to "
            f"{len(names) - 1} or one of {_short(names)}: correct the labels or complete the names"
        )


def _refuse_unknown(split: RawSplit, labels: AnyArray, known: AnyArray) -> None:
    if labels.dtype.kind != known.dtype.kind:
        raise DataError(
            f"labels of {split.name} are {_kind(labels)} while the training labels are {_kind(known)}; "
            "store both in the same way"
        )
    unknown = np.setdiff1d(labels, known)
    if len(unknown):
        raise DataError(
            f"{split.name} has labels without any training image: {_short(map(str, unknown))}; allowed: "
            f"{_short(map(str, known))}: add training images of them or remove them"
        )


def _kind(labels: AnyArray) -> str:
    return "strings" if labels.dtype.kind == "U" else "integers"


def _short(values: Iterable[str], limit: int = 5) -> str:
    listed = list(values)
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
