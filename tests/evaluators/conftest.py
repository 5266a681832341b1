"""Real digits at sizes that train in a second."""

from __future__ import annotations

import dataclasses

import pytest

from nas_engine.data.base import ImageDataset, Split
from nas_engine.data.loading import load_dataset
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space


@pytest.fixture(scope="session")
def digits() -> ImageDataset:
    return load_dataset("digits", validation_fraction=0.2, seed=0)


@pytest.fixture(scope="session")
def few_digits(digits: ImageDataset) -> ImageDataset:
    def first(split: Split, count: int) -> Split:
        return Split(split.images[:count].clone(), split.labels[:count].clone())

    return dataclasses.replace(
        digits, train=first(digits.train, 160), validation=first(digits.validation, 60), test=first(digits.test, 40)
    )


@pytest.fixture(scope="session")
def space(digits: ImageDataset) -> SearchSpace:
    return NASBench201Space(digits.shape, NASBench201Options(channels=4, cells=1))
