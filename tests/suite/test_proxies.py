"""Benchmarks of methods with zero-cost proxies: what they cost is charged, once; mistakes are one line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_engine.cli import main
from nas_engine.spaces.table import TableSpace
from nas_engine.suite.methods import parse_methods
from nas_engine.suite.proxies import SimulatedProxies
from nas_engine.suite.run import Budget, run_seed
from nas_engine.tables.description import load_description
from nas_engine.tables.table import load_table

PROXIES = "proxies: {file: proxies.csv, columns: [near, noise], seconds: {near: near_s, noise: noise_s}}\n"


@pytest.fixture
def with_proxies(described: str) -> str:
    """The table of `described`; `near` tells its loss up to noise for 0.5 s, `noise` nothing for 0.25 s."""
    rng = np.random.default_rng(0)
    lines = ["a,b,c,d,near,noise,near_s,noise_s"]
    for genes in itertools.product(range(4), repeat=4):
        near = -sum(abs(gene - best) for gene, best in zip(genes, (3, 2, 1, 0), strict=True)) + rng.normal()
        lines.append(",".join(map(str, (*genes, near, rng.normal(), 0.5, 0.25))))
    path = Path(described)
    (path.parent / "proxies.csv").write_text("\n".join(lines) + "\n")
    path.write_text(path.read_text() + PROXIES)
    return described


@pytest.fixture
def proxy_space(with_proxies: str) -> TableSpace:
    return TableSpace(load_table(load_description(with_proxies)))


def run(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", *map(str, arguments)])
    return int(stop.value.code or 0)


def test_each_architecture_is_charged_once(proxy_space: TableSpace) -> None:
    proxies = SimulatedProxies(proxy_space, ("noise", "near"))
    first, second, third = proxy_space.architectures[:3]
    values = proxies([first, second, first])
    assert proxies.seconds == 2 * 0.75
    assert values.tolist() == proxy_space.proxies.values[[0, 1, 0]][:, ::-1].tolist()
    proxies([third, second])
    assert proxies.seconds == 3 * 0.75
    only = SimulatedProxies(proxy_space, ("noise",))
    assert only([third]).shape == (1, 1)
    assert only.seconds == 0.25


def test_their_seconds_are_part_of_the_budget(proxy_space: TableSpace) -> None:
    """Evaluations take 10 s; a pool of 100 and 16 candidates a proposal, 0.5 s each, leave fewer of them than 25."""
    [method] = parse_methods("ppo-model:proxies=[near]:proxy_pool=100")
    result = run_seed(proxy_space, method, 0, Budget(seconds=300))
    # Of a pool drawn from 256 rows about 83 differ; the last proposal no longer fits.
    assert 30 < result.proxy_seconds <= 0.5 * (100 + 16 * result.evaluations)
    assert 15 < result.evaluations < 25
    assert result.evaluations <= (300 - result.proxy_seconds) / 10
    assert result.simulated_seconds == pytest.approx(10 * result.evaluations + result.proxy_seconds)
    [plain] = parse_methods("ppo-model")
    without = run_seed(proxy_space, plain, 0, Budget(seconds=300))
    assert (without.evaluations, without.proxy_seconds, without.simulated_seconds) == (30, 0, 300)


def test_results_name_what_proxies_cost(with_proxies: str, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    method = "ppo-model:proxies=[near,noise]:proxy_pool=50"
    arguments = [with_proxies, "--methods", f"random,{method}", "--seeds", 2,
                 "--budget-seconds", 200, "--processes", 1, "--out", out]  # fmt: skip
    assert run(*arguments) == 0
    rows = {row["method"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["random"]["proxy_seconds_mean"] == 0
    assert rows[method]["proxy_seconds_mean"] > 0


def test_proxies_that_take_the_whole_budget_are_said_so(
    with_proxies: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pool of 100 costs more than the 20 s: no evaluation is left, and no number to report."""
    arguments = [with_proxies, "--seeds", 1, "--processes", 1, "--out", tmp_path / "r.json"]
    methods = ["--methods", "ppo-model:proxies=[near]:proxy_pool=100"]
    assert run(*arguments, *methods, "--budget-seconds", 20) == 2
    error = capsys.readouterr().err
    assert "no evaluation fits 20" in error
    assert "raise --budget-seconds" in error


def test_methods_with_proxies_join_a_benchmark(with_proxies: str, tmp_path: Path) -> None:
    arguments = [with_proxies, "--seeds", 1, "--budget-evaluations", 4, "--processes", 1, "--out", tmp_path / "r.json"]
    assert run(*arguments, "--methods", "random") == 0
    assert run(*arguments, "--methods", "random,ppo-model:proxies=[near]", "--resume") == 0
    assert run(*arguments, "--methods", "random", "--resume") == 0


def test_other_proxies_are_another_benchmark(
    with_proxies: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finished seeds count only where the proxies are still the same, if a method uses them."""
    arguments = [with_proxies, "--seeds", 1, "--budget-evaluations", 4, "--processes", 1, "--resume"]
    mine = ["--methods", "ppo-model:proxies=[near]", "--out", tmp_path / "mine.json"]
    others = ["--methods", "random", "--out", tmp_path / "others.json"]
    assert run(*arguments, *mine) == run(*arguments, *mine) == run(*arguments, *others) == 0
    file = Path(with_proxies).parent / "proxies.csv"
    file.write_text(file.read_text().replace("0.25", "0.5"))
    assert run(*arguments, *others) == 0
    capsys.readouterr()
    assert run(*arguments, *mine) == 2
    assert "other options or proxies of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "change", "expected"),
    [
        ("ppo-model:proxies=[naer]", str, "controller.proxies: unknown proxy 'naer': did you mean 'near'?"),
        ("ppo-model:proxies=[near,near]", str, "names one twice"),
        ("ppo-model:proxies=[near]", lambda text: text.replace(PROXIES, ""), "has no zero-cost proxies: add 'proxies'"),
        ("ppo-model:proxies=[near]", lambda text: text.replace("proxies.csv", "no.csv"), "'no.csv', which was not"),
        ("ppo:proxies=[near]", str, "unknown setting 'controller.proxies'"),
    ],
)
def test_a_mistake_is_one_line(
    with_proxies: str, capsys: pytest.CaptureFixture[str], method: str, change: Any, expected: str
) -> None:
    path = Path(with_proxies)
    path.write_text(change(path.read_text()))
    assert run(with_proxies, "--methods", method, "--seeds", 1) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert expected in line


def test_a_file_given_by_hand_is_used(with_proxies: str, tmp_path: Path) -> None:
    moved = tmp_path / "moved.csv"
    (Path(with_proxies).parent / "proxies.csv").rename(moved)
    arguments = [with_proxies, "--methods", "ppo-model:proxies=[noise]", "--seeds", 1, "--budget-evaluations", 3,
                 "--processes", 1, "--out", tmp_path / "r.json"]  # fmt: skip
    assert run(*arguments) == 2
    assert run(*arguments, "--proxies", moved) == 0
