"""Reading tables: every format gives the same table, and what is wrong with one is said in a line."""

from __future__ import annotations

import gzip
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_engine.errors import ConfigError
from nas_engine.tables.description import TableDescription
from nas_engine.tables.table import Table, load_table

ROWS = [("20", 0.5, 7.0), ("01", 0.25, 3.5), ("12", 0.75, 1.0)]


def table_of(path: Path, **settings: Any) -> Table:
    defaults = {"name": "t", "file": str(path), "decisions": "ops", "reward": "score", "cost": "s"}
    return load_table(TableDescription.model_validate({**defaults, **settings}))


def csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        table_of(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def separated(separator: str) -> bytes:
    lines = [["ops", "score", "s"], *([o, str(r), str(c)] for o, r, c in ROWS)]
    return "\n".join(separator.join(line) for line in lines).encode()


def objects() -> list[dict[str, Any]]:
    return [{"ops": o, "score": r, "s": c} for o, r, c in ROWS]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("csv", separated(",")),
        ("tsv", separated("\t")),
        ("jsonl", "\n".join(map(json.dumps, objects())).encode()),
        ("json", json.dumps(objects()).encode()),
        ("json", json.dumps({name: [row[name] for row in objects()] for name in ("ops", "score", "s")}).encode()),
    ],
)
def test_formats_give_the_same_table(tmp_path: Path, ending: str, content: bytes, packed: bool) -> None:
    path = tmp_path / (f"t.{ending}.gz" if packed else f"t.{ending}")
    path.write_bytes(gzip.compress(content) if packed else content)
    table = table_of(path)
    assert table.genes.tolist() == [[0, 1], [1, 2], [2, 0]]
    assert table.rewards.tolist() == [0.25, 0.75, 0.5]
    assert table.costs is not None
    assert table.costs.tolist() == [3.5, 1.0, 7.0]


def test_npz_with_a_matrix_of_genes(tmp_path: Path) -> None:
    genes = np.array([[2, 0], [0, 1], [1, 2]])
    np.savez(tmp_path / "t.npz", genes=genes, score=[0.5, 0.25, 0.75], s=[7, 3.5, 1])
    table = table_of(tmp_path / "t.npz", decisions=["genes.0", "genes.1"])
    assert table.genes.tolist() == [[0, 1], [1, 2], [2, 0]]
    assert "no column 'gene.0': did you mean 'genes'" in refusal(tmp_path / "t.npz", decisions=["gene.0"])


def test_a_mapping_of_nested_rows(tmp_path: Path) -> None:
    rows = {"20": {"acc": [1.0, 3.0], "size": {"params": 5}}, "01": {"acc": [2.0, 4.0], "size": {"params": 6}}}
    (tmp_path / "t.json").write_text(json.dumps(rows))
    settings = {"decisions": "$key", "reward": "acc.1", "cost": None, "known": {"params": "size.params"}}
    table = table_of(tmp_path / "t.json", **settings)
    assert table.rewards.tolist() == [4.0, 3.0]
    assert table.known.tolist() == [[6.0], [5.0]]
    assert "no column 'acc.2'" in refusal(tmp_path / "t.json", **{**settings, "reward": "acc.2"})


def test_a_column_of_lists_is_no_column_of_numbers(tmp_path: Path) -> None:
    for lists in ([[1, 2], [3, 4]], [[1, 2], [3]]):
        rows = [{"ops": str(number), "score": numbers} for number, numbers in enumerate(lists)]
        (tmp_path / "t.json").write_text(json.dumps(rows))
        assert "score" in refusal(tmp_path / "t.json", cost=None)
    assert len(table_of(tmp_path / "t.json", cost=None, reward="score.0")) == 2


def test_numbers_of_rows_are_no_decision(tmp_path: Path) -> None:
    text = "row,score\n" + "\n".join(f"h{number},{number}" for number in range(33_000))
    assert "33,000 choices" in refusal(csv(tmp_path / "t.csv", text), cost=None, decisions=["row"])


def test_what_is_reported_is_not_known_before(tmp_path: Path) -> None:
    file = csv(tmp_path / "t.csv", "ops,score,test\n0,1,3\n1,2,4\n")
    assert "known names score" in refusal(file, cost=None, known=["score"])
    assert "known names test" in refusal(file, cost=None, known={"x": "test"}, report=["test"])


