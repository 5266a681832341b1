from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from nas_engine.data.loading import load_dataset

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(scope="session")
def batches(cifar) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Two training batches and a test batch: planar pixels [n, 3072] and labels [n]."""
    planes = {name: cifar[f"x_{name}"].transpose(0, 3, 1, 2).reshape(-1, 3072) for name in ("train", "test")}
    return {
        "data_batch_1": (planes["train"][:300], cifar["y_train"][:300]),
        "data_batch_2": (planes["train"][300:500], cifar["y_train"][300:500]),
        "test_batch": (planes["test"][:100], cifar["y_test"][:100]),
    }


def write_python(folder: Path, batches, protocol: int = 2, encode=str.encode) -> Path:
    for name, (data, labels) in batches.items():
        batch = {encode("data"): data, encode("labels"): labels.tolist(), encode("batch_label"): encode(name)}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    names = {encode("label_names"): [encode(name) for name in NAMES]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=protocol))
    return folder


def write_binary(folder: Path, batches) -> Path:
    for name, (data, labels) in batches.items():
        records = np.concatenate([labels[:, None].astype(np.uint8), data], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


def check(folder: Path, cifar) -> None:
    data = load_dataset(str(folder))
    assert data.class_names == NAMES
    assert (len(data.train) + len(data.validation), len(data.test)) == (500, 100)
    np.testing.assert_array_equal(data.test.labels, cifar["y_test"][:100])
    np.testing.assert_array_equal(data.validation.labels, cifar["y_train"][:500][data.validation_index])
    mean, std = (np.array(value)[:, None, None] for value in (data.mean, data.std))
    restored = (data.test.images.numpy() * std + mean) * 255
    np.testing.assert_allclose(restored.transpose(0, 2, 3, 1), cifar["x_test"][:100], atol=1e-3)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("encode", [str.encode, str], ids=["bytes", "str"])
def test_the_python_archive_is_read(batches, cifar, tmp_path, protocol, encode) -> None:
    check(write_python(tmp_path, batches, protocol, encode), cifar)


def test_pickles_of_python_2_are_read(batches, cifar, tmp_path) -> None:
    # Python 2 names numpy.core and stores str as bytes; rename what Python 3 writes in protocol 0's text form.
    write_python(tmp_path, batches, 2, encode=str.encode)
    for name in batches:
        content = (tmp_path / name).read_bytes()
        assert b"cnumpy._core.multiarray\n" in content or b"cnumpy.core.multiarray\n" in content
        (tmp_path / name).write_bytes(content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    check(tmp_path, cifar)


def test_the_binary_archive_is_read(batches, cifar, tmp_path) -> None:
    check(write_binary(tmp_path, batches), cifar)


@pytest.mark.parametrize("binary", [False, True])
def test_cifar_100_is_read_by_its_fine_classes(batches, tmp_path, binary) -> None:
    names = [f"fine {label}" for label in range(10)]
    for name, (data, labels) in {"train": batches["data_batch_1"], "test": batches["test_batch"]}.items():
        if binary:
            coarse_and_fine = np.stack([labels // 5, labels], axis=1).astype(np.uint8)
            content = np.concatenate([coarse_and_fine, data], axis=1).tobytes()
            (tmp_path / f"{name}.bin").write_bytes(content)
        else:
            batch = {b"data": data, b"fine_labels": labels.tolist(), b"coarse_labels": (labels // 5).tolist()}
            (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=2))
    if binary:
        (tmp_path / "fine_label_names.txt").write_text("\n".join(names))
    else:
        meta = {b"fine_label_names": [name.encode() for name in names], b"coarse_label_names": [b"x", b"y"]}
        (tmp_path / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    data = load_dataset(str(tmp_path))
    assert data.class_names == tuple(names)
    np.testing.assert_array_equal(data.test.labels, batches["test_batch"][1])


def test_missing_batches_are_named(batches, tmp_path, refused) -> None:
    write_python(tmp_path, batches)
    (tmp_path / "test_batch").unlink()
    refused(tmp_path, "has no test_batch", "extract the archive again")
    (tmp_path / "data_batch_1").unlink()
    refused(tmp_path, "no batch 1")


@pytest.mark.parametrize("length", [0, 1, 50, 5000])
def test_a_truncated_pickle_is_named(batches, tmp_path, refused, length) -> None:
    write_python(tmp_path, batches)
    path = tmp_path / "data_batch_2"
    path.write_bytes(path.read_bytes()[:length])
    refused(tmp_path, "data_batch_2", "extract the archive again")


@pytest.mark.parametrize("length", [0, 3072, 3073 * 10 + 5])
def test_a_truncated_binary_batch_is_named(batches, tmp_path, refused, length) -> None:
    write_binary(tmp_path, batches)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:length])
    refused(tmp_path, "data_batch_2.bin", "multiple of 3073")


@pytest.mark.parametrize(
    ("batch", "word"),
    [
        ([1, 2], "list instead of a dict"),
        ({b"data": np.zeros((2, 5), np.uint8), b"labels": [0, 1]}, "'data'"),
        ({b"labels": [0, 1]}, "'data'"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "'labels'"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, "1"]}, "'labels'"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 2**70]}, "'labels'"),
        ({b"data": np.zeros((2, 3072), np.uint8)}, "'labels'"),
        ({b"data": np.zeros((2, 3072), np.float32), b"labels": [0, 1]}, "'data' of bytes"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": np.zeros(2)}, "'labels'"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 12]}, "beyond its 10 named classes"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, -1]}, "-1"),
    ],
)
def test_a_pickle_that_is_no_batch_is_named(batches, tmp_path, refused, batch, word) -> None:
    write_python(tmp_path, batches)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    refused(tmp_path, "data_batch_1", word)


def test_a_pickle_that_runs_code_is_refused(batches, tmp_path, refused) -> None:
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    write_python(tmp_path, batches)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": Trap()}))
    refused(tmp_path, "data_batch_1", "it asks for pathlib", "no need of")
    assert not (tmp_path / "sprung").exists()
