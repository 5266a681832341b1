"""After the search: train networks from scratch, each in the same way, and choose the winner by validation."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nas_engine.config import checked
from nas_engine.context import Advance, RunContext
from nas_engine.data.base import ImageDataset
from nas_engine.errors import NasEngineError, StoreError
from nas_engine.evaluators.failures import guarded
from nas_engine.evaluators.training import TrainingOptions, TrainingRun
from nas_engine.spaces.base import SearchSpace
from nas_engine.store import write_atomically
from nas_engine.types import Architecture, Fidelity, Metrics, Outcome, StateDict, Trial

_MOST_DRAWS = 100_000  # repeated ones cost nothing
_MOST_PRICED = 2_000  # distinct ones, when almost none meets the constraints


class Retraining:
    """Trains architectures from scratch with one recipe; finished networks are kept in ``weights/``.

    A training is resumed after its last finished epoch; a finished one is never repeated. A recorded failure of any
    kind stands, as it does in the search, unless `retry_failed` is set.
    """

    def __init__(
        self,
        context: RunContext,
        space: SearchSpace,
        dataset: ImageDataset,
        options: TrainingOptions,
        *,
        seed: int,
        device: str,
        costs: Callable[[Architecture], dict[str, float]],
    ) -> None:
        """Prepare to train with `options`; `costs` prices one architecture for its trial."""
        self.context = context
        self.space = space
        self.dataset = dataset
        self.options = options
        self.seed = seed
        self.device = device
        self.costs = costs
        self.retry_failed = False
        self.fidelity = Fidelity("training", epochs=options.epochs, data_fraction=options.data_fraction, seed=seed)

    def with_options(self, changes: Mapping[str, Any]) -> Retraining:
        """The same with changed training settings; its trials are told apart by a digest of the changes.

        Raises:
            ConfigError: an unknown setting or a value that is not allowed.
        """
        options = checked(TrainingOptions, {**self.options.model_dump(), **changes}, "training.")
        other = Retraining(
            self.context, self.space, self.dataset, options, seed=self.seed, device=self.device, costs=self.costs
        )
        if options != self.options:
            digest = hashlib.sha256(options.model_dump_json().encode()).hexdigest()[:8]
            other.fidelity = replace(other.fidelity, method=f"training-{digest}")
        return other

    def train(self, architectures: Sequence[Architecture], phase: str, title: str) -> list[Trial]:
        """One trial for each architecture, in order.

        Args:
            architectures: what to train.
            phase: ``retrain`` or ``baseline``, recorded with the trials.
            title: shown while it runs.
        """
        recorded = self.context.store.trials(phase=phase)
        done = {t.architecture: t for t in recorded if t.fidelity == self.fidelity}
        if self.retry_failed:
            done = {architecture: t for architecture, t in done.items() if t.metrics is not None}
        with self.context.phase(phase, title) as advance:
            for position, architecture in enumerate(architectures):
                if architecture in done:
                    continue
                self.context.check_stop()
                done[architecture] = self._trial(architecture, phase, _within(advance, position, len(architectures)))
        return [done[architecture] for architecture in architectures]

    def network(self, architecture: Architecture) -> nn.Module:
        """The trained network, in eval mode."""
        return trained_network(self.space, architecture, self.weights_path(architecture))

    def test(self, architecture: Architecture) -> Metrics:
        """Metrics of the trained network on the test images."""
        run = self._run(architecture)
        run.model.load_state_dict(self.network(architecture).state_dict())
        return run.test()

    def _trial(self, architecture: Architecture, phase: str, advance: Advance) -> Trial:
        started = time.time()
        known = self._known(architecture)
        outcome = known if known is not None else guarded(lambda: self._train(architecture, phase, advance))
        metrics = outcome if isinstance(outcome, Metrics) else None
        trial = Trial(
            number=len(self.context.store),
            architecture=architecture,
            fidelity=self.fidelity,
            outcome=metrics.merged(self.costs(architecture)) if metrics is not None else outcome,
            reward=math.nan,
            proposed_by="random" if phase == "baseline" else "search",
            step=-1,
            phase=phase,
            cached=known is not None,
            started_at=started,
            finished_at=time.time(),
        )
        self.context.store.append([trial])
        self.context.store.delete_checkpoint(f"training:{phase}")
        values = dict(trial.outcome.values)
        self.context.events.write("trained", phase=phase, architecture=architecture.key, cached=trial.cached, **values)
        return trial

    def _known(self, architecture: Architecture) -> Outcome | None:
        """What another phase has found: a training whose weights are still there, or a failure that stands."""
        trials = (t for t in self.context.store.trials() if t.architecture == architecture)
        latest = next((t for t in reversed(list(trials)) if t.fidelity == self.fidelity), None)
        if latest is None:
            return None
        usable = self.weights_path(architecture).exists() if latest.metrics is not None else not self.retry_failed
        return latest.outcome if usable else None

    def _train(self, architecture: Architecture, phase: str, advance: Advance) -> Metrics:
        store, name = self.context.store, f"training:{phase}"
        identity = {"architecture": architecture.key, "fidelity": self.fidelity.key}
        started = time.perf_counter()
        run = self._run(architecture)
        checkpoint = store.load_checkpoint(name)
        if checkpoint is not None and checkpoint["identity"] == identity:
            run.load_state_dict(checkpoint["run"])
        for progress in run.epochs():
            state: StateDict = {"identity": identity, "run": run.state_dict()}
            store.save_checkpoint(name, state)
            advance(progress.done, progress.total, progress.values)
            if progress.done < progress.total:
                self.context.check_stop()
        metrics = run.validate()
        buffer = io.BytesIO()
        torch.save(run.model.state_dict(), buffer)
        write_atomically(self.weights_path(architecture), buffer.getvalue())
        return Metrics(metrics.values, time.perf_counter() - started)

    def _run(self, architecture: Architecture) -> TrainingRun:
        return TrainingRun(self.space, self.dataset, architecture, self.options, self.seed, self.device)

    def weights_path(self, architecture: Architecture) -> Path:
        """File of the trained weights of `architecture`."""
        name = f"{architecture.key}-{self.fidelity.key}".replace(":", "_").replace("=", "")
        return self.context.store.folder / "weights" / f"{name}.pt"


def trained_network(space: SearchSpace, architecture: Architecture, weights: Path) -> nn.Module:
    """A network with weights from a file, in eval mode.

    Raises:
        StoreError: the file is missing or damaged.
    """
    network = space.build(architecture)
    try:
        network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        why = " ".join(str(error).split())[:200]
        raise StoreError(
            f"weights {str(weights)!r} cannot be read ({why}): 'python -m nas_engine train' trains the network again"
        ) from error
    return network.eval()


def _within(advance: Advance, position: int, count: int) -> Advance:
    """Progress of one training shown as a share of all trainings of the phase."""
    return lambda done, total, values: advance(position * total + done, count * total, values)


def choose_winner(trials: Sequence[Trial]) -> Trial:
    """The trial with the best validation accuracy; equal accuracies: lower loss, then fewer MACs.

    Raises:
        NasEngineError: every training failed.
    """
    finished = [trial for trial in trials if trial.metrics is not None]
    if not finished:
        why = "; ".join(f"{t.architecture.key}: {t.outcome.message}" for t in trials)  # type: ignore[union-attr]
        raise NasEngineError(
            f"no candidate could be trained ({why}): resume with --retry-failed where the fault is gone, else start a "
            "run with a lower training.learning_rate or a larger training.time_limit_seconds"
        )
    return min(
        finished,
        key=lambda t: (-t.outcome.values["accuracy"], t.outcome.values["loss"], t.outcome.values.get("macs", 0.0)),
    )


def random_architectures(
    space: SearchSpace,
    count: int,
    feasible: Callable[[Architecture], bool],
    seed: int,
    advance: Advance = lambda done, total, values: None,
) -> list[Architecture]:
    """Distinct canonical architectures, drawn uniformly from those that are `feasible`; fewer if few are found.

    Args:
        space: where they come from.
        count: how many.
        feasible: whether one is wanted; called once for each distinct one, it may raise to stop.
        seed: of the draws.
        advance: told after each call of `feasible` how many are found.
    """
    rng = np.random.default_rng(seed)
    found: list[Architecture] = []
    looked_at: set[Architecture] = set()
    for _ in range(_MOST_DRAWS):
        if len(found) >= count or len(looked_at) >= _MOST_PRICED:
            break
        architecture = space.canonical(space.sample(rng))
        if architecture not in looked_at:
            looked_at.add(architecture)
            found += [architecture] if feasible(architecture) else []
            advance(len(found), count, {"looked at": float(len(looked_at))})
    return found
