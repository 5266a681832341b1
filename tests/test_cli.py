"""The command line as a careless user meets it: one clear line, exit code 2, nothing left behind."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas_engine.arguments import parse_arguments
from nas_engine.cli import main
from nas_engine.errors import ConfigError
from nas_engine.store import SCHEMA_VERSION, RunStore


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which the command line refuses `arguments`."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    captured = capsys.readouterr()
    assert stop.value.code == 2, captured
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture
def run(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def npz(path: Path, **changes: Any) -> str:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x_train": rng.integers(0, 256, (400, 8, 8, 1), dtype=np.uint8),
        "y_train": np.arange(400) % 4,
        "x_test": rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8),
        "y_test": np.arange(40) % 4,
    }
    np.savez(path, **{name: array for name, array in {**arrays, **changes}.items() if array is not None})
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--space", "nasbench202"], "did you mean 'nasbench201'"),
        (["--controller", "pppo"], "did you mean 'ppo'"),
        (["--evalutions", "10"], "did you mean 'evaluations'"),
        (["--controller.learning_rat", "10"], "did you mean 'learning_rate'"),
        (["--evaluations", "0"], "greater than or equal to 1, got 0"),
        (["--evaluations"], "needs a value"),
        (["--constraints", "macs <= 1"], "macs"),
        (["--constraints", "macs less than 5"], "macs less than 5"),
        (["--constraints", "watts <= 5"], "watts"),
        (
            ["--costs", "[{name: measured, repeats: 3}]"],
            "latency is set twice, as threads 1, batch_size 1, warmup 5, rep",
        ),
        (["--device", "cuda"], "device 'cuda' cannot be used here; allowed: cpu"),
        (["--device", "meta"], "device 'meta' cannot be used here; allowed: cpu"),
        (["--device", "gpu"], "device 'gpu' cannot be used here; allowed: cpu"),
        (["absent.yaml"], "absent.yaml"),
        (["--data", "absent.npz"], "absent.npz"),
        (["one.yaml", "two.yaml"], "two.yaml"),
    ],
)
def test_bad_settings(capsys: pytest.CaptureFixture[str], run: str, arguments: list[str], expected: str) -> None:
    if arguments == ["--device", "cuda"] and sys.modules["torch"].cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert expected in refused(capsys, "search", *arguments, "--run", run)
    assert not Path(run).exists(), "a search that never began leaves no folder"


def few_per_class(count: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"x_train": rng.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8), "y_train": np.arange(count) % 2}


def with_nan() -> np.ndarray[Any, Any]:
    images = np.zeros((400, 8, 8, 1), dtype=np.float32)
    images[3, 2, 2] = np.nan
    return images


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"x_test": None}, "x_test"),
        ({"y_train": np.zeros(400, dtype=int), "y_test": np.zeros(40, dtype=int)}, "class"),
        ({"y_test": np.full(40, 9)}, "9"),
        ({"x_train": with_nan()}, "x_train"),
        ({**few_per_class(12), "y_test": np.arange(40) % 2}, "batch"),
    ],
    ids=["missing array", "one class", "label beyond the classes", "NaN pixels", "fewer images than a batch"],
)
def test_bad_arrays(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, run: str, changes: dict[str, Any], expected: str
) -> None:
    file = npz(tmp_path / "bad.npz", **changes)
    assert expected in refused(capsys, "search", "--data", file, "--run", run)
    assert not Path(run).exists()


def test_a_truncated_file(capsys: pytest.CaptureFixture[str], tmp_path: Path, run: str) -> None:
    file = Path(npz(tmp_path / "cut.npz"))
    file.write_bytes(file.read_bytes()[:1000])
    assert "cut.npz" in refused(capsys, "search", "--data", str(file), "--run", run)


def test_images_of_unequal_size(capsys: pytest.CaptureFixture[str], tmp_path: Path, run: str) -> None:
    for name, size in (("cats", 8), ("dogs", 9)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (size, 8)).save(tmp_path / "images" / name / f"{number}.png")
    line = refused(capsys, "search", "--data", str(tmp_path / "images"), "--run", run)
    assert "8x8" in line
    assert "9x8" in line or "8x9" in line


def test_a_run_folder_that_exists(capsys: pytest.CaptureFixture[str], run: str) -> None:
    RunStore.create(Path(run), {}).close()
    assert f"resume {run}" in refused(capsys, "search", "--run", run)


def test_an_unwritable_run_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write run folder" in refused(capsys, "search", "--run", str(tmp_path / "file" / "run"))


@pytest.mark.parametrize("command", ["resume", "show", "train", "export"])
def test_what_is_no_run(capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str) -> None:
    assert "is no run" in refused(capsys, command, str(tmp_path))


@pytest.mark.parametrize("command", ["resume", "show", "train", "export"])
def test_a_run_of_a_newer_schema(capsys: pytest.CaptureFixture[str], run: str, command: str) -> None:
    RunStore.create(Path(run), {}).close()
    with sqlite3.connect(Path(run) / "run.db") as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    assert "upgrade nas_engine" in refused(capsys, command, run)


def test_arguments_are_a_file_and_settings() -> None:
    file, settings = parse_arguments(
        ["my.yaml", "--seed", "3", "--space.channels=16", "--constraints", "macs <= 2e6", "--constraints", "params < 9"]
    )
    assert file == Path("my.yaml")
    assert settings == {"seed": 3, "space.channels": 16, "constraints": ["macs <= 2e6", "params < 9"]}
    with pytest.raises(ConfigError, match="needs a value"):
        parse_arguments(["--seed", "--run", "x"])


def test_every_command_has_help_with_an_example() -> None:
    for command in ("search", "resume", "show", "train", "export", "benchmark", "convert", "doctor"):
        output = subprocess.run(
            [sys.executable, "-m", "nas_engine", command, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert f"python -m nas_engine {command}" in output
        assert "Example" in output


def test_help_does_not_load_torch() -> None:
    lines = ["import sys, nas_engine.cli", "try: nas_engine.cli.main(['--help'])"]
    code = "\n".join([*lines, "except SystemExit: print('torch' in sys.modules)"])
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip().endswith("False")
