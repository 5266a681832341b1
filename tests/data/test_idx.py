from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from nas_engine.data.loading import load_dataset


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture(params=["", ".gz"])
def folder(request, digits, tmp_path: Path) -> Path:
    images, labels = digits
    for stem, part in (("train", slice(0, 1000)), ("t10k", slice(1000, None))):
        for name, content in (("images-idx3", idx(images[part])), ("labels-idx1", idx(labels[part]))):
            written = gzip.compress(content) if request.param else content
            (tmp_path / f"{stem}-{name}-ubyte{request.param}").write_bytes(written)
    return tmp_path


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def test_the_folder_is_read(folder: Path, digits) -> None:
    images, labels = digits
    data = load_dataset(str(folder))
    assert (data.shape.channels, data.shape.height, data.shape.classes) == (1, 8, 10)
    assert len(data.train) + len(data.validation) == 1000
    np.testing.assert_array_equal(data.test.labels, labels[1000:])
    restored = (data.test.images[:, 0] * data.std[0] + data.mean[0]) * 255
    np.testing.assert_allclose(restored, images[1000:], atol=1e-3)


@pytest.mark.parametrize("name", ["train-images*", "train-labels*", "t10k-images*", "t10k-labels*"])
def test_a_missing_file_is_named(folder: Path, refused, name: str) -> None:
    only(folder, name).unlink()
    refused(folder, name.rstrip("*"), "add that file")


@pytest.mark.parametrize("length", [0, 3, 30, 2000])
def test_a_truncated_file_is_named(folder: Path, refused, length: int) -> None:
    path = only(folder, "t10k-images*")
    path.write_bytes(path.read_bytes()[:length])
    refused(folder, "t10k-images-idx3-ubyte", "download it again")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bytes([0, 0, 8, 1, 0, 0, 0, 2, 1, 1]), ["00 00 08 01", "3 dimensions"]),
        (bytes([0, 0, 13, 3]) + bytes(12), ["00 00 0d 03"]),
        (idx(np.zeros((2, 3, 3))) + b"x", ["has more"]),
        (idx(np.zeros((2, 3, 3)))[:-1], ["only 17"]),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, ["t10k-images"]),
    ],
)
def test_a_wrong_file_is_named(digits, tmp_path: Path, refused, content: bytes, words: list[str]) -> None:
    images, labels = digits
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(content)
    refused(tmp_path, *words)


def test_images_and_labels_of_different_number(folder: Path, refused, digits) -> None:
    path = only(folder, "train-labels*")
    content = idx(digits[1][:999])
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    refused(folder, "1000 images but 999 labels")
