"""Class folders of images: FOLDER/train/CLASS, FOLDER/[val|validation]/CLASS, FOLDER/test/CLASS, or FOLDER/CLASS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nas_engine.data.raw import ByteArray, RawDataset, RawSplit, unreadable
from nas_engine.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff")

_GREY_MODES = {"1", "L", "LA"}
_DEEP_MODES = ("I", "F")  # more than 8 bits a pixel: Pillow would clip them


@dataclass(frozen=True)
class _Files:
    folder: Path
    paths: tuple[Path, ...]
    labels: tuple[str, ...]


def read_folder(folder: Path) -> RawDataset:
    """Read class folders. A class is named as its folder; files are taken in sorted order, classes too.

    Images are grey where all files are, else RGB; transparency is dropped; files with other endings than those of
    images, and hidden ones, are ignored.

    Args:
        folder: with a folder ``train`` of class folders, or class folders itself.

    Returns:
        The splits that have a folder of their own.

    Raises:
        DataError: no class folders, a class without images, images of unequal size, more than 8 bits a channel, or a
            file that cannot be read.
    """
    listed = [_list_files(split) for split in _split_folders(folder)]
    grey = _check_headers([path for files in listed if files for path in files.paths])
    train, validation, test = (_read_split(files, grey) if files else None for files in listed)
    if train is None:
        raise DataError(f"{folder} has no training images; add class folders of images")
    return RawDataset(train, validation, test, None, pixel_max=255.0)


def _split_folders(folder: Path) -> tuple[Path, Path | None, Path | None]:
    present = [name for name in ("train", "val", "validation", "test") if (folder / name).is_dir()]
    named = {name: folder / name for name in present if _subfolders(folder / name)}
    if not named:  # folders of these names that hold images are classes
        return folder, None, None
    bare = [name for name in present if name not in named]
    if bare:
        raise DataError(
            f"{folder / bare[0]} has no class folders, unlike {folder / next(iter(named))}; add or remove it"
        )
    if "train" not in named:
        raise DataError(f"{folder} has {', '.join(named)} but no train folder of class folders; add {folder / 'train'}")
    if "val" in named and "validation" in named:
        raise DataError(f"{folder} has both val and validation; allowed: one of them: remove the other")
    return named["train"], named.get("val") or named.get("validation"), named.get("test")


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _list_files(folder: Path | None) -> _Files | None:
    if folder is None:
        return None
    paths: list[Path] = []
    labels: list[str] = []
    for class_folder in _subfolders(folder):
        found = sorted(path for path in class_folder.iterdir() if _is_image(path))
        if not found:
            raise DataError(
                f"class folder {class_folder} has no image; allowed: {', '.join(IMAGE_SUFFIXES)}: add some or remove it"
            )
        paths += found
        labels += [class_folder.name] * len(found)
    return _Files(folder, tuple(paths), tuple(labels))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _check_headers(paths: Sequence[Path]) -> bool:
    # Headers first: unequal sizes show in seconds, and memory is taken once, for the right number of channels.
    first_size, grey = None, True
    for path in paths:
        size, mode = _header(path)
        first_size = first_size or size
        if size != first_size:
            raise DataError(
                f"images differ in size: {paths[0]} has {first_size[0]}x{first_size[1]} pixels, {path} has "
                f"{size[0]}x{size[1]} (width x height); allowed: one size: resize them all"
            )
        if mode.startswith(_DEEP_MODES):
            raise DataError(f"{path} has more than 8 bits a channel (mode {mode}); allowed: 8 bits: convert it")
        grey = grey and mode in _GREY_MODES
    return grey


def _header(path: Path) -> tuple[tuple[int, int], str]:
    try:
        with Image.open(path) as image:
            return image.size, image.mode
    except MemoryError:
        raise
    except Exception as error:  # damaged images raise almost any type
        raise unreadable(path, error, "replace or remove it") from error


def _read_split(files: _Files, grey: bool) -> RawSplit:
    width, height = _header(files.paths[0])[0]
    images = np.empty((len(files.paths), height, width, 1 if grey else 3), dtype=np.uint8)
    for position, path in enumerate(files.paths):
        images[position] = _pixels(path, "L" if grey else "RGB").reshape(images.shape[1:])
    return RawSplit(str(files.folder), images, np.array(files.labels))


def _pixels(path: Path, mode: str) -> ByteArray:
    try:
        with Image.open(path) as image:
            # Pillow warns of palette images with transparency unless they pass through RGBA.
            opaque = image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
            return np.asarray(opaque.convert(mode), dtype=np.uint8)
    except MemoryError:
        raise
    except Exception as error:  # damaged images raise almost any type
        raise unreadable(path, error, "replace or remove it") from error
