"""An image data set ready for a search: three disjoint splits, float32, normalised by training statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from nas_engine.types import ImageShape


@dataclass(frozen=True)
class Split:
    """Images float32 [n, channels, height, width] (normalised) and labels int64 [n]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Number of images."""
        return int(self.labels.shape[0])


@dataclass(frozen=True)
class ImageDataset:
    """What evaluators train on (`train`), choose by (`validation`) and report once (`test`).

    Attributes:
        source: what the user asked for, for example ``digits`` or a path.
        class_names: one for each class.
        mean: per-channel mean of the training pixels in [0, 1] that was subtracted, [channels].
        std: per-channel standard deviation that was divided by, [channels].
        validation_index: positions in the original training data that became the validation split (int64), empty
            where the data came with one.
    """

    source: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    validation_index: npt.NDArray[np.int64]

    @property
    def shape(self) -> ImageShape:
        """Channels, height, width and number of classes."""
        _, channels, height, width = self.train.images.shape
        return ImageShape(channels, height, width, len(self.class_names))
