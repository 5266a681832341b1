"""Settings: the same names in YAML, options and Python; mistakes are answered with the nearest valid name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas_engine.config import SearchConfig, describe, load_config
from nas_engine.errors import ConfigError


def test_yaml_round_trip_is_complete(tmp_path: Path) -> None:
    config = load_config(overrides={"space.channels": 16, "controller": "reinforce", "constraints": ["macs <= 2e6"]})
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    again = load_config(file)
    assert again == config
    assert again.space.options.model_dump()["channels"] == 16
    assert again.controller.name == "reinforce"
    assert again.constraints == ("macs <= 2e6",)


def test_options_win_over_yaml(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text("evaluations: 50\nspace: {name: nasbench201, channels: 4}\n")
    config = load_config(file, {"evaluations": 60, "space.cells": 2})
    assert config.evaluations == 60
    assert config.space.options.model_dump() == {"channels": 4, "cells": 2, "allow_disconnected": False}


def test_another_component_does_not_inherit_options(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text("controller: {name: ppo, clip_coef: 0.1}\n")
    assert load_config(file, {"controller": "random"}).controller.name == "random"
    same = load_config(file, {"controller": "ppo"}).controller.options.model_dump()
    assert same["clip_coef"] == 0.1


def test_the_order_of_options_does_not_matter() -> None:
    config = load_config(overrides={"controller.learning_rate": 0.5, "controller": "reinforce"})
    assert (config.controller.name, config.controller.options.model_dump()["learning_rate"]) == ("reinforce", 0.5)


def test_options_of_the_default_component_need_no_name() -> None:
    assert load_config(overrides={"space.channels": 4}).space.name == "nasbench201"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"evalutions": 5}, "did you mean 'evaluations'"),
        ({"space.chanels": 5}, "did you mean 'channels'"),
        ({"controller": "pppo"}, "did you mean 'ppo'"),
        ({"space": "nasbench202"}, "did you mean 'nasbench201'"),
        ({"evaluator": "supernett"}, "did you mean 'supernet'"),
        ({"objective": "softpower"}, "did you mean 'soft_power'"),
        ({"retrain.candidate": 1}, "did you mean 'candidates'"),
        ({"training.epoch": 1}, "did you mean 'epochs'"),
        ({"evaluations": 0}, "evaluations: Input should be greater than or equal to 1, got 0"),
        ({"evaluations": "many"}, "evaluations: Input should be a valid integer"),
        ({"validation_fraction": 1.5}, "validation_fraction"),
        ({"space.channels": 0}, "space.channels"),
        ({"retrain": 3}, "retrain"),
        ({"space": {"channels": 3}}, "needs a name"),
        ({"export.formats": ["onxx"]}, "'onnx'"),
        ({"seed": float("nan")}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed.x": 3, "seed": 5}, "'seed' is 5, which has no 'x'"),
        ({"evaluator": 5, "evaluator.epochs": 3}, "'evaluator' is 5"),
        ({"training": [1], "training.epochs": 3}, "'training' is [1]"),
        ({"controller.learning_rate": 0.5, "controller": "random"}, "unknown setting 'controller.learning_rate'"),
    ],
)
def test_mistakes_are_one_clear_line(overrides: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(overrides=overrides)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [("- a\n- b\n", "mapping"), ("a: [1\n", "not valid YAML"), ("3", "mapping"), ("1: 2", "mapping")],
)
def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=expected) as error:
        load_config(file)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("")
    assert load_config(file) == load_config()


def test_every_setting_is_described() -> None:
    rows = list(describe())
    names = [name for name, _, _ in rows]
    assert set(SearchConfig.model_fields) <= set(names)
    assert {"space.channels", "controller.learning_rate", "training.epochs", "retrain.random"} <= set(names)
    assert [name for name, _, meaning in rows if not meaning] == []


def test_files_are_named_as_seen_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is resumed from other folders than it was started in; a name that stands for no file stays as it is."""
    for name in ("images.npz", "table.csv", "keys.csv", "phone.json", "digits"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    table = {"name": "lookup", "path": "table.csv", "keys_path": "keys.csv", "columns": {"ms": "latency_ms"}}
    config = load_config(overrides={"data": "images.npz", "costs": [table, {"name": "device", "path": "phone.json"}]})
    assert config.data == str(tmp_path / "images.npz")
    assert config.costs[0].options.model_dump(include={"path", "keys_path"}) == {
        "path": str(tmp_path / "table.csv"),
        "keys_path": str(tmp_path / "keys.csv"),
    }
    assert config.costs[1].options.model_dump() == {"path": str(tmp_path / "phone.json")}
    assert load_config(overrides={"data": "digits"}).data == "digits"
    assert load_config(overrides={"data": "absent.npz"}).data == "absent.npz"


@pytest.mark.parametrize(
    ("overrides", "controller"),
    [
        ({}, "ppo"),
        ({"evaluator": "training"}, "ppo-model"),
        ({"evaluator.epochs": 3, "evaluator": "training"}, "ppo-model"),
        ({"controller.every": 1, "evaluator": "training"}, "ppo-model"),
        ({"controller": "random", "evaluator": "training"}, "random"),
    ],
)
def test_costly_evaluations_get_the_controller_that_needs_the_fewest(
    overrides: dict[str, object], controller: str
) -> None:
    assert load_config(overrides=overrides).controller.name == controller
