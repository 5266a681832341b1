"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

# Networks of this size are faster without threads, which wait for each other when tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of public benchmark tables and images; the test is skipped where it is absent."""
    folder = Path(os.environ.get("NAS_ENGINE_DATA") or SHARED_DATA)
    if not folder.is_dir():
        pytest.skip(f"needs the folder of benchmark tables: set NAS_ENGINE_DATA (looked in {folder})")
    return folder
