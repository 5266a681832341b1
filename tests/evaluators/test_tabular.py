"""The tabular evaluator keeps the promises of the protocol and says what the table says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nas_engine as ne
from nas_engine.errors import ConfigError
from nas_engine.evaluators.tabular import TabularEvaluator, TabularOptions
from nas_engine.spaces.nasbench201 import NASBench201Space
from nas_engine.testing.block_space import BlockSpace, BlockSpaceOptions
from nas_engine.testing.evaluator_contract import EvaluatorContract
from nas_engine.types import Architecture, Failure, ImageShape, Metrics


@pytest.fixture
def nasbench201(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_ENGINE_DATA", str(data_folder))


@pytest.mark.usefixtures("nasbench201")
class TestTabularKeepsTheContract(EvaluatorContract):
    @pytest.fixture
    def make_evaluator(self) -> Any:
        return lambda space: TabularEvaluator(space)


@pytest.mark.usefixtures("nasbench201")
def test_genes_mean_the_same_in_space_and_table() -> None:
    space = NASBench201Space(ImageShape(3, 32, 32, 10))
    evaluator = TabularEvaluator(space, options=TabularOptions(reward="val12_cifar100"))
    first = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    (outcome,) = evaluator.evaluate([space.decode(first)])
    assert isinstance(outcome, Metrics)
    assert outcome.accuracy == pytest.approx(0.3184)
    assert set(outcome.values) == {"accuracy", "simulated_s"}, "test accuracies are not for a search to see"
    assert outcome.seconds == outcome.values["simulated_s"] > 0, "a controller that learns seconds is told those"
    assert evaluator.fidelity.key.startswith("tabular-nasbench201-val12_cifar100")


def block_table(folder: Path, rewards: list[float], **settings: Any) -> str:
    """Two decisions of three choices each, as in a `BlockSpace`; the row 2-2 is missing."""
    rows = [f"{index // 3},{index % 3},{reward}" for index, reward in enumerate(rewards)]
    (folder / "t.csv").write_text("\n".join(["a,b,score", *rows]) + "\n")
    lines = ["file: t.csv", "decisions: {columns: [a, b], choices: ['0', '1', '2']}"]
    reward = ", ".join(f"{name}: {value}" for name, value in {"column": "score", **settings}.items())
    (folder / "t.yaml").write_text("\n".join([*lines, f"reward: {{{reward}}}"]))
    return str(folder / "t.yaml")


def test_a_missing_row_is_a_failure(tmp_path: Path) -> None:
    space = BlockSpace(options=BlockSpaceOptions(blocks=2, widths=3))
    table = block_table(tmp_path, [0.1 * n for n in range(8)])
    known, missing = TabularEvaluator(space, options=TabularOptions(table=table)).evaluate(
        [Architecture(space.name, (1, 2)), Architecture(space.name, (2, 2))]
    )
    assert isinstance(known, Metrics)
    assert known.accuracy == pytest.approx(0.5)
    assert known.seconds == 0, "a table without a cost column does not say"
    assert isinstance(missing, Failure)
    assert "has no row for" in missing.message


def test_what_cannot_be_an_accuracy_is_refused(tmp_path: Path) -> None:
    space = BlockSpace(options=BlockSpaceOptions(blocks=2, widths=3))
    percent = block_table(tmp_path, [10.0 * n for n in range(8)])
    with pytest.raises(ConfigError, match="percent: true"):
        TabularEvaluator(space, options=TabularOptions(table=percent))
    loss = block_table(tmp_path, [0.1 * n for n in range(8)], direction="min")
    with pytest.raises(ConfigError, match="no accuracies"):
        TabularEvaluator(space, options=TabularOptions(table=loss))
    wider = BlockSpace(options=BlockSpaceOptions(blocks=2, widths=4))
    with pytest.raises(ConfigError, match="use a table of this space"):
        TabularEvaluator(wider, options=TabularOptions(table=percent))


@pytest.mark.slow
@pytest.mark.usefixtures("nasbench201")
def test_a_search_goes_on_to_retrain_and_export(tmp_path: Path) -> None:
    result = ne.search(
        evaluator="tabular",
        controller="evolution",
        space={"name": "nasbench201", "channels": 4},
        evaluations=60,
        training={"epochs": 1},
        retrain={"candidates": 1, "random": 1},
        export={"formats": ["state_dict"]},
        run=tmp_path / "run",
    )
    searched = [trial for trial in result.trials if trial.phase == "search"]
    assert len(searched) == 60
    assert max(t.outcome.values["accuracy"] for t in searched) > 0.8
    assert np.mean([t.outcome.values["simulated_s"] for t in searched]) > 50
    assert result.best.metrics["test_accuracy"] > 0
