"""Real images to write archives from, and the check that a source is refused in one useful line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from nas_engine.data.loading import load_dataset
from nas_engine.errors import DataError

Refused = Callable[..., str]


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [1797, 8, 8] in 0..240 (16 levels) and labels [1797]."""
    bunch = load_digits()
    return (bunch.images * 15).astype(np.uint8), bunch.target


@pytest.fixture(scope="session")
def cifar(data_folder: Path) -> dict[str, np.ndarray]:
    """Real CIFAR-10 images, uint8 [n, 32, 32, 3]."""
    with np.load(data_folder / "cifar10_7k.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture
def refused() -> Refused:
    """Load a source and return the message of the DataError, which must be one line with all the given words."""

    def check(source: object, *words: str) -> str:
        with pytest.raises(DataError) as caught:
            load_dataset(str(source))
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message, f"{word!r} is not in: {message}"
        return message

    return check
