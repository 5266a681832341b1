"""The data of a run: found from another folder, not needed once it is finished, and checked for changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import nas_engine as ne
from nas_engine.cli import main
from nas_engine.config import load_config
from nas_engine.errors import ConfigError
from nas_engine.job import Job
from nas_engine.store import RunStore


@pytest.mark.slow
def test_a_finished_run_needs_its_data_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], uninterrupted: ne.SearchResult
) -> None:
    run = shutil.copytree(uninterrupted.run, tmp_path / "run")
    with RunStore.open(run) as store:
        store.set_meta("config", {**store.meta("config"), "data": str(tmp_path / "gone.npz")})
    assert ne.resume(run).report == uninterrupted.report
    with pytest.raises(SystemExit) as done:
        main(["resume", str(run)])
    assert done.value.code == 0
    assert uninterrupted.best.text in capsys.readouterr().out


@pytest.mark.slow
def test_changed_data_are_noticed(unfinished: Callable[..., Path]) -> None:
    run = unfinished("exported")
    with RunStore.open(run) as store:
        data = store.meta("data")
        store.set_meta("data", {**data, "images": {**data["images"], "train": 3}})
    with pytest.raises(ConfigError, match="changed since run"):
        ne.resume(run)


@pytest.mark.slow
def test_a_run_can_be_resumed_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    digits = load_digits()
    images, labels = {"x_train": digits.images[:1200], "x_test": digits.images[1200:]}, digits.target
    np.savez(tmp_path / "digits.npz", **images, y_train=labels[:1200], y_test=labels[1200:])
    monkeypatch.chdir(tmp_path)
    Job.start(load_config(overrides={**settings, "data": "digits.npz", "run": "run"})).context.close()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Job.resume(tmp_path / "run").context.close()
    assert load_config(tmp_path / "run" / "config.yaml").data == str(tmp_path / "digits.npz")


@pytest.mark.slow
def test_changed_test_images_are_noticed(tmp_path: Path, settings: dict[str, Any]) -> None:
    digits = load_digits()
    arrays = {"x_train": digits.images[:1200], "y_train": digits.target[:1200], "y_test": digits.target[1200:]}
    np.savez(tmp_path / "digits.npz", **arrays, x_test=digits.images[1200:])
    settings = {**settings, "data": str(tmp_path / "digits.npz"), "run": str(tmp_path / "run")}
    Job.start(load_config(overrides=settings)).context.close()
    np.savez(tmp_path / "digits.npz", **arrays, x_test=16 - digits.images[1200:])
    with pytest.raises(ConfigError, match="changed since run"):
        Job.resume(tmp_path / "run")
