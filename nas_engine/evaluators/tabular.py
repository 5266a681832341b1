"""Scores from a table: what somebody has measured, looked up by the genes of an architecture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from nas_engine.data.base import ImageDataset
from nas_engine.errors import ConfigError
from nas_engine.evaluators.base import Progress
from nas_engine.options import Options, located
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.table import TableSpace, check_same_genes
from nas_engine.tables.description import built_in_tables, load_description
from nas_engine.tables.table import load_table
from nas_engine.types import Architecture, Failure, FailureKind, Fidelity, Metrics, Outcome, StateDict


def _located_table(name: str) -> str:
    return name if name in built_in_tables() else located(name)


class TabularOptions(Options):
    """Which table, and which of its columns counts."""

    table: Annotated[str, AfterValidator(_located_table)] = Field(
        "nasbench201", description="built-in name or FILE.yaml that describes a table"
    )
    file: Annotated[str | None, AfterValidator(lambda text: text and located(text))] = Field(
        None, description="the table's file; by default in the folder NAS_ENGINE_DATA"
    )
    reward: str | None = Field(None, description="column of accuracies; by default that of the description")


class TabularEvaluator:
    """Looks accuracies up in a table whose decisions are those of the space, in order.

    Metrics: ``accuracy``, and where the table has a cost column ``simulated_s``, which is `Metrics.seconds` too. The
    report columns are not among them: they are test accuracies, by which a search must not choose. An architecture that
    the table lacks is a `Failure`.
    """

    Options = TabularOptions

    def __init__(
        self,
        space: SearchSpace,
        dataset: ImageDataset | None = None,
        options: TabularOptions = TabularOptions(),
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Read the table.

        Args:
            space: where architectures come from.
            dataset: not looked at: the table's networks were trained on data of its own.
            options: which table.
            seed: of no effect.
            device: of no effect.

        Raises:
            ConfigError: the table cannot be read, has other decisions than the space, or holds no accuracies.
        """
        file = Path(options.file).expanduser() if options.file is not None else None
        self.table = load_table(load_description(options.table, {"reward": options.reward}, file=file))
        check_same_genes(space, self.table.decisions)
        self._rows = TableSpace(self.table)
        reward = self.table.description.reward
        self._accuracies = self.table.rewards / (100.0 if reward.percent else 1.0)
        if reward.direction == "min" or self._accuracies.min() < 0 or self._accuracies.max() > 1:
            raise ConfigError(
                f"column {reward.column!r} of table {self.table.name!r} holds no accuracies in [0, 1], which a search "
                "optimises: name another 'reward', or say 'percent: true' where it is an accuracy in percent"
            )

    @property
    def fidelity(self) -> Fidelity:
        """One fidelity: what the table holds."""
        description = self.table.description
        return Fidelity(f"tabular-{description.name}-{description.reward.column}")

    def prepare(self) -> Iterator[Progress]:
        """Nothing precedes the first evaluation."""
        return iter(())

    def evaluate(self, architectures: Sequence[Architecture], fidelity: Fidelity | None = None) -> list[Outcome]:
        """Look each architecture up."""
        if not architectures:
            return []
        rows = self._rows.rows_of(np.array([architecture.genes for architecture in architectures], dtype=np.int64))
        return [self._outcome(int(row), one) for row, one in zip(rows, architectures, strict=True)]

    def state_dict(self) -> StateDict:
        """Empty: a table does not change."""
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """Nothing to restore."""

    def _outcome(self, row: int, architecture: Architecture) -> Outcome:
        if row < 0:
            return Failure(FailureKind.ERROR, f"table {self.table.name!r} has no row for {architecture.key}")
        accuracy = {"accuracy": float(self._accuracies[row])}
        if self.table.costs is None:
            return Metrics(accuracy)
        seconds = float(self.table.costs[row])
        return Metrics({**accuracy, "simulated_s": seconds}, seconds)