def test_separated_names_become_choices(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", "ops,score\nconv|skip,1\nskip|conv,2\n")
    found = table_of(path, decisions={"column": "ops", "separator": "|"}, cost=None)
    assert [d.choices for d in found.decisions] == [("conv", "skip")] * 2
    named = table_of(
        path, decisions={"column": "ops", "separator": "|", "choices": ["none", "skip", "conv"]}, cost=None
    )
    assert named.genes.tolist() == [[1, 2], [2, 1]]


def test_numeric_choices_are_in_numeric_order(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", "width,score\n16,1\n8,2\n128,3\n")
    table = table_of(path, decisions=["width"], cost=None)
    assert table.decisions[0].choices == ("8", "16", "128")
    assert table.rewards.tolist() == [2, 1, 3]


def test_a_reward_to_minimise_is_negative(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", "ops,loss\n0,3\n1,2\n")
    table = table_of(path, reward={"column": "loss", "direction": "min"}, cost=None)
    assert table.rewards.tolist() == [-3, -2]
    assert table.reward_of(float(table.rewards.max())) == 2
    assert table.reports.tolist() == [[3], [2]]


def test_a_context_picks_rows(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", "ops,score,data\n0,1,c10\n1,2,c10\n0,3,c100\n")
    table = table_of(path, cost=None, context={"column": "data", "value": "c10"})
    assert table.rewards.tolist() == [1, 2]
    assert "with different values" in refusal(path, cost=None)
    message = refusal(path, cost=None, context={"column": "data", "value": "svhn"})
    assert "is empty: no row has 'svhn' in column 'data'" in message


def test_limits_remove_rows_and_keep_the_meaning_of_genes(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", "ops,score,ms\n0,1,5\n1,2,-1\n2,3,9\n3,4,2\n")
    settings = {"cost": None, "known": {"latency_ms": "ms"}, "missing": -1}
    table = table_of(path, **settings, constraints=["latency_ms <= 5"])
    assert table.genes.ravel().tolist() == [0, 3]
    assert len(table.decisions[0].choices) == 4
    assert np.isnan(table_of(path, **settings).known[1, 0])
    assert "no row of table 't.csv' meets ms < 1" in refusal(path, **settings, constraints=["ms < 1"])
    assert "did you mean 'ms'" in refusal(path, **settings, constraints=["mss < 1"])


def test_a_second_file_is_joined_by_index(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", "idx,ops,score,params\n0,0,1,10\n1,1,2,20\n2,2,3,30\n")
    other = csv(tmp_path / "more.csv", "idx,ms\n2,7\n0,5\n1,6\n")
    settings = {"cost": None, "joined": {"file": str(other), "index": "idx"}, "known": ["ms", "params"]}
    assert table_of(path, **settings).known.tolist() == [[5, 10], [6, 20], [7, 30]]
    csv(other, "idx,ms\n0,5\n1,6\n")
    assert "has no row whose 'idx' is '2'" in refusal(path, **settings)
    csv(other, "idx,ms\n0,5\n1,6\n1,6\n2,3\n")
    assert "holds a value twice" in refusal(path, **settings)


def test_a_pickle_of_the_form_of_hw_nas_bench(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", "ops,score\n0,1\n1,2\n2,3\n")
    latencies = {"edgegpu_latency": list(np.array([5.0, 6.5, 7.0])), "edgetpu_latency": np.array([1, -1, 2])}
    metrics = {"config": [{"arch_str": "|a~0|"}] * 3, **latencies}
    (tmp_path / "hw.pickle").write_bytes(pickle.dumps({"nasbench201": {"cifar10": metrics}, "fbnet": {}}))
    joined = {"file": str(tmp_path / "hw.pickle"), "index": "$row"}
    known = {name: f"nasbench201.cifar10.{name}_latency" for name in ("edgegpu", "edgetpu")}
    settings = {"cost": None, "joined": joined, "known": known, "missing": -1}
    table = table_of(path, **settings, constraints=["edgetpu > 0"])
    assert table.genes.ravel().tolist() == [0, 2]
    assert table.known.tolist() == [[5.0, 1.0], [7.0, 2.0]]
    (tmp_path / "hw.pickle").write_bytes(pickle.dumps({"nasbench201": print}))
    assert "it asks for builtins.print" in refusal(path, **settings)


def test_equal_rows_are_one(tmp_path: Path) -> None:
    assert len(table_of(csv(tmp_path / "t.csv", "ops,score\n0,1\n1,2\n0,1\n"), cost=None)) == 2


@pytest.mark.parametrize(
    ("content", "settings", "expected"),
    [
        ("ops,score\n0,1\n1,2\n0,3\n", {}, "rows 1 and 3 are the same architecture (0) with different values"),
        ("ops,score\n0,1\n1,nan\n", {}, "row 2: the reward 'score' is no finite number"),
        ("ops,score\n0,1\n1,\n", {}, "row 2: the reward 'score' is no finite number"),
        ("ops,score\n0,1\n1,good\n", {}, "row 2: 'good' in column 'score' is no number"),
        ("ops,score\n", {}, "is empty"),
        ("", {}, "no column 'ops'"),
        ("ops,score\n01,1\n1x,2\n", {}, "row 2: '1x' in column 'ops' is not 2 digits"),
        ("ops,score\n01,1\n1,2\n", {}, "row 2: '1' in column 'ops' is not 2 digits"),
        ("ops,score\n01,1\n¹2,2\n", {}, "row 2: '¹2' in column 'ops' is not 2 digits"),
        ("ops,score\n01,1\n12,2\n", {"decisions": {"column": "ops", "choices": ["a", "b"]}}, "'2' is no choice"),
        ("ops,score\n01,1\n", {"decisions": {"column": "ops", "names": ["a", "a"]}}, "2 different names"),
        ("ops,score\n01,1\n", {"decisions": {"column": "ops", "choices": [["a"]]}}, "one for each of 2 decisions"),
        ("ops,scores\n0,1\n", {}, "did you mean 'scores'"),
        ("ops,score\n0,1,2\n", {}, "line 2 has 3 values instead of 2"),
        ("ops,score,s\n0,1,0\n", {"cost": "s"}, "the cost 's' is 0.0, which is no positive number"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: str, settings: dict[str, Any], expected: str) -> None:
    assert expected in refusal(csv(tmp_path / "t.csv", content), **{"cost": None, **settings})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv.gz", b"no gzip"),
        ("t.csv.gz", gzip.compress(b"ops,score\n0,1\n" * 1000, mtime=0)[:40]),
        ("t.csv", b"\xff\xfe\x00"),
        ("t.json", b"{"),
        ("t.jsonl", b'{"ops": 1}\n{'),
        ("t.npz", b"PK no archive"),
        ("t.parquet", b""),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert name in refusal(tmp_path / name)


def test_a_pickled_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", ops=np.array(["0", None], dtype=object), score=[1, 2], s=[1, 1])
    assert "damaged" in refusal(tmp_path / "t.npz")


def test_tables_load_without_torch() -> None:
    code = "import sys, nas_engine.suite.worker; print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False"
