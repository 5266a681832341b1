from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas_engine.data.loading import load_dataset


def write(folder: Path, images: np.ndarray, labels: np.ndarray, suffix: str = ".png") -> None:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / f"digit {label}" / f"{number:04}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


@pytest.fixture
def classes(digits, tmp_path: Path) -> Path:
    """FOLDER/CLASS with 120 real digits."""
    write(tmp_path, digits[0][:120], digits[1][:120])
    return tmp_path


def some(folder: Path) -> Path:
    return sorted(folder.rglob("*.png"))[7]


def test_class_folders_get_a_test_split(classes: Path, digits) -> None:
    data = load_dataset(str(classes), seed=5)
    assert data.class_names == tuple(f"digit {label}" for label in range(10))
    assert (data.shape.channels, data.shape.height, data.shape.width) == (1, 8, 8)
    assert len(data.train) + len(data.validation) + len(data.test) == 120
    assert abs(len(data.test) - 24) <= 5
    paths = sorted(classes.rglob("*.png"))  # validation_index counts in this order
    kept = [digits[0][int(paths[position].stem)] for position in data.validation_index]
    restored = (data.validation.images[:, 0] * data.std[0] + data.mean[0]) * 255
    np.testing.assert_allclose(restored, np.stack(kept), atol=1e-3)


@pytest.mark.parametrize("name", ["val", "validation"])
def test_split_folders_are_used(digits, tmp_path: Path, name: str) -> None:
    images, labels = digits
    for folder, part in (("train", slice(0, 200)), (name, slice(200, 300)), ("test", slice(300, 400))):
        write(tmp_path / folder, images[part], labels[part])
    data = load_dataset(str(tmp_path))
    assert (len(data.train), len(data.validation), len(data.test)) == (200, 100, 100)
    assert np.bincount(data.test.labels).tolist() == np.bincount(labels[300:400]).tolist()


def test_colour_images_and_jpeg(cifar, tmp_path: Path) -> None:
    write(tmp_path / "train", cifar["x_train"][:100], cifar["y_train"][:100], ".JPG")
    write(tmp_path / "test", cifar["x_test"][:50], cifar["y_test"][:50], ".bmp")
    data = load_dataset(str(tmp_path))
    assert data.shape.channels == 3
    assert len(data.test) == 50
    mean, std = (np.array(value)[:, None, None] for value in (data.mean, data.std))
    restored = (data.test.images.numpy() * std + mean) * 255
    originals = sorted(tmp_path.glob("test/*/*"))
    first = np.asarray(Image.open(originals[0]))
    np.testing.assert_allclose(restored[0].transpose(1, 2, 0), first, atol=1e-3)


def test_grey_and_colour_together_become_colour(classes: Path) -> None:
    for mode, path in zip(("RGB", "RGBA", "P"), sorted(classes.rglob("*.png")), strict=False):
        Image.open(path).convert(mode).save(path)
    data = load_dataset(str(classes))
    assert data.shape.channels == 3
    np.testing.assert_allclose(data.mean, data.mean[0], atol=0.01)


def test_other_files_are_ignored(classes: Path) -> None:
    some(classes).with_name("Thumbs.db").write_bytes(b"junk")
    some(classes).with_name(".hidden.png").write_bytes(b"junk")
    (classes / ".cache").mkdir()
    (classes / "labels.csv").write_text("junk")
    data = load_dataset(str(classes))
    assert len(data.train) + len(data.validation) + len(data.test) == 120


def test_images_of_unequal_size_are_both_named(classes: Path, refused) -> None:
    odd = some(classes)
    Image.new("L", (9, 7)).save(odd)
    refused(classes, "8x8", "9x7", str(odd), str(sorted(classes.rglob("*.png"))[0]), "resize")


def test_images_of_unequal_size_across_splits(digits, tmp_path: Path, refused) -> None:
    write(tmp_path / "train", digits[0][:60], digits[1][:60])
    write(tmp_path / "test", digits[0][60:90, :, :7], digits[1][60:90])
    refused(tmp_path, "8x8", "7x8", "resize")


@pytest.mark.parametrize("keep", [0, 10, 60])
def test_a_damaged_image_is_named(classes: Path, refused, keep: int) -> None:
    path = some(classes)
    path.write_bytes(path.read_bytes()[:keep])
    refused(classes, str(path), "replace or remove it")


def test_a_truncated_jpeg_is_named(cifar, tmp_path: Path, refused) -> None:
    write(tmp_path, cifar["x_train"][:60], cifar["y_train"][:60], ".jpg")
    path = sorted(tmp_path.rglob("*.jpg"))[3]
    path.write_bytes(path.read_bytes()[:-200])
    refused(tmp_path, str(path), "truncated")


def test_deep_images_are_refused(classes: Path, refused) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(some(classes))
    refused(classes, str(some(classes)), "8 bits")


def test_one_class_only(classes: Path, refused) -> None:
    only = classes / "only"
    only.mkdir()
    (classes / "digit 0").rename(only / "digit 0")
    refused(only, "one class only (digit 0)")


def test_a_class_without_images(classes: Path, refused) -> None:
    (classes / "empty").mkdir()
    refused(classes, str(classes / "empty"), ".png")


def test_too_few_images_of_a_class(classes: Path, refused) -> None:
    (classes / "rare").mkdir()
    for number in range(2):
        Image.new("L", (8, 8)).save(classes / "rare" / f"{number}.png")
    refused(classes, "class 'rare'", "2 training images", "at least 3")


def test_a_class_in_the_test_split_alone(digits, tmp_path: Path, refused) -> None:
    write(tmp_path / "train", digits[0][:60], digits[1][:60])
    write(tmp_path / "test", digits[0][60:90], digits[1][60:90])
    (tmp_path / "test" / "digit 4").rename(tmp_path / "test" / "digit four")
    refused(tmp_path, "without any training image: digit four")


def test_incomplete_split_folders(digits, tmp_path: Path, refused) -> None:
    write(tmp_path / "test", digits[0][:60], digits[1][:60])
    refused(tmp_path, "no train folder")
    write(tmp_path / "train", digits[0][:60], digits[1][:60])
    (tmp_path / "val").mkdir()
    refused(tmp_path, str(tmp_path / "val"), "no class folders")
    write(tmp_path / "val", digits[0][:60], digits[1][:60])
    write(tmp_path / "validation", digits[0][:60], digits[1][:60])
    refused(tmp_path, "both val and validation")
