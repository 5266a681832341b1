"""The benchmark from the command line: numbers, files, plot, resuming, and mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_engine.cli import main
from nas_engine.spaces.table import TableSpace
from nas_engine.suite.methods import parse_methods
from nas_engine.suite.plot import regret_curves
from nas_engine.suite.run import SeedResult
from nas_engine.suite.summary import row


def benchmark(*arguments: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", *map(str, arguments)])
    assert stop.value.code in (0, None)


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", *map(str, arguments)])
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert len(lines) == 1, lines
    return lines[0]


def records(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    for record in found:
        del record["wall_seconds"]
    return sorted(found, key=lambda record: (record["method"], record["seed"]))


def test_results_have_the_promised_fields(described: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "results.json"
    benchmark(described, "--methods", "random,local-search", "--seeds", 12, "--budget-seconds", 600,
              "--processes", 1, "--out", out)  # fmt: skip
    printed = capsys.readouterr().out
    assert "| random | " in printed
    assert "256 architectures; reward loss, best 1; 12 seeds; 600 simulated seconds" in printed
    summary = json.loads(out.read_text())
    assert summary["optimum"] == 1.0
    assert [r["method"] for r in summary["rows"]] == ["random", "local-search"]
    singles = records(out.with_suffix(".seeds.jsonl"))
    assert len(singles) == 24
    for line in summary["rows"]:
        own = [r for r in singles if r["method"] == line["method"]]
        assert line["seeds"] == 12
        assert line["mean_test"] == pytest.approx(np.mean([r["reports"][0] for r in own]))
        assert line["std_loss"] == pytest.approx(np.std([r["reports"][1] for r in own]))
        assert line["evaluations_mean"] == line["unique_evaluations_mean"] == 60
        assert line["wall_seconds"] > 0
        assert 0 <= line["evaluations_to_optimum_share"] <= 1
        assert {f"evaluations_to_optimum_{name}" for name in ("mean", "median", "p95")} <= line.keys()
    random, local = summary["rows"]
    assert local["mean_loss"] < random["mean_loss"]


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(described: str, tmp_path: Path) -> None:
    for processes in (1, 2):
        benchmark(described, "--methods", "random,ppo", "--seeds", 11, "--budget-evaluations", 20,
                  "--processes", processes, "--out", tmp_path / f"{processes}.json")  # fmt: skip
    one, two = (records(tmp_path / f"{processes}.seeds.jsonl") for processes in (1, 2))
    assert one == two


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for the workers")
def test_workers_end_when_the_main_process_is_killed(described: str, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    command = [sys.executable, "-m", "nas_engine", "benchmark", described, "--methods=random", "--seeds=1000000",
               "--budget-evaluations=256", "--processes=2", f"--out={out}"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as main_process:
        _wait_for(lambda: out.with_suffix(".seeds.jsonl").exists() and _workers(main_process.pid))
        workers = _workers(main_process.pid)
        main_process.kill()
    _wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def _workers(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_interrupted_benchmark_goes_on(described: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "r.seeds.jsonl"
    arguments = [described, "--methods", "random,evolution", "--budget-evaluations", 20, "--processes", 1,
                 "--out", tmp_path / "r.json"]  # fmt: skip
    benchmark(*arguments, "--seeds", 6)
    whole = records(record)
    lines = record.read_text().splitlines(keepends=True)
    marked = [line.replace('"wall_seconds": ', '"wall_seconds": 1000') for line in lines[1:5]]
    record.write_text("".join([lines[0], *marked]) + lines[5][:30])  # the last was cut in half
    benchmark(*arguments, "--seeds", 6, "--resume")
    assert records(record) == whole
    assert sum('"wall_seconds": 1000' in line for line in record.read_text().splitlines()) == 4, "kept, not run again"
    capsys.readouterr()
    assert "another table or budget" in refused(capsys, *arguments[:4], 30, *arguments[5:], "--seeds", 6, "--resume")


def test_an_interrupted_benchmark_takes_in_other_methods_but_no_other_options(
    described: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record of a release whose defaults were others is not continued."""
    record = tmp_path / "r.seeds.jsonl"
    arguments = [described, "--seeds", 3, "--budget-evaluations", 20, "--processes", 1, "--out", tmp_path / "r.json"]
    benchmark(*arguments, "--methods", "random,evolution")
    first = records(record)
    benchmark(*arguments, "--methods", "random,local-search", "--resume")
    assert all(line in records(record) for line in first)
    benchmark(*arguments, "--methods", "random,local-search,evolution", "--resume")
    settings, *lines = record.read_text().splitlines(keepends=True)
    assert len(lines) == 9
    changed = json.loads(settings)
    changed["methods"]["evolution"]["options"]["sample_size"] = 4
    record.write_text(json.dumps(changed) + "\n" + "".join(lines))
    capsys.readouterr()
    asked = (*arguments, "--methods", "random,evolution", "--resume")
    assert "other options or proxies of 'evolution'" in refused(capsys, *asked)


