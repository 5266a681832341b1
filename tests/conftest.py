"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from nas_engine.spaces.table import TableSpace

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

# Networks of this size are faster without threads, which wait for each other when tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where a test asks for more threads, those that wait sleep: there are fewer processors than threads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of public benchmark tables and images; the test is skipped where it is absent."""
    folder = Path(os.environ.get("NAS_ENGINE_DATA") or SHARED_DATA)
    if not folder.is_dir():
        pytest.skip(f"needs the folder of benchmark tables: set NAS_ENGINE_DATA (looked in {folder})")
    return folder


@pytest.fixture
def incomplete_table() -> Callable[..., TableSpace]:
    """Makes a table that holds some of all combinations of choices, with a metric that has gaps."""
    # Not at the top: what runs on a machine with a GPU needs fewer packages than tables do.
    from nas_engine.spaces.table import TableSpace
    from nas_engine.tables.description import TableDescription
    from nas_engine.tables.table import load_table

    def make(path: Path, rows: int, decisions: int, choices: int) -> TableSpace:
        rng = np.random.default_rng(0)
        genes = np.array(np.unravel_index(rng.permutation(choices**decisions)[:rows], (choices,) * decisions)).T
        size = np.where(rng.random(rows) < 0.1, np.nan, rng.uniform(1, 2, rows))
        np.savez(path, genes=genes, score=rng.random(rows), size=size)
        columns = [f"genes.{number}" for number in range(decisions)]
        described = {"name": "t", "file": str(path), "decisions": columns, "reward": "score", "known": ["size"]}
        return TableSpace(load_table(TableDescription.model_validate(described)))

    return make
