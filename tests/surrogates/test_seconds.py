"""The model of evaluation times: what it learns from a few real ones, and what it says where it knows nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nas_engine.spaces.table import TableSpace
from nas_engine.surrogates.seconds import SecondsModel
from nas_engine.tables.description import load_description
from nas_engine.tables.table import load_table


@pytest.fixture(scope="module")
def nasbench201(data_folder: Path) -> TableSpace:
    return TableSpace(load_table(load_description("nasbench201", file=data_folder / "nasbench201_accuracy.csv.gz")))


def test_twenty_training_times_tell_most_of_the_others(nasbench201: TableSpace) -> None:
    """Parameters and MACs are known for free, and training time follows them."""
    table, genes = nasbench201.table, nasbench201.table.genes.astype(np.int64)
    assert table.costs is not None
    rows = np.random.default_rng(0).permutation(len(table.costs))
    model = SecondsModel(nasbench201)
    model.fit(genes[rows[:20]], table.costs[rows[:20]])
    errors = model.predict_log(genes[rows[20:]]) - np.log(table.costs[rows[20:]])
    assert np.square(errors).mean() < 0.4 * np.log(table.costs[rows[20:]]).var()


def test_without_data_all_take_equally_long_and_with_one_as_long_as_that(nasbench201: TableSpace) -> None:
    genes, model = nasbench201.table.genes[:50].astype(np.int64), SecondsModel(nasbench201)
    assert np.ptp(model.predict_log(genes)) == 0
    model.fit(genes[:1], np.array([7.0]))
    np.testing.assert_allclose(np.exp(model.predict_log(genes)), 7.0)
    model.fit(genes[:0], np.empty(0))
    assert np.ptp(model.predict_log(genes)) == 0
