"""Proxies of a table: a second file, matched by the decisions; mistakes are one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nas_engine.errors import ConfigError
from nas_engine.tables.description import load_description
from nas_engine.tables.proxies import load_proxies
from nas_engine.tables.table import load_table

DESCRIPTION = "file: t.csv\ndecisions: [a, b]\nreward: score\n"
PROXIES = "proxies: {file: p.csv, columns: {flow: f, wot: w}, seconds: {flow: fs, wot: ws}}\n"
GOOD = "w,b,a,f,fs,ws\n4,2,x,1.5,0.1,0.2\n3,1,y,-inf,0.3,0.4\n,1,x,2.5,0,0\n"


@pytest.fixture
def write(tmp_path: Path):
    (tmp_path / "t.csv").write_text("a,b,score\nx,1,0.5\nx,2,0.6\ny,1,0.7\ny,2,0.8\n")

    def written(proxies: str, text: str = DESCRIPTION + PROXIES) -> str:
        (tmp_path / "p.csv").write_text(proxies)
        (tmp_path / "mine.yaml").write_text(text)
        return str(tmp_path / "mine.yaml")

    return written


def test_rows_are_matched_by_their_decisions(write) -> None:
    """In any order of rows and columns; what is not there is unknown and costs nothing."""
    proxies = load_proxies(load_table(load_description(write(GOOD))))
    assert proxies.names == ("flow", "wot")
    expected = [[2.5, np.nan], [1.5, 4.0], [-np.inf, 3.0], [np.nan, np.nan]]
    np.testing.assert_array_equal(proxies.values, expected)
    assert proxies.seconds.tolist() == [[0, 0], [0.1, 0.2], [0.3, 0.4], [0, 0]]


def test_rows_that_a_limit_takes_out_are_passed_over(write) -> None:
    table = load_table(load_description(write(GOOD, DESCRIPTION + PROXIES + "constraints: ['score >= 0.6']\n")))
    assert load_proxies(table).seconds.tolist() == [[0.1, 0.2], [0.3, 0.4], [0, 0]]


def test_decisions_may_be_digits_of_one_column(tmp_path: Path) -> None:
    """The second file need not hold all choices."""
    (tmp_path / "t.csv").write_text("ops,score\n00,1\n02,2\n11,3\n")
    (tmp_path / "p.csv").write_text("ops,wot\n11,7\n00,5\n")
    (tmp_path / "m.yaml").write_text(
        "file: t.csv\ndecisions: ops\nreward: score\nproxies: {file: p.csv, columns: wot}\n"
    )
    proxies = load_proxies(load_table(load_description(str(tmp_path / "m.yaml"))))
    np.testing.assert_array_equal(proxies.values, [[5], [np.nan], [7]])
    assert proxies.seconds.tolist() == [[0], [0], [0]]


def test_their_file_may_be_given(write, tmp_path: Path) -> None:
    described = write(GOOD)
    (tmp_path / "p.csv").rename(tmp_path / "elsewhere.csv")
    load_table(load_description(described))  # not missed before it is read
    table = load_table(load_description(described, proxies=tmp_path / "elsewhere.csv"))
    assert load_proxies(table).values[1].tolist() == [1.5, 4.0]


@pytest.mark.parametrize(
    ("proxies", "text", "expected"),
    [
        (GOOD, DESCRIPTION, "table 'mine' has no zero-cost proxies: add 'proxies'"),
        (GOOD, DESCRIPTION + PROXIES.replace("p.csv", "absent.csv"), "in 'absent.csv', which was not found: give it"),
        (GOOD, DESCRIPTION + PROXIES.replace("flow: f,", "flow: g,"), "has no column 'g'"),
        (GOOD, DESCRIPTION + PROXIES.replace("{flow: fs,", "{flw: fs,"), "did you mean 'flow'?"),
        (GOOD, DESCRIPTION + PROXIES.replace("columns:", "column:"), "did you mean 'columns'"),
        (GOOD, DESCRIPTION + "cost: b\n" + PROXIES.replace(", wot: ws", ""), "proxies.seconds lacks wot"),
        (GOOD.replace("1.5", "much"), DESCRIPTION + PROXIES, "'much' in column 'f' is no number"),
        (GOOD.replace("0.4", "-1"), DESCRIPTION + PROXIES, "row 2: the seconds of a proxy are negative or unknown"),
        (GOOD.replace("0.4", ""), DESCRIPTION + PROXIES, "row 2: the seconds of a proxy are negative or unknown"),
        (GOOD.replace(",x,", ",z,"), DESCRIPTION + PROXIES, "row 1: 'z' is no choice of 'a'"),
        ("w,b,a,f,fs,ws\n", DESCRIPTION + PROXIES, "no row of 'p.csv' is an architecture of table 'mine'"),
    ],
)
def test_a_mistake_is_one_line(write, proxies: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_proxies(load_table(load_description(write(proxies, text))))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_a_description_is_refused(write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not say what the columns of '[^']*p\.csv' are: add 'proxies'"):
        load_description(write(GOOD, DESCRIPTION), proxies=tmp_path / "p.csv")