def test_published_rows_stand_beside_ours(described: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "others.csv").write_text("name,seconds,acc,sd,where\nTheirs,600,97.5,0.5,a|b\nBare,,96,,\n")
    text = Path(described).read_text()
    columns = "{method: name, seconds: seconds, source: where, file: others.csv, columns: {test: [acc, sd]}}"
    Path(described).write_text(f"{text}published: {columns}\n")
    arguments = ["--methods", "random", "--seeds", 2, "--processes", 1, "--out", tmp_path / "r.json"]
    benchmark(described, *arguments)
    printed = capsys.readouterr().out
    assert "| Theirs, 600 s (a\\|b) | 97.50 ± 0.50 |" in printed
    assert "| Bare | 96.00 |" in printed
    other = ["--published", tmp_path / "other.csv"]
    (tmp_path / "other.csv").write_text("name,seconds,acc,sd,where\nShort,1\n", encoding="utf-8-sig")
    benchmark(described, *arguments, *other)
    assert "| Short, 1 s |" in capsys.readouterr().out
    (tmp_path / "other.csv").write_text("name,seconds,acc,sd,where\nLong,1,2,3,4,5\n")
    assert "row 1: more cells" in refused(capsys, described, *arguments, *other)
    (tmp_path / "other.csv").write_text("name,acc\nTheirs,1\n")
    assert "no column 'sd'" in refused(capsys, described, *arguments, "--published", tmp_path / "other.csv")


def test_the_plot_is_drawn(described: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "anytime.png"
    benchmark(described, "--methods", "random,local-search", "--seeds", 3, "--processes", 1,
              "--out", tmp_path / "r.json", "--plot", plot)  # fmt: skip
    assert plot.read_bytes().startswith(b"\x89PNG")
    wrong = tmp_path / "anytime.docx"
    assert "anytime.docx" in refused(capsys, described, "--methods", "random", "--seeds", 1, "--processes", 1,
                                     "--out", tmp_path / "r.json", "--plot", wrong)  # fmt: skip


def test_a_missing_matplotlib_is_one_line(
    described: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    line = refused(capsys, described, "--plot", tmp_path / "a.png", "--out", tmp_path / "r.json")
    assert 'pip install "nas-engine[bench]"' in line
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--methods", "pppo"], "did you mean 'ppo'"),
        (["--seeds", "0"], "at least 1"),
        (["--processes", "0"], "at least 1"),
        (["--budget-seconds", "-1"], "positive"),
        (["--budget-seconds", "5"], "less than one evaluation may cost, 10 s"),
        (["--budget-seconds", "600", "--budget-evaluations", "9"], "exclude each other"),
        (["--budget-evaluations", "0"], "at least 1"),
        (["--cap", "0"], "at least 1"),
        (["--seeds", "many"], "'--seeds'"),
        (["--seed", "3"], "No such option: --seed"),
        (["another.yaml"], "unexpected extra argument"),
        (["--reward", "lost"], "did you mean 'loss'"),
        (["--constraint", "size less than 3"], "is not understood"),
        (["--constraint", "size < 0"], "no row of table"),
        (["--file", "absent.csv"], "absent.csv"),
        (["--published", "others.csv"], "does not say what the columns"),
        (["--merge-isomorphic"], "needs the 'space'"),
        (["--out", "/proc/nowhere/results.json"], "cannot write"),
        (["--out", "."], "no name of a file"),
        (["--out", "/tmp"], "no name of a file"),
        (["--plot", "/tmp"], "no name of a file"),
        (["--methods", "ppo:learning_rate={"], "'{' is no value"),
        (["--methods", "ppo-model:optimism=[1"], "'[1' is no value"),
        (["--reward", "size"], "no method may see results"),
    ],
)
def test_mistakes_are_one_line(
    described: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "r.json")]
    assert expected in refused(capsys, described, "--methods", "random", *arguments, *out)
    assert not (tmp_path / "r.json").exists()


def test_a_budget_of_seconds_needs_costs(described: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(described).write_text(Path(described).read_text().replace("cost: seconds\n", ""))
    assert "has no cost column" in refused(capsys, described, "--budget-seconds", "600", "--out", tmp_path / "r.json")


def result(seed: int, found: int | None, spent: int) -> SeedResult:
    return SeedResult("m", seed, evaluations=spent, spent=spent, evaluations_to_optimum=found, reward=1.0, reports=[1])


def test_seeds_that_never_arrive_bound_the_mean_and_hide_the_quantile() -> None:
    all_found = row("m", [result(n, n + 1, n + 1) for n in range(100)], ["test"])
    assert [all_found[f"evaluations_to_optimum_{name}"] for name in ("mean", "median", "p95", "share")] == [
        50.5, 50, 95, 1.0,
    ]  # fmt: skip
    some = row("m", [result(0, 10, 10), result(1, 20, 20), result(2, None, 300)], ["test"])
    assert [some[f"evaluations_to_optimum_{name}"] for name in ("mean", "median", "p95", "share")] == [
        110.0, 20, None, 2 / 3,
    ]  # fmt: skip


def test_regret_follows_the_improvements(space: TableSpace) -> None:
    results = [
        SeedResult("m", 0, spent=10, improvements=[(1, 10.0, 5.0), (4, 40.0, 2.0), (8, 80.0, 1.0)]),
        SeedResult("m", 1, spent=10, improvements=[(1, 10.0, 3.0)]),
    ]
    grid, regrets = regret_curves(space, results, by_seconds=False)
    assert grid[0] == pytest.approx(1)
    assert grid[-1] == pytest.approx(10)
    assert regrets[0, 0] == 4
    assert regrets[0, -1] == 0
    assert (regrets[1] == 2).all()
    assert (regrets[0][(grid > 4.001) & (grid < 7.999)] == 1).all()


def test_a_list_is_one_value_of_an_option() -> None:
    [first, second] = parse_methods("ppo-model:optimism=[1,2]:every=2,random")
    assert first.options == {"optimism": [1, 2], "every": 2}
    assert second.label == "random"
