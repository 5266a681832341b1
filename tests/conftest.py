"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

# Tests of small networks run faster, and the same everywhere, without a thread pool for each worker.
os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of public benchmark tables and images; the test is skipped where it is absent."""
    folder = Path(os.environ.get("NAS_ENGINE_DATA") or SHARED_DATA)
    if not folder.is_dir():
        pytest.skip(f"needs the folder of benchmark tables: set NAS_ENGINE_DATA (looked in {folder})")
    return folder
