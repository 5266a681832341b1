"""Images and labels as a source holds them: not yet scaled, encoded or split. Every reader returns these."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_engine.errors import DataError

AnyArray = npt.NDArray[Any]
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class RawSplit:
    """One split of a source.

    Attributes:
        name: how messages call it, for example ``x_train of cifar.npz``.
        images: [n, height, width, channels], the source's own dtype and range.
        labels: the source's own labels, integers or strings.
    """

    name: str
    images: AnyArray
    labels: AnyArray


@dataclass(frozen=True)
class RawDataset:
    """What a reader found.

    Attributes:
        train: the training images, from which missing splits are taken.
        validation: None where the source has none.
        test: None where the source has none.
        class_names: name of the class with integer label 0, 1, ...; None where the source names no classes.
        pixel_max: the pixel value that stands for 1.0; None where it must be found out from the pixels.
    """

    train: RawSplit
    validation: RawSplit | None
    test: RawSplit | None
    class_names: tuple[str, ...] | None
    pixel_max: float | None

    @property
    def splits(self) -> tuple[RawSplit, ...]:
        """The splits that the source has, the training split first."""
        return tuple(split for split in (self.train, self.validation, self.test) if split is not None)


def unreadable(path: Path, error: BaseException, remedy: str) -> DataError:
    """The one-line DataError for a file that exists but cannot be read.

    Args:
        path: the file.
        error: what its reader raised; only the first line of its text is kept.
        remedy: the next step, for example ``download it again``.

    Returns:
        The error, to be raised ``from error``.
    """
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    return DataError(f"cannot read {path}: {reason}; the file is corrupt, truncated or of another kind: {remedy}")
