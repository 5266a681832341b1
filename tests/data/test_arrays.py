from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas_engine.data.loading import load_dataset
from nas_engine.errors import DataError

Arrays = dict[str, np.ndarray]


@pytest.fixture
def arrays(digits) -> Arrays:
    images, labels = digits
    return {"x_train": images[:400], "y_train": labels[:400], "x_test": images[400:500], "y_test": labels[400:500]}


@pytest.fixture
def colour(cifar) -> Arrays:
    return {name: cifar[name][:200] for name in ("x_train", "y_train", "x_test", "y_test")}


@pytest.fixture
def saved(tmp_path: Path):
    def save(arrays: Arrays, **changes: object) -> str:
        path = tmp_path / "own.npz"
        merged = {**arrays, **changes}
        np.savez(path, **{name: value for name, value in merged.items() if value is not None})
        return str(path)

    return save


def equal(first: str, second: str) -> None:
    one, two = load_dataset(first), load_dataset(second)
    torch.testing.assert_close(one.train.images, two.train.images)
    torch.testing.assert_close(one.test.images, two.test.images)
    assert torch.equal(one.train.labels, two.train.labels)


@pytest.mark.parametrize(
    "view",
    [lambda x: x[..., None], lambda x: x[:, None], lambda x: x.reshape(len(x), -1), lambda x: np.asfortranarray(x)],
    ids=["NHWC", "NCHW", "flat", "fortran"],
)
def test_grey_layouts_mean_the_same(arrays, tmp_path, view) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    changed = {name: view(value) if name.startswith("x") else value for name, value in arrays.items()}
    np.savez(tmp_path / "b.npz", **changed)
    equal(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))


def test_colour_layouts_mean_the_same_and_compression_too(colour, tmp_path) -> None:
    np.savez(tmp_path / "a.npz", **colour)
    np.savez_compressed(tmp_path / "b.npz", **{**colour, "x_train": colour["x_train"].transpose(0, 3, 1, 2)})
    equal(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.int64, np.uint16])
def test_other_number_types_mean_the_same(arrays, tmp_path, dtype) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez(tmp_path / "b.npz", **{k: v.astype(dtype) if k.startswith("x") else v for k, v in arrays.items()})
    equal(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))


def test_pixels_from_zero_to_one_mean_the_same_as_bytes(arrays, tmp_path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    scaled = {name: value / 255.0 if name.startswith("x") else value for name, value in arrays.items()}
    np.savez(tmp_path / "b.npz", **scaled)
    equal(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))
    assert load_dataset(str(tmp_path / "b.npz")).mean == pytest.approx(load_dataset(str(tmp_path / "a.npz")).mean)


def test_boolean_and_16_bit_pixels(arrays, saved) -> None:
    binary = load_dataset(saved(arrays, x_train=arrays["x_train"] > 100, x_test=arrays["x_test"] > 100))
    assert binary.mean[0] == pytest.approx((arrays["x_train"] > 100).mean(), abs=0.02)
    deep = load_dataset(saved(arrays, **{k: arrays[k].astype(np.uint16) * 257 for k in ("x_train", "x_test")}))
    assert deep.mean[0] == pytest.approx(arrays["x_train"].mean() / 255, abs=0.02)


def test_images_that_are_not_square(colour, saved) -> None:
    data = load_dataset(saved(colour, x_train=colour["x_train"][:, :20], x_test=colour["x_test"][:, :20]))
    assert (data.shape.height, data.shape.width) == (20, 32)


def test_a_given_validation_split_is_used(arrays, saved) -> None:
    data = load_dataset(saved(arrays, x_val=arrays["x_test"][:50], y_val=arrays["y_test"][:50]))
    assert (len(data.train), len(data.validation), len(data.test)) == (400, 50, 100)
    assert torch.equal(data.validation.labels, data.test.labels[:50])
    assert len(data.validation_index) == 0


