"""The embedded data set: scikit-learn's 1,797 handwritten digits, 8x8 grey pixels from 0 to 16."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from nas_engine.data.raw import RawDataset, RawSplit


def read_digits() -> RawDataset:
    """All 1,797 images in scikit-learn's order; the source has no test split of its own."""
    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[..., None]
    train = RawSplit("digits", images, bunch.target.astype(np.int64))
    return RawDataset(train, None, None, tuple(str(digit) for digit in bunch.target_names), pixel_max=16.0)
