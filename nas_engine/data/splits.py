"""Stratified splits: every class gives the same share of its images, and at least one to each side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def stratified_split(labels: IntArray, fraction: float, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Divide positions 0..n-1 into a kept and a held-out part, class by class.

    Of a class with m images, round(m * fraction) are held out, but at least 1 and at most m - 1.

    Args:
        labels: class of each image, [n].
        fraction: share to hold out, in (0, 1).
        rng: decides which images; the same generator state gives the same split.

    Returns:
        Sorted positions (kept, held out); disjoint, together all of 0..n-1.

    Raises:
        ValueError: a class has fewer than two images.
    """
    held: list[IntArray] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise ValueError(f"class {label} has {len(members)} image, a split needs 2")
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        held.append(rng.permutation(members)[:count])
    held_out = np.sort(np.concatenate(held)).astype(np.int64)
    return np.setdiff1d(np.arange(len(labels), dtype=np.int64), held_out), held_out