def test_labels_of_any_integers_strings_and_shapes(arrays, saved) -> None:
    plain = load_dataset(saved(arrays))
    spread = load_dataset(saved(arrays, y_train=arrays["y_train"] * 7 + 3, y_test=arrays["y_test"] * 7 + 3))
    assert spread.class_names == tuple(str(digit * 7 + 3) for digit in range(10))
    column = load_dataset(saved(arrays, y_train=arrays["y_train"][:, None].astype(float)))
    words = np.array(["nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    texts = [
        load_dataset(saved(arrays, y_train=names[arrays["y_train"]], y_test=names[arrays["y_test"]]))
        for names in (words, words.astype("S"))
    ]
    assert torch.equal(plain.train.labels, spread.train.labels)
    assert torch.equal(plain.train.labels, column.train.labels)
    for text in texts:
        assert text.class_names == tuple(sorted(words))
        named = [text.class_names[label] for label in text.test.labels]
        assert named == words[arrays["y_test"]].tolist()


def test_class_names_follow_the_labels_that_occur(arrays, saved) -> None:
    names = np.array([f"digit {digit}" for digit in range(10)])
    assert load_dataset(saved(arrays, classes=names)).class_names == tuple(names)
    some = {split: arrays[f"y_{split}"] >= 4 for split in ("train", "test")}
    part = {name: value[some[name[2:]]] for name, value in arrays.items()}
    data = load_dataset(saved(part, classes=names))
    assert data.class_names == tuple(names[4:])
    assert int(data.test.labels.max()) == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": None}, ["no array 'x_train'", "needed: x_train, y_train"]),
        ({"y_test": None, "Y_test": np.arange(3)}, ["no array 'y_test'", "did you mean 'Y_test'?"]),
        ({"x_val": np.zeros((2, 8, 8))}, ["no array 'y_val'"]),
        ({"x_valid": np.zeros((2, 8, 8))}, ["unknown array 'x_valid'", "did you mean 'x_val'?"]),
        ({"classes": np.arange(10)}, ["'classes'", "dtype int64", "strings"]),
        ({"classes": np.array(["a", "b"])}, ["beyond its 2 named classes", "2, 3, 4"]),
    ],
)
def test_wrong_names(arrays, saved, refused, changes, words) -> None:
    refused(saved(arrays, **changes), "own.npz", *words)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((400,), ["[400]"]),
        ((400, 63), ["[400, 63]", "square"]),
        ((400, 3072), ["[400, 3072]", "reshape"]),
        ((400, 3, 8, 3), ["both outer axes"]),
        ((400, 8, 8, 5), ["no axis of 1 to 4 channels"]),
        ((400, 2, 2, 2, 2), ["[400, 2, 2, 2, 2]"]),
        ((400, 0, 8), ["0x8 pixels"]),
        ((400, 9, 8), ["9x8", "8x8", "resize"]),
        ((400, 8, 8, 3), ["3 channels", "1 channel"]),
        ((0, 8, 8), ["0 images", "400 labels"]),
    ],
)
def test_wrong_shapes(arrays, saved, refused, shape, words) -> None:
    refused(saved(arrays, x_train=np.zeros(shape, np.uint8)), "x_train", *words)


def test_empty_splits(arrays, saved, refused) -> None:
    refused(saved(arrays, x_test=arrays["x_test"][:0], y_test=arrays["y_test"][:0]), "x_test", "is empty")
    refused(saved(arrays, x_train=arrays["x_train"][:0], y_train=arrays["y_train"][:0]), "x_train", "is empty")


def with_pixels(images: np.ndarray, *values: float) -> np.ndarray:
    changed = images.astype(np.float32) / 255
    changed[7:].flat[: len(values)] = values
    return changed


def test_nan_and_infinite_pixels_are_counted(arrays, saved, refused) -> None:
    nan, inf = float("nan"), float("inf")
    bad = with_pixels(arrays["x_train"], nan, nan, -inf)
    refused(saved(arrays, x_train=bad), "x_train", "2 NaN", "1 infinite", "image 7")
    good = with_pixels(arrays["x_train"])
    refused(saved(arrays, x_train=good, x_test=with_pixels(arrays["x_test"], inf)), "x_test", "0 NaN", "1 infinite")


