"""The published rows of NAS-Bench-201 come out of this harness too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nas_engine.spaces.table import TableSpace
from nas_engine.suite.markdown import read_published
from nas_engine.suite.methods import METHODS
from nas_engine.suite.run import Budget, run_seed
from nas_engine.tables.description import load_description
from nas_engine.tables.table import load_table

SEEDS = 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "published"),
    [("random", "RS (w/o sharing)"), ("evolution-published", "REA"), ("reinforce-published", "REINFORCE")],
)
def test_within_one_published_deviation(
    method: str, published: str, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_ENGINE_DATA", str(data_folder))
    table = load_table(load_description("nasbench201"))
    assert table.description.published is not None
    (theirs,) = [
        row
        for row in read_published(table.description.published)
        if row["method"] == published and row["budget"] == 12_000
    ]
    space = TableSpace(table)
    ours = [run_seed(space, METHODS[method], seed, Budget(seconds=12_000)) for seed in range(SEEDS)]
    means = np.mean([result.reports for result in ours], axis=0)
    for column, mean in zip(table.description.reported, means, strict=True):
        assert abs(mean - theirs[f"mean_{column}"]) < theirs[f"std_{column}"]
