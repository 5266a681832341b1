"""What a run found: the winner, its network, all trials, and the accuracy/cost trade-off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nas_engine import __version__, registry
from nas_engine.config import SearchConfig
from nas_engine.context import finite
from nas_engine.errors import StoreError
from nas_engine.retraining import trained_network
from nas_engine.spaces.base import SearchSpace
from nas_engine.store import RunStore
from nas_engine.types import Architecture, Failure, ImageShape, Metrics, Trial


@dataclass(frozen=True)
class Best:
    """A trained network of a run.

    Attributes:
        run: the run folder.
        architecture: its architecture.
        text: the architecture in the space's own notation.
        metrics: ``validation_accuracy``, ``test_accuracy`` (fractions), ``params``, ``macs``, ``latency_ms`` ...
        weights: file of the trained weights.
    """

    run: Path
    architecture: Architecture
    text: str
    metrics: dict[str, float]
    weights: Path

    def build(self) -> nn.Module:
        """The trained network, a plain `torch.nn.Module` in eval mode.

        Raises:
            StoreError: its weights are missing or damaged.
        """
        with RunStore.open_read_only(self.run) as store:
            space = space_of(store)
        return trained_network(space, self.architecture, self.weights)

    def example_images(self) -> Tensor:
        """Real validation images, normalised as the network expects, float32 [n, channels, height, width]."""
        with RunStore.open_read_only(self.run) as store:
            checkpoint = store.load_checkpoint("example_images")
        if checkpoint is None:
            raise StoreError(
                f"run {str(self.run)!r} holds no example images: finish it with "
                f"'python -m nas_engine resume {self.run}'"
            )
        images: Tensor = checkpoint["images"]
        return images


class SearchResult:
    """Reads a run folder, finished or not."""

    def __init__(self, run: str | Path) -> None:
        """Open the run in the folder `run`.

        Raises:
            StoreError: the folder holds no run.
        """
        self.run = Path(run)
        with RunStore.open_read_only(self.run) as store:
            self.trials: list[Trial] = store.trials()
            self.report: dict[str, Any] = store.meta("report") or {}
            self.seconds: dict[str, float] = store.meta("seconds") or {}
            self.config: SearchConfig = config_of(store)
            self.data: dict[str, Any] = store.meta("data") or {}

    @cached_property
    def best(self) -> Best:
        """The winner: chosen by validation accuracy among the retrained candidates.

        Raises:
            StoreError: the run has not come that far.
        """
        if not self.report:
            raise StoreError(
                f"run {str(self.run)!r} is not finished: continue it with 'python -m nas_engine resume {self.run}'"
            )
        winner = self.report["winner"]
        space, _, genes = winner["architecture"].partition(":")
        architecture = Architecture(space, tuple(map(int, genes.split("-"))))
        weights = self.run / winner["weights"]
        return Best(self.run, architecture, winner["text"], dict(winner["metrics"]), weights)

    @property
    def unmet(self) -> list[str]:
        """A line for each limit that the winner, trained from scratch, breaks; those on scores are not known before."""
        lines: list[str] = self.report.get("unmet", [])
        return lines

    @property
    def pareto_front(self) -> list[Trial]:
        """Search trials that no other beats in accuracy and in every cost at once, cheapest first."""
        return pareto_front([trial for trial in self.trials if trial.phase == "search"])

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values; numbers that are not finite, which JSON has not, are None."""
        plain: dict[str, Any] = finite(
            {
                "version": __version__,
                "run": str(self.run),
                "config": self.config.model_dump(mode="json"),
                "finished": bool(self.report),
                "seconds": self.seconds,
                "report": self.report,
                "pareto_front": [_trial_json(trial) for trial in self.pareto_front],
                "trials": [_trial_json(trial) for trial in self.trials],
            }
        )
        return plain


def _trial_json(trial: Trial) -> dict[str, Any]:
    outcome = trial.outcome
    return {
        "number": trial.number,
        "architecture": trial.architecture.key,
        "phase": trial.phase,
        "step": trial.step,
        "reward": trial.reward,
        "cached": trial.cached,
        "values": dict(outcome.values),
        "failure": {"kind": outcome.kind, "message": outcome.message} if isinstance(outcome, Failure) else None,
    }


def finished(run: Path) -> SearchResult | None:
    """The result of a run that has nothing left to do, from its folder alone; None where something is left.

    Raises:
        StoreError: the folder holds no run.
    """
    with RunStore.open_read_only(run) as store:
        done = store.meta("report") is not None and store.meta("exported")
    return SearchResult(run) if done else None


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """Non-dominated trials: no other has at least the accuracy and at most each cost, one of them strictly.

    Costs are all metrics but accuracies, losses and seconds; only costs that every trial has are compared.
    """
    scored = [trial for trial in trials if trial.metrics is not None and not trial.cached]
    if not scored:
        return []
    shared = set.intersection(*(set(trial.outcome.values) for trial in scored))
    costs = sorted(name for name in shared if not name.startswith(("accuracy", "loss")))
    points = {id(t): (-_metrics(t).accuracy, *(_metrics(t)[name] for name in costs)) for t in scored}

    def dominated(trial: Trial) -> bool:
        mine = points[id(trial)]
        return any(point != mine and all(a <= b for a, b in zip(point, mine, strict=True)) for point in points.values())

    front = [trial for trial in scored if not dominated(trial)]
    return sorted(front, key=lambda trial: (trial.outcome.values.get("macs", 0.0), points[id(trial)]))


def config_of(store: RunStore) -> SearchConfig:
    """The settings a run was started with."""
    return SearchConfig.model_validate(store.meta("config"))


def space_of(store: RunStore) -> SearchSpace:
    """The search space of a run, without loading its data."""
    config = config_of(store)
    shape = ImageShape(**store.meta("data")["shape"])
    space: SearchSpace = registry.resolve("space", config.space.name)(shape, config.space.options)
    return space


def default_run_folder(config: SearchConfig) -> Path:
    """``runs/DATA-SPACE-CONTROLLER-N`` with the first free N."""
    stem = f"{Path(config.data).stem or 'data'}-{config.space.name}-{config.controller.name}"
    number = 1
    while (Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return Path("runs") / f"{stem}-{number}"


def _metrics(trial: Trial) -> Metrics:
    metrics = trial.metrics
    if metrics is None:
        raise StoreError(f"trial {trial.number} has no metrics")
    return metrics
