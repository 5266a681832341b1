"""The values that cross the seams of a search: small, frozen, picklable, free of global state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice that makes up an architecture.

    Attributes:
        name: what is decided, for example ``edge 0>1`` or ``stage 2 layer 1``.
        choices: the names of the alternatives; a gene is an index into them.
    """

    name: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A point of a search space: one gene (choice index) for each decision of the space."""

    space: str
    genes: tuple[int, ...]

    @property
    def key(self) -> str:
        """Stable text id, for example ``nasbench201:3-1-0-4-2-2``; the store, caches and the CLI use it."""
        return f"{self.space}:{'-'.join(map(str, self.genes))}"


@dataclass(frozen=True, slots=True)
class ImageShape:
    """What a network must accept and return: images [batch, channels, height, width], logits [batch, classes]."""

    channels: int
    height: int
    width: int
    classes: int


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How thoroughly an architecture is evaluated.

    Attributes:
        method: name of the evaluator, for example ``supernet`` or ``training``.
        epochs: training epochs spent on this architecture alone (0 where weights are shared).
        data_fraction: share of the training images used, in (0, 1].
        seed: seed of the evaluation.
    """

    method: str
    epochs: int = 0
    data_fraction: float = 1.0
    seed: int = 0

    @property
    def key(self) -> str:
        """Stable text id; together with `Architecture.key` it identifies one evaluation."""
        return f"{self.method}:epochs={self.epochs}:data={self.data_fraction:g}:seed={self.seed}"


@dataclass(frozen=True, slots=True)
class Metrics:
    """What an evaluation measured, by name, with the unit in the name.

    Attributes:
        values: for example ``{"accuracy": 0.91, "loss": 0.3, "macs": 1.2e6, "latency_ms": 0.8}``; accuracies are
            fractions in [0, 1].
        seconds: wall time the evaluation took, or that a table says it took; 0 where nobody knows.
    """

    values: Mapping[str, float]
    seconds: float = 0.0

    def __getitem__(self, name: str) -> float:
        """Value of the metric `name`; KeyError where it was not measured."""
        return self.values[name]

    @property
    def accuracy(self) -> float:
        """Validation accuracy as a fraction in [0, 1]; NaN where it was not measured."""
        return self.values.get("accuracy", math.nan)

    def merged(self, more: Mapping[str, float]) -> Metrics:
        """The same metrics with `more` added (costs estimated outside the evaluator)."""
        return Metrics({**self.values, **more}, self.seconds)


class FailureKind(StrEnum):
    """Why an evaluation gave no metrics."""

    OOM = "oom"
    NAN = "nan"
    TIMEOUT = "timeout"
    ERROR = "error"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True, slots=True)
class Failure:
    """An evaluation that gave no metrics. It is data: it is stored, penalised, and the search goes on."""

    kind: FailureKind
    message: str
    traceback: str = ""
    seconds: float = 0.0
    values: Mapping[str, float] = field(default_factory=dict)


Outcome = Metrics | Failure


@dataclass(frozen=True, slots=True)
class Trial:
    """One proposal and what came of it.

    Attributes:
        number: position in the run, from 0.
        architecture: as evaluated (canonical form).
        fidelity: how it was evaluated.
        outcome: `Metrics` or `Failure`.
        reward: what the controller was told; NaN where the trial is not part of the search (a retraining).
        proposed_by: ``ppo``, ``evolution``, ``random`` ...
        step: search step, or -1 outside the search.
        phase: ``search``, ``retrain`` or ``baseline``.
        cached: whether the outcome was known already and nothing was paid.
        started_at: Unix seconds.
        finished_at: Unix seconds.
    """

    number: int
    architecture: Architecture
    fidelity: Fidelity
    outcome: Outcome
    reward: float
    proposed_by: str
    step: int
    phase: str
    cached: bool
    started_at: float
    finished_at: float

    @property
    def metrics(self) -> Metrics | None:
        """The metrics, or None for a failure."""
        return self.outcome if isinstance(self.outcome, Metrics) else None


StateDict = dict[str, Any]
"""State of a controller or evaluator: tensors, numbers, strings, lists and dicts (loads with weights_only=True)."""
