"""Networks of others: what the formats need of them, and what they say where it is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas_engine.errors import ExportError
from nas_engine.exports import export_network, export_one


def export_python(model: nn.Module, images: Tensor, folder: Path) -> float:
    return export_one(model, images, folder / "own.py", format="python", description={"by": "somebody"})


def test_a_network_of_torch_alone_becomes_one_file(third_party, images, tmp_path: Path) -> None:
    # What is imported for the type checker alone is never run.
    types = (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy\n"
    )
    assert export_python(third_party(types, classes=7), images, tmp_path) == 0


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("import numpy as np", "imports numpy; allowed: torch and the standard library"),
        ("import math, yaml.reader, numpy.linalg", "imports numpy, yaml;"),
        ("try:\n    from nas_engine.types import Trial\nexcept ImportError:\n    pass", "imports nas_engine;"),
        ("def f():\n    import scipy", "imports scipy;"),
        ("def load():\n    pass", "defines load"),
    ],
)
def test_what_stands_in_the_way_of_one_file_is_named(third_party, images, tmp_path: Path, extra, words) -> None:
    with pytest.raises(ExportError, match=words) as caught:
        export_python(third_party(extra), images, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "own.py").exists()


def test_the_other_formats_are_written_all_the_same(third_party, images, tmp_path: Path) -> None:
    model = third_party("import numpy")
    with pytest.raises(ExportError, match="imports numpy"):
        export_network(model, images, tmp_path, formats=["python", "torch_export", "state_dict"], description={})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [(entry["format"], entry["verified"]) for entry in manifest["files"]] == [
        ("torch_export", True),
        ("state_dict", True),
        ("state_dict", True),
    ]
    assert list(manifest["failures"]) == ["python"]


@pytest.mark.parametrize("format", ["state_dict", "python"])
def test_a_network_without_config(third_party, images, tmp_path: Path, format: str) -> None:
    model = third_party(config_name="settings")
    with pytest.raises(ExportError, match="Own has no dict attribute 'config'"):
        export_one(model, images, tmp_path / "own", format=format, description={})


@pytest.mark.parametrize("format", ["state_dict", "python"])
def test_a_config_of_other_than_plain_values(third_party, images, tmp_path: Path, format: str) -> None:
    model = third_party()
    model.config = {"classes": torch.tensor(10)}
    with pytest.raises(ExportError, match="Own"):
        export_one(model, images, tmp_path / "own", format=format, description={})


def test_a_config_that_builds_another_network(third_party, images, tmp_path: Path) -> None:
    model = third_party()
    model.config = {"classes": 9}
    with pytest.raises(ExportError, match="do not use it"):
        export_one(model, images, tmp_path / "own", format="state_dict", description={})


def test_a_class_that_cannot_be_found_again(images, tmp_path: Path) -> None:
    class Local(nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images[:, 0, 0])

    model = Local(8, 10)
    model.config = {"in_features": 8, "out_features": 10}
    with pytest.raises(ExportError, match=r"<locals>\.Local"):
        export_one(model, images, tmp_path / "own.pt", format="state_dict", description={})
    with pytest.raises(ExportError, match="define it there"):
        export_python(model, images, tmp_path)
