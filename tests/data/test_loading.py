from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from nas_engine.data.loading import load_dataset
from nas_engine.errors import ConfigError
from nas_engine.types import ImageShape


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_digits_are_read_whole_and_stratified() -> None:
    data = load_dataset("digits")
    assert data.shape == ImageShape(channels=1, height=8, width=8, classes=10)
    assert data.class_names == tuple("0123456789")
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    everything = np.bincount(load_digits().target)
    for split, share in ((data.test, 0.2), (data.validation, 0.16), (data.train, 0.64)):
        assert split.images.dtype == torch.float32
        assert split.labels.dtype == torch.int64
        assert split.images.is_contiguous()
        assert np.abs(np.bincount(split.labels) - share * everything).max() <= 1


def test_the_pixels_are_scikit_learns_after_undoing_the_normalisation() -> None:
    data = load_dataset("digits", seed=3)
    bunch = load_digits()
    restored = (data.validation.images[:, 0] * data.std[0] + data.mean[0]) * 16
    np.testing.assert_allclose(restored, bunch.images[data.validation_index], atol=1e-4)
    np.testing.assert_array_equal(data.validation.labels, bunch.target[data.validation_index])


def test_statistics_come_from_the_training_split_alone(data_folder: Path) -> None:
    data = load_dataset(str(data_folder / "cifar10_7k.npz"), seed=1)
    with np.load(data_folder / "cifar10_7k.npz") as archive:
        kept = np.delete(archive["x_train"], data.validation_index, axis=0) / 255.0
    # numpy adds along these axes without pairing, which leaves an error of 1e-11.
    np.testing.assert_allclose(data.mean, kept.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(data.std, kept.std(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(data.train.images.mean(dim=(0, 2, 3)), np.zeros(3), atol=1e-5)
    np.testing.assert_allclose(data.train.images.std(dim=(0, 2, 3)), np.ones(3), atol=1e-4)
    assert abs(float(data.test.images.mean())) > 1e-4  # normalised by foreign statistics


def test_cifar_archive_of_arrays(data_folder: Path) -> None:
    data = load_dataset(str(data_folder / "cifar10_7k.npz"))
    assert data.shape == ImageShape(channels=3, height=32, width=32, classes=10)
    assert data.class_names[:3] == ("airplane", "automobile", "bird")
    assert (len(data.train), len(data.validation), len(data.test)) == (4000, 1000, 2000)
    assert np.bincount(data.validation.labels).tolist() == [100] * 10


def test_the_seed_moves_the_validation_split_but_never_the_test_split() -> None:
    first, again, other = (load_dataset("digits", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.train.images, again.train.images)
    np.testing.assert_array_equal(first.validation_index, again.validation_index)
    assert not np.array_equal(first.validation_index, other.validation_index)
    assert torch.equal(first.test.labels, other.test.labels)
    undone = [data.test.images * data.std[0] + data.mean[0] for data in (first, other)]
    torch.testing.assert_close(undone[0], undone[1])


def test_splits_share_no_image(data_folder: Path) -> None:
    # Digits has no duplicate images, so equal pixels would mean that an image is in two splits.
    data = load_dataset("digits")
    train, validation, test = rows(data.train.images), rows(data.validation.images), rows(data.test.images)
    assert not train & validation
    assert not train & test
    assert not validation & test


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_validation_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="validation_fraction"):
        load_dataset("digits", validation_fraction=fraction)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed -1"):
        load_dataset("digits", seed=-1)


def test_missing_sources(refused, tmp_path: Path) -> None:
    refused("digit", "'digit'", "did you mean 'digits'?", "FILE.npz")
    refused(tmp_path / "nowhere.npz", "nowhere.npz", "check the path")
    refused("", "no file or folder ''")
    refused("x" * 5000, "cannot read")


def test_a_file_of_another_kind(refused, tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_text("0,1,2\n")
    refused(path, "images.csv", "allowed: digits, FILE.npz")


def test_an_empty_folder(refused, tmp_path: Path) -> None:
    refused(tmp_path, "no class folders", "nothing")
    (tmp_path / "readme.txt").write_text("hello")
    refused(tmp_path, "readme.txt")
