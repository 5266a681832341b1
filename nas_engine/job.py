"""The whole job of a run: train the supernet, search, retrain, choose, test once, export; resumable anywhere."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas_engine import __version__
from nas_engine.assembly import RANDOM_STREAM, assemble, check_feasibility, choose_threads, seed_of
from nas_engine.config import SearchConfig
from nas_engine.context import EventLog, LogReporter, Reporter, RunContext
from nas_engine.costs.measured import MeasuredLatency, measure_latency, torch_threads
from nas_engine.data.base import ImageDataset, Split
from nas_engine.data.loading import load_dataset
from nas_engine.errors import ConfigError
from nas_engine.evaluators.rank_quality import rank_quality
from nas_engine.exports import export_network
from nas_engine.limits import Constraint
from nas_engine.result import SearchResult, config_of, default_run_folder
from nas_engine.retraining import Retraining, choose_winner, random_architectures
from nas_engine.search_loop import Search, SearchParts, best_trials, price
from nas_engine.store import RunStore, write_atomically
from nas_engine.types import Architecture, Metrics, Trial

logger = logging.getLogger(__name__)

_EXAMPLE_IMAGES = 32
_SCORES = frozenset({"accuracy", "loss", "accuracy_uncalibrated"})  # known only once an architecture is evaluated


class Job:
    """One run from its settings to its exports. Use `start` or `resume`, then `run`."""

    def __init__(self, config: SearchConfig, parts: SearchParts, dataset: ImageDataset, context: RunContext) -> None:
        """Use `start` or `resume` instead."""
        self.config = config
        self.parts = parts
        self.dataset = dataset
        self.context = context
        self.retraining = Retraining(
            context,
            parts.space,
            dataset,
            config.training,
            seed=config.seed,
            device=config.device,
            costs=lambda architecture: price(parts.cost_models, [architecture])[0],
        )

    @classmethod
    def start(cls, config: SearchConfig, reporter: Reporter | None = None) -> Job:
        """A new run.

        Raises:
            NasEngineError: the device, the data, a component or the run folder cannot be used, or nothing meets the
                constraints; no run folder is left behind.
        """
        dataset = load_dataset(config.data, validation_fraction=config.validation_fraction, seed=config.seed)
        parts = assemble(config, dataset)
        feasibility = check_feasibility(parts, config.seed)
        folder = Path(config.run) if config.run else default_run_folder(config)
        threads = choose_threads(config, parts.space)
        config = config.model_copy(update={"run": str(folder), "threads": threads})
        meta = {
            "version": __version__,
            "config": config.model_dump(mode="json"),
            "data": _describe(dataset),
            "feasibility": str(feasibility) if feasibility else None,
        }
        store = RunStore.create(folder, meta)
        return cls._open(config, parts, dataset, store, reporter)

    @classmethod
    def resume(cls, folder: Path, reporter: Reporter | None = None) -> Job:
        """Continue the run in `folder`.

        Raises:
            NasEngineError: it is no run, is in use, or its data have changed.
        """
        store = RunStore.open(folder)
        try:
            config = config_of(store)
            dataset = load_dataset(config.data, validation_fraction=config.validation_fraction, seed=config.seed)
            # By content, not by name: a run may have been started where the path was another one.
            if {**store.meta("data"), "source": dataset.source} != _describe(dataset):
                raise ConfigError(
                    f"data {config.data!r} changed since run {str(folder)!r} began: restore it, or start anew"
                )
            parts = assemble(config, dataset)
            _remember_latencies(parts, store)
            return cls._open(config, parts, dataset, store, reporter)
        except BaseException:
            store.close()
            raise

    @classmethod
    def _open(
        cls,
        config: SearchConfig,
        parts: SearchParts,
        dataset: ImageDataset,
        store: RunStore,
        reporter: Reporter | None,
    ) -> Job:
        written = config.model_copy(update={"run": None})  # so that the file starts a new run
        if not (store.folder / "config.yaml").exists():
            write_atomically(store.folder / "config.yaml", written.to_yaml().encode())
        context = RunContext(store, EventLog(store.folder / "search.jsonl"), reporter or LogReporter())
        return cls(config, parts, dataset, context)

    def run(self, *, retry_failed: bool = False) -> SearchResult:
        """Run what is left of the job.

        Args:
            retry_failed: train again what has failed from scratch in a former process; by default a recorded failure
                stands.

        Raises:
            SearchInterrupted: a stop was requested; all is saved.
        """
        self.retraining.retry_failed = retry_failed
        try:
            with torch_threads(self.config.threads or 1):
                if self.context.store.meta("report") is None:
                    self._announce()
                    self._search()
                    self.retrain()
                self.export()
        finally:
            self.context.close()
        return SearchResult(self.context.store.folder)

    def _search(self) -> None:
        search = Search(
            self.parts,
            self.context,
            evaluations=self.config.evaluations,
            proposals=self.config.proposals_per_step,
            every=self.config.checkpoint_every,
        )
        search.prepare()
        search.explore()

    def _baseline(self, count: int) -> list[Architecture]:
        """Random architectures to compare with; drawn once, since a latency measured again is another one."""
        store = self.context.store
        keys = store.meta("baseline")
        if keys is None:
            seed = seed_of(self.config.seed, RANDOM_STREAM)
            with self.context.phase("draw", "draw random ones") as advance:
                drawn = random_architectures(self.parts.space, count, self._feasible, seed, advance)
            keys = [architecture.key for architecture in drawn]
            costs = price(self.parts.cost_models, drawn)
            store.set_meta("baseline_costs", dict(zip(keys, costs, strict=True)))
            store.set_meta("baseline", keys)
        return [self.parts.space.from_key(key) for key in keys]

    def _announce(self) -> None:
        counts = self.context.store.meta("data")["images"]
        shape = self.parts.space.shape
        self.context.reporter.message(
            f"data {self.dataset.source}: {counts['train']} training, {counts['validation']} validation, "
            f"{counts['test']} test images of {shape.channels}x{shape.height}x{shape.width}, {shape.classes} classes"
        )
        feasibility = self.context.store.meta("feasibility")
        if feasibility:
            self.context.events.write("feasibility", report=feasibility)
            self.context.reporter.message(feasibility)

    def retrain(self) -> None:
        """Train the best few and random ones from scratch, choose by validation, test, and store the report."""
        store, options = self.context.store, self.config.retrain
        best = self._candidates(options.candidates)
        drawn = self._baseline(options.random)
        retrained = self.retraining.train([t.architecture for t in best], "retrain", "retrain the best")
        baseline = self.retraining.train(drawn, "baseline", "retrain random ones")
        winner = choose_winner(retrained)
        if store.load_checkpoint("example_images") is None:
            images = self.dataset.validation.images[:_EXAMPLE_IMAGES].clone()
            store.save_checkpoint("example_images", {"images": images})
        report = self._report(winner, baseline)
        store.set_meta("report", report)
        self.context.events.write("report", **report)

    def _candidates(self, count: int) -> list[Trial]:
        """The best of the search; where none meets a limit on scores, the nearest of those within the costs.

        Raises:
            ConfigError: nothing that was evaluated is within the limits on costs.
        """
        trials, limits = self.context.store.trials(phase="search"), self.parts.constraints
        best = best_trials(trials, limits, count)
        if best:
            return best
        on_costs = [limit for limit in limits if limit.metric not in _SCORES]
        nearest = best_trials(trials, on_costs, count)
        if not nearest:
            named = ", ".join(map(str, limits)) or "the limits of memory and time"
            raise ConfigError(
                f"no evaluated architecture meets {named}: start a new run with looser ones or more 'evaluations'"
            )
        return nearest

    def export(self) -> None:
        """Write the winner in all formats, each loaded back and compared.

        Raises:
            ExportError: a file does not load or does not agree with the network.
        """
        store = self.context.store
        if store.meta("exported"):
            return
        result = SearchResult(store.folder)
        with self.context.phase("export", "export and check") as advance:
            formats = self.config.export.formats
            export_network(
                result.best.build(),
                result.best.example_images(),
                store.folder / "export",
                formats=formats,
                description=describe_best(result),
            )
            advance(len(formats), len(formats), {})
        store.set_meta("exported", True)

    def train(self, architecture: str | None, changes: dict[str, Any]) -> dict[str, Any]:
        """Train one architecture from scratch with changed training settings, test it and export it.

        Args:
            architecture: key or text of the space; None for the winner of the run.
            changes: settings of `TrainingOptions`.

        Returns:
            A row as in the report, with ``exports``: the folder that was written.

        Raises:
            ConfigError: an unknown architecture or setting.
            NasEngineError: the training failed.
        """
        chosen = f" --architecture {architecture}" if architecture else ""
        settings = "".join(f" --training.{name} {value}" for name, value in changes.items())
        self.context.how_to_continue = f"python -m nas_engine train {self.context.store.folder}{chosen}{settings}"
        try:
            with torch_threads(self.config.threads or 1):
                return self._train(architecture, changes)
        finally:
            self.context.close()

    def _train(self, architecture: str | None, changes: dict[str, Any]) -> dict[str, Any]:
        folder = self.context.store.folder
        chosen = SearchResult(folder).best.architecture if architecture is None else self._parse(architecture)
        retraining = self.retraining.with_options(changes)
        retraining.retry_failed = True  # asked for by name
        (trial,) = retraining.train([chosen], f"train:{retraining.fidelity.key}", "train")
        choose_winner([trial])  # refuses a failed training with its reason
        row = self._row(retraining, trial)
        exports = folder / "trained" / retraining.weights_path(chosen).stem
        description = describe_row(row, self.context.store.meta("data"))
        images = self.dataset.validation.images[:_EXAMPLE_IMAGES]
        formats = self.config.export.formats
        export_network(retraining.network(chosen), images, exports, formats=formats, description=description)
        return {**row, "exports": str(exports)}

    def _parse(self, text: str) -> Architecture:
        space = self.parts.space
        return space.canonical(space.from_key(text) if text.startswith(f"{space.name}:") else space.decode(text))

    def _report(self, winner: Trial, baseline: Sequence[Trial]) -> dict[str, Any]:
        with self.context.phase("measure", "measure and test") as advance:
            finished = [trial for trial in baseline if trial.metrics is not None]
            rows = []
            for position, trial in enumerate([winner, *finished]):
                rows.append(self._row(self.retraining, trial))
                advance(position + 1, len(finished) + 1, {})
        return {
            "winner": rows[0],
            "random": rows[1:],
            "rank_quality": self._rank_quality(finished),
            "unmet": _unmet(self.parts.constraints, winner),
        }

    def _row(self, retraining: Retraining, trial: Trial) -> dict[str, Any]:
        """One line of the final table; the only place where test images are looked at."""
        architecture = trial.architecture
        tested = retraining.test(architecture)
        network = retraining.network(architecture).to(self.config.device)
        latency = measure_latency(network, self.parts.space.shape, **self.config.latency.model_dump())
        values = {name: value for name, value in trial.outcome.values.items() if name not in _SCORES}
        metrics = {
            "validation_accuracy": trial.outcome.values["accuracy"],
            "test_accuracy": tested.accuracy,
            **values,  # among them the latency_ms that the search went by, where it did
            "measured_latency_ms": latency.median_ms,
            "measured_latency_p95_ms": latency.p95_ms,
        }
        return {
            "architecture": architecture.key,
            "text": self.parts.space.encode(architecture),
            "metrics": metrics,
            "latency_setup": {
                "device": latency.device,
                "threads": latency.threads,
                "batch_size": latency.batch_size,
            },
            "weights": str(retraining.weights_path(architecture).relative_to(self.context.store.folder)),
        }

    def _rank_quality(self, baseline: Sequence[Trial]) -> dict[str, Any] | None:
        """How well search scores rank random architectures by stand-alone accuracy; None where nothing is shared."""
        if self.parts.evaluator.fidelity.epochs or len(baseline) < 3:
            return None
        scores = self.parts.evaluator.evaluate([trial.architecture for trial in baseline])
        pairs = [
            (outcome.accuracy, trial.outcome.values["accuracy"])
            for outcome, trial in zip(scores, baseline, strict=True)
            if isinstance(outcome, Metrics)
        ]
        if len(pairs) < 3:
            return None
        accuracies = [accuracy for _, accuracy in pairs]
        quality = rank_quality([score for score, _ in pairs], accuracies)
        return {**dataclasses.asdict(quality), "accuracy_min": min(accuracies), "accuracy_max": max(accuracies)}

    def _feasible(self, architecture: Architecture) -> bool:
        self.context.check_stop()
        metrics = Metrics(price(self.parts.cost_models, [architecture])[0])
        known = (c for c in self.parts.constraints if c.metric in metrics.values)
        return all(constraint.violation(metrics) == 0 for constraint in known)


def describe_best(result: SearchResult) -> dict[str, Any]:
    """What an export of the winner says beside its weights."""
    return describe_row(result.report["winner"], result.data)


def describe_row(row: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """What an export says about a network of the report and how to feed it."""
    return {
        "architecture": row["architecture"],
        "text": row["text"],
        "metrics": row["metrics"],
        "data": data["source"],
        "classes": data["classes"],
        "normalisation": {"mean": data["mean"], "std": data["std"]},
    }


def _unmet(constraints: Sequence[Constraint], winner: Trial) -> list[str]:
    """A line for each limit that the winner, trained from scratch, breaks."""
    metrics = Metrics(winner.outcome.values)
    return [
        f"{constraint} is not met: trained from scratch the winner has {metrics[constraint.metric]:.6g} in validation; "
        "loosen the limit, or start a run with more evaluations or longer training"
        for constraint in constraints
        if constraint.metric in metrics.values and constraint.violation(metrics) > 0
    ]


def _remember_latencies(parts: SearchParts, store: RunStore) -> None:
    """Let a resumed run go by the latencies it measured before: measured again they would be others."""
    drawn: dict[str, dict[str, float]] = store.meta("baseline_costs") or {}
    known = {key: costs["latency_ms"] for key, costs in drawn.items() if "latency_ms" in costs}
    for trial in reversed(store.trials()):  # the first measurement of an architecture is the one that counts
        if "latency_ms" in trial.outcome.values:
            known[trial.architecture.key] = trial.outcome.values["latency_ms"]
    for model in parts.cost_models:
        if isinstance(model, MeasuredLatency):
            model.remember(known)


def _digest(split: Split) -> str:
    digest = hashlib.sha256(split.images.numpy().tobytes())
    digest.update(split.labels.numpy().tobytes())
    return digest.hexdigest()


def _describe(dataset: ImageDataset) -> dict[str, Any]:
    """What identifies the data of a run; a resumed run compares it."""
    return {
        "source": dataset.source,
        "shape": dataclasses.asdict(dataset.shape),
        "classes": list(dataset.class_names),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "images": {"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)},
        "validation_index": dataset.validation_index.tolist(),
        "sha256": {name: _digest(getattr(dataset, name)) for name in ("train", "validation", "test")},
    }
