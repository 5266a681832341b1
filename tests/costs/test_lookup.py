"""The lookup cost model on the published NAS-Bench-201 hardware table, and on small tables with faults."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from nas_engine.costs.lookup import LookupCost, LookupOptions
from nas_engine.errors import ConfigError
from nas_engine.spaces.nasbench201 import NASBench201Space
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.types import Architecture, ImageShape

SPACE = BlockSpace(ImageShape(1, 8, 8, 10), BlockSpaceOptions(blocks=3, widths=3, merge_skips=True))
COLUMNS = {"gpu_ms": "latency_ms", "gpu_mj": "energy_mj"}


def write(folder: Path, text: str, name: str = "table.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def lookup(path: str, **options) -> LookupCost:
    return LookupCost(SPACE, LookupOptions(**{"path": path, "columns": COLUMNS, **options}))


def price(model: LookupCost, *genes: tuple[int, ...]) -> list[list[float]]:
    return model.estimate([Architecture(SPACE.name, g) for g in genes]).tolist()


def test_published_table(data_folder: Path) -> None:
    space = NASBench201Space(ImageShape(3, 32, 32, 10))
    options = LookupOptions(
        path=str(data_folder / "nasbench201_hardware.csv.gz"),
        keys_path=str(data_folder / "nasbench201_accuracy.csv.gz"),
        columns={
            "hwnas_cifar10_edgegpu_latency": "latency_ms",
            "hwnas_cifar10_edgegpu_energy": "energy_mj",
            "hwnas_cifar10_edgetpu_latency": "edgetpu_ms",
        },
        missing_value=-1,
    )
    model = LookupCost(space, options)
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    assert model.names == ("latency_ms", "energy_mj", "edgetpu_ms")
    assert model.estimate([space.decode(text)]).tolist() == [[5.80742, 24.2266, 0.957181]]
    costs = model.estimate(list(space))
    assert np.isfinite(costs[:, :2]).all()
    assert 0 < np.isnan(costs[:, 2]).sum() <= 4699  # that many of all 15,625 could not be compiled
    assert np.nanmin(costs) > 0


@pytest.mark.parametrize("key", ["102", "blocks:1-0-2", "1-0-2"])
def test_row_keys(tmp_path: Path, key: str) -> None:
    model = lookup(write(tmp_path, f"ops,gpu_mj,gpu_ms\n{key},7,0.5\n"))
    assert price(model, (1, 0, 2)) == [[0.5, 7.0]]


def test_what_the_table_does_not_know_is_nan(tmp_path: Path) -> None:
    model = lookup(write(tmp_path, "ops,gpu_ms,gpu_mj\n120,1,-1\n210,,3\n"), missing_value=-1)
    np.testing.assert_array_equal(
        price(model, (1, 2, 0), (2, 1, 0), (2, 2, 2)), [[1, np.nan], [np.nan, 3], [np.nan] * 2]
    )
    assert model.estimate([]).shape == (0, 2)


def test_own_row_goes_before_that_of_the_canonical_form(tmp_path: Path) -> None:
    model = lookup(write(tmp_path, "ops,gpu_ms,gpu_mj\n120,1,1\n102,2,2\n"))
    assert price(model, (1, 2, 0), (1, 0, 2), (0, 1, 2)) == [[1, 1], [2, 2], [1, 1]]


def test_compressed_table(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"ops,gpu_ms,gpu_mj\n120,1,2\n"))
    assert price(lookup(str(path)), (1, 2, 0)) == [[1, 2]]


def test_keys_from_a_second_file(tmp_path: Path) -> None:
    table = write(tmp_path, "idx,gpu_ms,gpu_mj\n1,3,4\n0,1,2\n")
    keys = write(tmp_path, "idx,ops\n0,120\n1,210\n", "keys.csv")
    assert price(lookup(table, keys_path=keys), (1, 2, 0), (2, 1, 0)) == [[1, 2], [3, 4]]


def test_equal_rows_for_one_architecture_are_fine(tmp_path: Path) -> None:
    assert price(lookup(write(tmp_path, "ops,gpu_ms,gpu_mj\n120,1,\n120,1,\n")), (1, 2, 0))[0][0] == 1


def test_rows_of_a_larger_space_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "nas_engine"):
        model = lookup(write(tmp_path, "ops,gpu_ms,gpu_mj\n129,1,2\n120,3,4\n"))
    assert price(model, (1, 2, 0)) == [[3, 4]]
    assert "1 rows are outside the space 'blocks'" in caplog.text


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "has no column 'ops'"),
        ("op,gpu_ms,gpu_mj\n", {}, "has no column 'ops': did you mean 'op'"),
        ("ops,gpu_m,gpu_mj\n120,1,2\n", {}, "has no column 'gpu_ms': did you mean 'gpu_m'"),
        ("ops,gpu_ms,gpu_mj\n120,1\n", {}, "line 2 has 2 cells, the header 3"),
        ("ops,gpu_ms,gpu_mj\n120,fast,2\n", {}, "line 2: gpu_ms is 'fast', which is no number"),
        ("ops,gpu_ms,gpu_mj\n120,1,2\n120,1,3\n", {}, "line 3: blocks:1-2-0 has another row"),
        ("ops,gpu_ms,gpu_mj\n9999,1,2\n", {}, "no row is an architecture of 'blocks'"),
        ("ops,gpu_ms,gpu_mj\n", {}, "no row is an architecture of 'blocks'"),
        ("ops,gpu_ms,gpu_mj\n120,1,2\n", {"columns": {}}, "needs 'columns'"),
    ],
)
def test_faulty_table_is_one_clear_line(tmp_path: Path, text: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lookup(write(tmp_path, text), **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        lookup(str(tmp_path / "absent.csv"))
    with pytest.raises(ConfigError, match="needs 'path'"):
        lookup("")
    with pytest.raises(ConfigError, match="cannot read"):
        lookup(write(tmp_path, "ops,gpu_ms,gpu_mj\n", "plain.csv.gz"))
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(b"ops,gpu_ms,gpu_mj\n" + b"120,1,2\n" * 1000)[:-20])
    with pytest.raises(ConfigError, match="cannot read"):
        lookup(str(cut))
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00\x8d")
    with pytest.raises(ConfigError, match="cannot read"):
        lookup(str(binary))


def test_index_without_a_key(tmp_path: Path) -> None:
    table = write(tmp_path, "idx,gpu_ms,gpu_mj\n5,3,4\n")
    with pytest.raises(ConfigError, match="idx '5' has no row in"):
        lookup(table, keys_path=write(tmp_path, "idx,ops\n0,120\n", "keys.csv"))


def test_one_metric_from_two_columns_is_refused() -> None:
    with pytest.raises(ValidationError, match="two columns give the same metric"):
        LookupOptions(path="t.csv", columns={"a": "latency_ms", "b": "latency_ms"})