@pytest.mark.parametrize("value", [-0.1, 1.2])
def test_pixels_out_of_range(arrays, saved, refused, value) -> None:
    changes = {"x_train": with_pixels(arrays["x_train"]), "x_test": with_pixels(arrays["x_test"], value)}
    refused(saved(arrays, **changes), "x_test", f"{value:g}", "allowed: 0 to 1")


def test_pixels_that_are_no_numbers(arrays, saved, refused) -> None:
    refused(saved(arrays, x_test=arrays["x_test"].astype(str)), "x_test", "dtype <U")
    refused(saved(arrays, x_test=arrays["x_test"].astype(complex)), "x_test", "complex")


def test_images_that_are_all_equal(arrays, saved, refused) -> None:
    grey = {"x_train": np.full((400, 8, 8), 0.1), "x_test": np.full((100, 8, 8), 0.1)}
    refused(saved(arrays, **grey), "all training pixels are equal")


def test_one_constant_channel_is_left_as_it_is(colour, saved) -> None:
    images = {name: colour[name].copy() for name in ("x_train", "x_test")}
    for value in images.values():
        value[..., 2] = 77
    data = load_dataset(saved(colour, **images))
    assert data.std[2] == 1.0
    assert float(data.train.images[:, 2].abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.arange(399) % 10, ["400 images but 399 labels"]),
        (np.zeros(400, int), ["one class only"]),
        (np.arange(400) % 10 - 1, ["40 labels", "-1 at position 0"]),
        (np.arange(400) / 2, ["200 labels", "0.5 at position 1"]),
        (np.where(np.arange(400) == 5, np.nan, 1.0), ["1 labels", "nan at position 5"]),
        (np.full(400, 2**63, np.uint64), ["400 labels"]),
        (np.eye(10)[np.arange(400) % 10], ["argmax"]),
        (np.array(["a", "b"] * 200), ["store both in the same way"]),
        (np.array([b"\xff", b"b"] * 200), ["UTF-8"]),
        (np.zeros(400, complex), ["complex128"]),
        (
            np.array([0] * 200 + list(range(10)) * 19 + [3] * 9 + [77]),
            ["class '77'", "1 training images", "at least 2"],
        ),
        (np.arange(400) % 9, ["without any training image: 9"]),
    ],
)
def test_wrong_labels(arrays, saved, refused, labels, words) -> None:
    refused(saved(arrays, y_train=labels), "train", *words)


def test_a_class_without_validation_image(arrays, saved, refused) -> None:
    few = arrays["y_test"] != 3
    refused(saved(arrays, x_val=arrays["x_test"][few], y_val=arrays["y_test"][few]), "class '3'", "validation")


def test_object_arrays_are_never_unpickled(arrays, saved, refused, tmp_path) -> None:
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    trap = np.empty(400, dtype=object)
    trap[:] = Trap()
    refused(saved(arrays, y_train=trap), "pickled Python objects", "never read")
    assert not (tmp_path / "sprung").exists()


def test_files_that_are_no_npz(refused, tmp_path, arrays) -> None:
    path = tmp_path / "own.npz"
    for content in (b"", b"hello", b"PK\x03\x04 but no zip"):
        path.write_bytes(content)
        refused(path, "own.npz", "no NPZ")
    with path.open("wb") as file:
        np.save(file, arrays["x_train"])
    refused(path, "own.npz", "no NPZ")


def test_a_truncated_file_is_named(saved, arrays, refused) -> None:
    path = Path(saved(arrays))
    content = path.read_bytes()
    for length in (100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, "own.npz")


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_damaged_files_are_refused_or_read(data, tmp_path, digits) -> None:
    path = tmp_path / "damaged.npz"
    images, labels = digits
    part = {"x_train": images[:60], "y_train": labels[:60], "x_test": images[60:90], "y_test": labels[60:90]}
    np.savez(path, **part)
    content = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        loaded = load_dataset(str(path))
    except DataError as error:
        message = str(error)
    else:
        message = f"{len(loaded.train) + len(loaded.validation)} images"
    assert "60 images" in message or str(path) in message
    assert "\n" not in message
