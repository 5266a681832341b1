"""Stand-alone training: the accuracy of an architecture is that of its own network, trained from scratch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import partial

from pydantic import Field
from torch import nn

from nas_engine.data.base import ImageDataset, Split
from nas_engine.errors import ConfigError
from nas_engine.evaluators.base import Progress
from nas_engine.evaluators.failures import guarded
from nas_engine.evaluators.fit import FitOptions, Trainer, check_images, score, seeded, usable_device
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, Fidelity, Metrics, Outcome, StateDict


class TrainingOptions(FitOptions):
    """How a network is trained from scratch."""

    data_fraction: float = Field(1.0, gt=0, le=1, description="share of the training images used")
    time_limit_seconds: float | None = Field(
        None, gt=0, description="longest training of one architecture, in seconds of wall time; none: no limit"
    )


class TrainingRun:
    """One network trained from scratch, from seeded weights; can be saved after any epoch and continued exactly.

    Attributes:
        model: the network, ready for use in eval mode once `epochs` is exhausted.
    """

    model: nn.Module

    def __init__(
        self,
        space: SearchSpace,
        dataset: ImageDataset,
        architecture: Architecture,
        options: TrainingOptions = TrainingOptions(),
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Build the network.

        Args:
            space: builds the network.
            dataset: trains and scores it.
            architecture: of `space`.
            options: how to train.
            seed: decides initial weights, order of images and augmentation.
            device: for example ``cpu`` or ``cuda:0``.

        Raises:
            ConfigError: the device cannot be used.
            DataError: there are fewer images than one batch holds.
        """
        self._options, self._dataset, self._device = options, dataset, usable_device(device)
        images = _image_count(dataset, options)
        check_images(dataset, options, images)
        with seeded(seed):
            self.model = space.build(architecture)
        self._trainer = Trainer(self.model, dataset, options, seed=seed, device=self._device, images=images)
        self._seconds = 0.0

    def epochs(self) -> Iterator[Progress]:
        """Train the remaining epochs, one a step; values ``loss`` and ``learning_rate``.

        Raises:
            FloatingPointError: the loss was not finite.
            TimeoutError: training took longer than ``time_limit_seconds``, epochs before an interruption included.
        """
        limit = self._options.time_limit_seconds or math.inf
        while self._trainer.finished_epochs < self._options.epochs:
            started = time.perf_counter()
            values = self._trainer.run_epoch(deadline=started + limit - self._seconds)
            self._seconds += time.perf_counter() - started
            yield Progress(self._trainer.finished_epochs, self._options.epochs, values)
        self.model.eval()

    def validate(self) -> Metrics:
        """``accuracy`` and ``loss`` on the validation split, and the seconds spent on training.

        Raises:
            FloatingPointError: a logit is not finite.
        """
        return self._score(self._dataset.validation)

    def test(self) -> Metrics:
        """``accuracy`` and ``loss`` on the test split: to be reported, never to be chosen by.

        Raises:
            FloatingPointError: a logit is not finite.
        """
        return self._score(self._dataset.test)

    def state_dict(self) -> StateDict:
        """Everything that has been trained, and the seconds it took."""
        return {"trainer": self._trainer.state_dict(), "seconds": self._seconds}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self._trainer.load_state_dict(state["trainer"])
        self._seconds = state["seconds"]

    def _score(self, split: Split) -> Metrics:
        self.model.eval()
        loss, correct = score(self.model, split.images.to(self._device), split.labels.to(self._device))
        if not math.isfinite(loss):
            raise FloatingPointError(f"the network gives logits that are not finite on {len(split)} images")
        return Metrics({"accuracy": correct / len(split), "loss": loss}, self._seconds)


class TrainingEvaluator:
    """Scores each architecture by training its network from scratch: slow, and the truth the others approximate."""

    Options = TrainingOptions

    def __init__(
        self,
        space: SearchSpace,
        dataset: ImageDataset,
        options: TrainingOptions = TrainingOptions(),
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Nothing is trained before `evaluate`.

        Args:
            space: builds the networks.
            dataset: trains on ``train``, scores on ``validation``; ``test`` is never read.
            options: how to train.
            seed: of each training.
            device: for example ``cpu`` or ``cuda:0``.

        Raises:
            ConfigError: the device cannot be used.
            DataError: there are fewer images than one batch holds.
        """
        usable_device(device)
        check_images(dataset, options, _image_count(dataset, options))
        self._space, self._dataset, self._options, self._seed, self._device = space, dataset, options, seed, device

    @property
    def fidelity(self) -> Fidelity:
        """Epochs, share of the images and seed, as the options say."""
        return Fidelity("training", self._options.epochs, self._options.data_fraction, self._seed)

    def prepare(self) -> Iterator[Progress]:
        """Nothing precedes the first evaluation."""
        return iter(())

    def evaluate(self, architectures: Sequence[Architecture], fidelity: Fidelity | None = None) -> list[Outcome]:
        """Train and validate each network.

        Args:
            architectures: of the space.
            fidelity: epochs, share of the images and seed; by default those of the options.

        Raises:
            ConfigError: the fidelity is not one of training.
            DataError: the fidelity leaves fewer images than one batch holds.
        """
        fidelity = fidelity or self.fidelity
        if fidelity.method != "training" or fidelity.epochs < 1:
            raise ConfigError(
                f"fidelity {fidelity.key!r} is none of training: give method='training' and epochs of at least 1"
            )
        changes = {"epochs": fidelity.epochs, "data_fraction": fidelity.data_fraction}
        options = self._options.model_copy(update=changes)
        check_images(self._dataset, options, _image_count(self._dataset, options))
        return [guarded(partial(self._train, one, options, fidelity.seed)) for one in architectures]

    def state_dict(self) -> StateDict:
        """Empty: no evaluation depends on an earlier one."""
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """Nothing to restore."""

    def _train(self, architecture: Architecture, options: TrainingOptions, seed: int) -> Metrics:
        started = time.perf_counter()
        run = TrainingRun(self._space, self._dataset, architecture, options, seed, self._device)
        for _ in run.epochs():
            pass
        return Metrics(run.validate().values, time.perf_counter() - started)


def _image_count(dataset: ImageDataset, options: TrainingOptions) -> int:
    return math.ceil(options.data_fraction * len(dataset.train))
