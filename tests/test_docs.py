"""The code in the documentation runs, and what it defines keeps the contracts and searches."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import nas_engine as ne
from nas_engine.costs.device import DeviceCost, DeviceOptions
from nas_engine.data.loading import load_dataset
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.testing.controller_contract import ControllerContract
from nas_engine.testing.space_contract import SpaceContract
from nas_engine.types import ImageShape, Metrics

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def extend() -> dict[str, Any]:
    """All names that the code blocks of docs/extend.md define, in a module so that they can be pickled."""
    module = sys.modules["docs_extend"] = ModuleType("docs_extend")
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "extend.md").read_text(), flags=re.DOTALL):
        exec(block, module.__dict__)
    return module.__dict__


class TestPlainSpace(SpaceContract):
    @pytest.fixture
    def space(self, extend: dict[str, Any]) -> Any:
        return extend["PlainSpace"](ImageShape(1, 8, 8, 10))


class TestClimber(ControllerContract):
    @pytest.fixture
    def make_controller(self, extend: dict[str, Any]) -> Any:
        return lambda space, seed: extend["Climber"](space, extend["ClimberOptions"](), seed)


def test_the_documented_objective_prefers_cheap_networks(extend: dict[str, Any]) -> None:
    objective = extend["Efficiency"]()
    assert objective(Metrics({"accuracy": 0.9, "macs": 1e6})) > objective(Metrics({"accuracy": 0.9, "macs": 2e6}))


def test_the_documented_evaluator_scores_real_images(extend: dict[str, Any]) -> None:
    dataset = load_dataset("digits")
    space = extend["PlainSpace"](dataset.shape)
    evaluator = extend["Naswot"](space, dataset)
    rng = np.random.default_rng(0)
    architectures = [space.sample(rng) for _ in range(4)]
    first, second = evaluator.evaluate(architectures), evaluator.evaluate(architectures)
    assert [m.accuracy for m in first] == [m.accuracy for m in second]
    assert all(np.isfinite(m.accuracy) for m in first)


def test_the_documented_file_of_a_device_prices_and_rewards(extend: dict[str, Any], tmp_path: Path) -> None:
    """The file as printed, completed with the choices that it leaves out."""
    space = MobileNetSpace(ImageShape(3, 32, 32, 10))
    [text] = re.findall(r"```json\n(.*?)```", (DOCS / "extend.md").read_text(), flags=re.DOTALL)
    content = json.loads(text)
    [example] = content["tables"]
    entries = {
        decision.name: {choice: [0.2, 0.5] for choice in decision.choices} | example["entries"].get(decision.name, {})
        for decision in space.decisions[2:]
    }
    content["tables"] = [
        {"context": {"width": width, "resolution": resolution}, "constant": example["constant"], "entries": entries}
        for width, resolution in itertools.product(*(decision.choices for decision in space.decisions[:2]))
    ]
    (tmp_path / "phone.json").write_text(json.dumps(content))
    others = len(space.decisions) - 3
    architecture = space.architecture([0, 0, 0, 6, 0, 6, 6, 0, 6, 6])
    [reward] = extend["rewards"](space, [architecture], np.array([0.5]), str(tmp_path / "phone.json"))
    assert reward == pytest.approx(0.5 * ((0.31 + 0.11 + 0.2 * others) / 2) ** -0.07)


def test_the_documented_profile_of_this_machine_prices(extend: dict[str, Any], tmp_path: Path) -> None:
    space = BlockSpace(options=BlockSpaceOptions(blocks=2, widths=2))
    [error] = extend["profile"](space, tmp_path / "here.json", samples=10)
    assert np.isfinite(error)
    model = DeviceCost(space, DeviceOptions(path=str(tmp_path / "here.json")))
    assert np.isfinite(model.estimate(list(space))).all()


@pytest.mark.slow
def test_the_documented_parts_search_together(extend: dict[str, Any], tmp_path: Path) -> None:
    result = ne.search(
        space="plain",
        controller={"name": "climber", "restart": 0.5},
        evaluator="naswot",
        evaluations=6,
        proposals_per_step=3,
        training={"epochs": 1},
        retrain={"candidates": 1, "random": 1},
        export={"formats": ["onnx", "torch_export"]},
        run=tmp_path / "run",
    )
    assert result.best.metrics["test_accuracy"] > 0
    assert {path.suffix for path in (tmp_path / "run" / "export").iterdir()} >= {".onnx", ".pt2", ".json"}
