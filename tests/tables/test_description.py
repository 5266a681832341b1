"""Descriptions of tables: what a mistake in one says, and how files are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas_engine.errors import ConfigError
from nas_engine.tables.description import built_in_tables, load_description
from nas_engine.tables.table import load_table

MINIMAL = "file: t.csv\ndecisions: [a, b]\nreward: score\n"


@pytest.fixture
def described(tmp_path: Path):
    (tmp_path / "t.csv").write_text("a,b,score\nx,1,0.5\ny,1,0.7\n")

    def write(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_three_lines_describe_a_table(described) -> None:
    description = load_description(described(MINIMAL))
    assert description.name == "mine"
    assert description.reported == ("score",)
    table = load_table(description)
    assert [decision.choices for decision in table.decisions] == [("x", "y"), ("1",)]
    assert table.rewards.tolist() == [0.5, 0.7]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MINIMAL + "rewards: x\n", "did you mean 'reward'"),
        (MINIMAL.replace("score", "{colum: score}"), "did you mean 'column'"),
        ("file: t.csv\ndecisions: [a]\n", "reward is missing"),
        (MINIMAL.replace("score", "{column: score, direction: up}"), "reward.direction"),
        (MINIMAL.replace("[a, b]", "{columns: [a], column: b}"), "give either 'columns'"),
        (MINIMAL + "merge_isomorphic: true\n", "needs the 'space'"),
        (MINIMAL + "constraints: ['b less than 3']\n", "b less than 3"),
        (MINIMAL + "name: a:b\n", "name"),
        ("- 1\n", "must hold a mapping"),
        ("a: [\n", "not valid YAML"),
        (MINIMAL.replace("t.csv", "absent.csv"), "absent.csv"),
    ],
)
def test_a_mistake_is_one_line(described, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_table(load_description(described(text)))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_table_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'nasbench201'"):
        load_description("nasbench202")
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_description("absent.yaml")


def test_a_file_is_found_in_the_data_folder_or_given(
    described, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "data"
    elsewhere.mkdir()
    moved = (tmp_path / "t.csv").rename(elsewhere / "t.csv")
    path = described(MINIMAL)
    monkeypatch.delenv("NAS_ENGINE_DATA", raising=False)
    with pytest.raises(ConfigError, match="set NAS_ENGINE_DATA"):
        load_description(path)
    assert load_description(path, file=moved).file == str(moved)
    monkeypatch.setenv("NAS_ENGINE_DATA", str(elsewhere))
    assert load_description(path).file == str(moved)


def test_another_reward_keeps_direction_and_unit(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_ENGINE_DATA", str(data_folder))
    reward = load_description("nasbench201", {"reward": "val12_cifar100"}).reward
    assert (reward.column, reward.percent) == ("val12_cifar100", True)


def test_the_built_in_tables(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_ENGINE_DATA", str(data_folder))
    tables = {name: load_table(load_description(name)) for name in built_in_tables()}
    cells = tables["nasbench201"]
    assert len(cells) == 15_625
    assert cells.reports[cells.rewards.argmax()].tolist() == [94.3733, 73.0933, 46.3333]
    assert cells.costs is not None
    assert cells.costs.mean() == pytest.approx(109.7, abs=0.05)
    # Row 0 of the file: 421211.
    first = int((cells.genes == [4, 2, 1, 2, 1, 1]).all(axis=1).argmax())
    assert cells.rewards[first] == 63.364
    assert dict(zip(cells.known_names, cells.known[first], strict=True)) == {"params": 129306, "macs": 15647360}
    macro = tables["nasbench-macro"]
    assert len(macro) == 6_561
    assert "".join(map(str, macro.genes[macro.rewards.argmax()])) == "22212202"
    assert macro.rewards.max() == pytest.approx(93.13, abs=0.005)


def test_a_latency_limit_on_another_device(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_ENGINE_DATA", str(data_folder))
    free = load_table(load_description("nasbench201-hardware", {"constraints": ["params >= 0"]}))
    assert len(free) == 15_625 - 235, "rows whose measured graph had collapsed are masked"
    compiled = load_table(
        load_description("nasbench201-hardware", {"constraints": ["hwnas_cifar10_edgetpu_latency < 1e9"]})
    )
    assert len(compiled) < 15_625 - 4_699 + 1, "rows that could not be compiled have no latency"
    tight = load_table(load_description("nasbench201-hardware", {"constraints": ["help_pixel2 <= 12"]}))
    assert 0 < len(tight) < len(free)
