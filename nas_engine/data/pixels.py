"""From a source's own pixels to float32 in channels-first order, normalised by the training split's statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from nas_engine.data.raw import AnyArray, RawDataset, RawSplit
from nas_engine.errors import DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_CHUNK = 1024  # images converted at once: bounds the memory beyond the source and the result


def check_pixels(raw: RawDataset) -> float:
    """Refuse images that cannot be normalised, and find the pixel value that stands for 1.0.

    Where the source does not say: booleans 1; floats 1 if no training pixel exceeds it, else 255; integers 255 if no
    training pixel exceeds it, else 65535.

    Args:
        raw: what a reader found.

    Returns:
        The pixel value that stands for 1.0.

    Raises:
        DataError: images of no pixels, of different shapes in two splits, of a dtype that is no number, NaN or
            infinite pixels, or pixels outside the range.
    """
    for split in raw.splits:
        _check_shape(split, raw.train)
        _check_numbers(split)
    pixel_max = raw.pixel_max or _pixel_max(raw.train.images)
    for split in raw.splits:
        low, high = split.images.min(), split.images.max()
        if low < 0 or high > pixel_max:
            raise DataError(
                f"{split.name} has pixels from {low:g} to {high:g}; allowed: 0 to {pixel_max:g} in every split of this "
                "data set: store the pixels unnormalised, as uint8 or as floats from 0 to 1"
            )
    return pixel_max


def channel_statistics(images: AnyArray, index: IntArray, pixel_max: float) -> tuple[FloatArray, FloatArray]:
    """Mean and population standard deviation of each channel, in units of `pixel_max`.

    A channel that is constant gets the standard deviation 1, so that dividing by it changes nothing.

    Args:
        images: [n, height, width, channels].
        index: which images count, [m].
        pixel_max: the pixel value that stands for 1.0.

    Returns:
        Mean and standard deviation, float64 [channels] each.

    Raises:
        DataError: all channels are constant.
    """
    pixels = len(index) * images.shape[1] * images.shape[2]
    mean = sum(block.sum(axis=(0, 1, 2)) for block in _float_blocks(images, index)) / pixels
    variance = sum(((block - mean) ** 2).sum(axis=(0, 1, 2)) for block in _float_blocks(images, index)) / pixels
    # Two passes in float64 leave rounding noise of about 1e-16 * mean in the deviation of a constant channel.
    std = np.where(np.sqrt(variance) > 1e-9 * pixel_max, np.sqrt(variance) / pixel_max, 1.0)
    if (np.sqrt(variance) <= 1e-9 * pixel_max).all():
        raise DataError(f"all training pixels are equal ({mean / pixel_max}); nothing can be learnt: check the images")
    return mean / pixel_max, std


def normalised(
    images: AnyArray, index: IntArray, pixel_max: float, mean: Sequence[float], std: Sequence[float]
) -> npt.NDArray[np.float32]:
    """The chosen images as float32 [m, channels, height, width], ``(pixel / pixel_max - mean) / std``.

    Args:
        images: [n, height, width, channels].
        index: which images, [m].
        pixel_max: the pixel value that stands for 1.0.
        mean: of each channel, [channels].
        std: of each channel, [channels].

    Returns:
        A new contiguous array.
    """
    _, height, width, channels = images.shape
    result = np.empty((len(index), channels, height, width), dtype=np.float32)
    for start in range(0, len(index), _CHUNK):
        block = images[index[start : start + _CHUNK]]
        result[start : start + len(block)] = block.transpose(0, 3, 1, 2)
    result /= np.float32(pixel_max)
    result -= np.asarray(mean, dtype=np.float32)[:, None, None]
    result /= np.asarray(std, dtype=np.float32)[:, None, None]
    return result


def _float_blocks(images: AnyArray, index: IntArray) -> Iterator[FloatArray]:
    return (images[index[start : start + _CHUNK]].astype(np.float64) for start in range(0, len(index), _CHUNK))


def _check_shape(split: RawSplit, train: RawSplit) -> None:
    height, width, channels = split.images.shape[1:]
    if 0 in (height, width, channels):
        raise DataError(
            f"{split.name} has images of {_size(split)}; allowed: at least 1x1 with 1 channel: check the file"
        )
    if split.images.shape[1:] != train.images.shape[1:]:
        raise DataError(
            f"{split.name} has images of {_size(split)} but {train.name} of {_size(train)}; allowed: one size and "
            "number of channels in all splits: resize or convert them"
        )


def _size(split: RawSplit) -> str:
    height, width, channels = split.images.shape[1:]
    return f"{height}x{width} pixels with {channels} channel{'s' * (channels != 1)} (height x width)"


def _check_numbers(split: RawSplit) -> None:
    images = split.images
    if images.dtype.kind not in "biuf":
        raise DataError(f"{split.name} has dtype {images.dtype}; allowed: uint8, another integer, or float: convert it")
    if images.dtype.kind != "f" or np.isfinite(images).all():
        return
    nan, infinite = int(np.isnan(images).sum()), int(np.isinf(images).sum())
    where = int(np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))[0])
    raise DataError(
        f"{split.name} has {nan} NaN and {infinite} infinite pixels, the first in image {where}; allowed: finite "
        "pixels: correct or remove these images"
    )


def _pixel_max(images: AnyArray) -> float:
    high = images.max()
    if images.dtype.kind == "b" or (images.dtype.kind == "f" and high <= 1):
        return 1.0
    return 255.0 if images.dtype.kind == "f" or high <= 255 else 65535.0
