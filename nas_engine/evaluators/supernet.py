"""Weight sharing: one network is trained for all architectures, then each is scored as a path through it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from nas_engine.data.base import ImageDataset
from nas_engine.errors import ConfigError
from nas_engine.evaluators.base import Progress
from nas_engine.evaluators.failures import as_failure
from nas_engine.evaluators.fit import FitOptions, Trainer, check_images, seeded, usable_device
from nas_engine.evaluators.path_sampling import path_sampler
from nas_engine.evaluators.path_scoring import PathScorer, Precision
from nas_engine.nn.supernet import Genes
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, Failure, FailureKind, Fidelity, Metrics, Outcome, StateDict


class SupernetOptions(FitOptions):
    """How the shared weights are trained and how paths are scored."""

    epochs: int = Field(100, ge=1, description="passes of the supernet over the training images")
    sampling: Literal["uniform", "fair", "sandwich"] = Field(
        "uniform",
        description="paths trained in a step. uniform: random ones; fair: each choice of each decision once; "
        "sandwich: the largest, the smallest and random ones",
    )
    paths_per_step: int = Field(
        1, ge=1, description="paths whose gradients one step averages (uniform; sandwich: at least 2; fair: ignored)"
    )
    calibration_images: int = Field(
        512, ge=2, description="training images from which each path gets its own BatchNorm statistics before scoring"
    )
    uncalibrated_images: int = Field(
        128,
        ge=0,
        description="validation images on which each path is also scored with the shared BatchNorm statistics, "
        "as accuracy_uncalibrated, to show what recalibration changes; 0: none",
    )
    score_batch_size: int = Field(512, ge=2, description="images a call while scoring; changes speed and memory only")
    precision: Precision = Field(
        "float32",
        description="of the convolutions while paths are scored. bfloat16: on processors with AMX, where it is faster; "
        "on others float32 is used",
    )
    time_limit_seconds: float | None = Field(
        None,
        gt=0,
        description="longest scoring of one architecture (mean over one call), in seconds of wall time; none: no limit",
    )


class SupernetEvaluator:
    """Scores architectures as paths of a weight-sharing supernet.

    `prepare` trains the supernet on ``dataset.train``; `evaluate` recalibrates BatchNorm for each path on training
    images and scores it on ``dataset.validation``. ``dataset.test`` is never read.
    """

    Options = SupernetOptions

    def __init__(
        self,
        space: SearchSpace,
        dataset: ImageDataset,
        options: SupernetOptions = SupernetOptions(),
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Nothing is trained before `prepare`.

        Args:
            space: builds the supernet.
            dataset: trains and scores it.
            options: how.
            seed: of initial weights, order of images, augmentation and sampled paths.
            device: for example ``cpu`` or ``cuda:0``.

        Raises:
            ConfigError: the device cannot be used.
            DataError: there are fewer images than one batch holds.
        """
        self._options, self._seed, self._device = options, seed, usable_device(device)
        check_images(dataset, options)
        with seeded(seed):
            self.supernet = space.supernet()
        self._score_paths = PathScorer(self.supernet, self._device, precision=options.precision)
        self._sampler = path_sampler(options.sampling, space.diagram, self.supernet, options.paths_per_step)
        self._trainer = Trainer(
            self.supernet, dataset, options, seed=seed, device=self._device, backward=self._backward
        )
        chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(dataset.train)))
        calibration = dataset.train.images[chosen[: options.calibration_images]].to(self._device)
        # Equal batches, so that every image counts the same and none is left in a batch of its own.
        self._calibration = torch.tensor_split(calibration, math.ceil(len(calibration) / options.score_batch_size))
        # Shuffled once: splits may be sorted by class, and the uncalibrated score looks at the first images only.
        mixed = torch.from_numpy(np.random.default_rng(seed).permutation(len(dataset.validation)))
        self._images = dataset.validation.images[mixed].to(self._device)
        self._labels = dataset.validation.labels[mixed].to(self._device)

    @property
    def fidelity(self) -> Fidelity:
        """No epochs are spent on any one architecture."""
        return Fidelity("supernet", seed=self._seed)

    def prepare(self) -> Iterator[Progress]:
        """Train the supernet, one epoch a step; values ``loss`` and ``learning_rate``.

        Raises:
            ConfigError: the training diverged.
        """
        total = self._options.epochs
        while self._trainer.finished_epochs < total:
            try:
                values = self._trainer.run_epoch()
            except FloatingPointError as error:
                raise ConfigError(
                    f"supernet training diverged ({error}): lower learning_rate {self._options.learning_rate:g} "
                    f"or max_grad_norm {self._options.max_grad_norm}"
                ) from error
            yield Progress(self._trainer.finished_epochs, total, values)

    def evaluate(self, architectures: Sequence[Architecture], fidelity: Fidelity | None = None) -> list[Outcome]:
        """Validation ``accuracy`` and ``loss`` of each path, and ``accuracy_uncalibrated`` where the options ask.

        Raises:
            ConfigError: the fidelity is not the one of this supernet.
        """
        if fidelity is not None and fidelity != self.fidelity:
            raise ConfigError(f"this supernet scores at fidelity {self.fidelity.key!r} only, got {fidelity.key!r}")
        return self._outcomes(architectures) if architectures else []

    def state_dict(self) -> StateDict:
        """Shared weights, optimiser memory and finished epochs."""
        return self._trainer.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self._trainer.load_state_dict(state)

    def _outcomes(self, architectures: Sequence[Architecture]) -> list[Outcome]:
        started = time.perf_counter()
        try:
            scores = self._scores([architecture.genes for architecture in architectures])
        except Exception as error:
            if len(architectures) == 1:
                return [as_failure(error, time.perf_counter() - started)]
            # One path spoilt the call for all: alone, only that one fails.
            return [self._outcomes([architecture])[0] for architecture in architectures]
        seconds = (time.perf_counter() - started) / len(architectures)
        return [self._outcome(values, seconds) for values in scores]

    def _scores(self, genes_list: Sequence[Genes]) -> list[dict[str, float]]:
        batch_size, few = self._options.score_batch_size, self._options.uncalibrated_images
        images, labels = self._images, self._labels
        losses, correct = self._score_paths(genes_list, images, labels, self._calibration, batch_size)
        accuracies = correct.double() / len(labels)
        columns = {"accuracy": accuracies.tolist(), "loss": losses.tolist()}
        if few:
            _, correct = self._score_paths(genes_list, images[:few], labels[:few], (), batch_size)
            columns["accuracy_uncalibrated"] = (correct.double() / len(labels[:few])).tolist()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _outcome(self, values: dict[str, float], seconds: float) -> Outcome:
        limit = self._options.time_limit_seconds
        if limit is not None and seconds > limit:
            return Failure(FailureKind.TIMEOUT, f"scoring took {seconds:.3g} s, the limit is {limit:g} s", "", seconds)
        if not math.isfinite(values["loss"]):
            return Failure(FailureKind.NAN, "the path gives logits that are not finite", "", seconds)
        return Metrics(values, seconds)

    def _backward(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Tensor:
        paths = self._sampler(rng)
        total = torch.zeros((), device=images.device)
        for genes in paths:
            logits = self.supernet(images, genes)
            loss = functional.cross_entropy(logits, labels, label_smoothing=self._options.label_smoothing) / len(paths)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total
