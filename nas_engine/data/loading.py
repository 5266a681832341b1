"""From the name of a source to a data set: find the reader, check, split, scale and normalise."""

from __future__ import annotations

import difflib
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nas_engine.data.arrays import read_arrays
from nas_engine.data.base import ImageDataset, Split
from nas_engine.data.cifar import is_cifar_folder, read_cifar
from nas_engine.data.digits import read_digits
from nas_engine.data.folder import read_folder
from nas_engine.data.idx import is_idx_folder, read_idx
from nas_engine.data.labels import encode_labels
from nas_engine.data.pixels import channel_statistics, check_pixels, normalised
from nas_engine.data.raw import RawDataset
from nas_engine.data.splits import stratified_split
from nas_engine.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

IntArray = npt.NDArray[np.int64]

TEST_FRACTION = 0.2
"""Share of each class held out for testing where a source has no test split."""

TEST_SPLIT_SEED = 0
"""Seed of that test split; fixed, so that searches with different seeds are tested on the same images."""

_ALLOWED = "allowed: digits, FILE.npz, a folder of class folders, or a CIFAR-10, CIFAR-100 or MNIST folder"


def load_dataset(source: str, *, validation_fraction: float = 0.2, seed: int = 0) -> ImageDataset:
    """Read a data set and make it ready for a search.

    Pixels are scaled to [0, 1], then normalised by the mean and standard deviation of each channel over the training
    split alone. Classes are the sorted distinct training labels. Where the source has no test split, 20 % of each class
    become one, chosen by a fixed seed; where it has no validation split, `validation_fraction` of each class of the
    remaining training images become one, chosen by `seed`.

    Args:
        source: ``digits``; an NPZ file with x_train, y_train[, x_val, y_val], x_test, y_test[, classes]; a folder of
            class folders of images; or a folder with CIFAR-10's or CIFAR-100's python or binary files, or with
            MNIST's IDX files.
        validation_fraction: share of each class, in (0, 1).
        seed: of the validation split.

    Returns:
        The data set. `validation_index` counts in the source's training data; where the test split was made here, in
        all its images (digits: scikit-learn's order; folders: sorted by class, then by file).

    Raises:
        DataError: the source is missing, damaged, or cannot be used; one line that says what to do.
        ConfigError: `validation_fraction` or `seed` is out of range.
    """
    if not 0 < validation_fraction < 1:
        raise ConfigError(
            f"validation_fraction {validation_fraction} is not allowed: choose more than 0 and less than 1"
        )
    if seed < 0:
        raise ConfigError(f"seed {seed} is not allowed: choose 0 or more")
    try:
        return _prepare(str(source), _read(str(source)), validation_fraction, seed)
    except MemoryError as error:
        raise DataError(f"{source} does not fit in memory; use fewer or smaller images") from error


def _read(source: str) -> RawDataset:
    if source == "digits":
        return read_digits()
    path = Path(source).expanduser()
    try:
        if source and path.is_dir():
            return _read_folder(path)
        if source and path.is_file():
            return _read_file(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; {_ALLOWED}: check the permissions") from error
    hint = "did you mean 'digits'? " if difflib.get_close_matches(source, ["digits"]) else ""
    raise DataError(f"no file or folder {source!r}; {hint}{_ALLOWED}: check the path")


def _read_file(path: Path) -> RawDataset:
    if path.suffix.lower() != ".npz":
        raise DataError(
            f"{path} is no data set that can be read; {_ALLOWED}: save it with np.savez or extract the archive"
        )
    return read_arrays(path)


def _read_folder(path: Path) -> RawDataset:
    if is_idx_folder(path):
        return read_idx(path)
    if is_cifar_folder(path):
        return read_cifar(path)
    if not any(entry.is_dir() and not entry.name.startswith(".") for entry in path.iterdir()):
        entries = sorted(entry.name for entry in path.iterdir())
        raise DataError(
            f"{path} has no class folders, CIFAR or IDX files (found: {entries[:3] or 'nothing'}); {_ALLOWED}"
        )
    return read_folder(path)


def _prepare(source: str, raw: RawDataset, validation_fraction: float, seed: int) -> ImageDataset:
    labels, class_names = encode_labels(raw)
    pixel_max = check_pixels(raw)
    train, validation, test = _divide(raw, labels[0], class_names, validation_fraction, seed)
    mean, std = (tuple(values.tolist()) for values in channel_statistics(raw.train.images, train, pixel_max))

    def split(position: int, index: IntArray) -> Split:
        images = normalised(raw.splits[position].images, index, pixel_max, mean, std)
        return Split(torch.from_numpy(images), torch.from_numpy(labels[position][index]))

    def given(position: int) -> Split:
        return split(position, np.arange(len(labels[position])))

    dataset = ImageDataset(
        source=source,
        train=split(0, train),
        validation=given(1) if raw.validation else split(0, validation),
        test=given(len(labels) - 1) if raw.test else split(0, test),
        class_names=class_names,
        mean=mean,
        std=std,
        validation_index=validation,
    )
    _check_validation(dataset)
    return dataset


def _divide(
    raw: RawDataset, labels: IntArray, class_names: tuple[str, ...], validation_fraction: float, seed: int
) -> tuple[IntArray, IntArray, IntArray]:
    _check_class_sizes(raw, labels, class_names)
    train, validation, test = (np.arange(len(labels)), np.empty(0, np.int64), np.empty(0, np.int64))
    if raw.test is None:
        train, test = stratified_split(labels, TEST_FRACTION, np.random.default_rng(TEST_SPLIT_SEED))
        logger.info("%s: made a test split of %d images, seed %d", raw.train.name, len(test), TEST_SPLIT_SEED)
    if raw.validation is None:
        kept, held = stratified_split(labels[train], validation_fraction, np.random.default_rng(seed))
        train, validation = train[kept], train[held]
        logger.info("%s: made a validation split of %d images, seed %d", raw.train.name, len(validation), seed)
    return train, validation, test


def _check_class_sizes(raw: RawDataset, labels: IntArray, class_names: tuple[str, ...]) -> None:
    made = ["validation"] * (raw.validation is None) + ["test"] * (raw.test is None)
    counts = np.bincount(labels)
    smallest = int(counts.argmin())
    if counts[smallest] < 1 + len(made):
        raise DataError(
            f"class {class_names[smallest]!r} of {raw.train.name} has {counts[smallest]} training images; allowed: at "
            f"least {1 + len(made)}, one for each of {', '.join(['train', *made])}: add images or remove the class"
        )


def _check_validation(dataset: ImageDataset) -> None:
    missing = set(range(len(dataset.class_names))) - set(dataset.validation.labels.tolist())
    if missing:
        name = dataset.class_names[min(missing)]
        raise DataError(
            f"class {name!r} has no validation image in {dataset.source}; every class needs at least one: add one, or "
            "remove the validation split so that one is made from the training images"
        )
