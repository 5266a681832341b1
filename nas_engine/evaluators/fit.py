"""The one training loop: supernets and stand-alone networks are both fitted by `Trainer`, epoch by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from nas_engine.data.base import ImageDataset, Split
from nas_engine.errors import ConfigError, DataError
from nas_engine.options import Options
from nas_engine.types import StateDict

Backward = Callable[[Tensor, Tensor, np.random.Generator], Tensor]
"""(images, labels, random generator) -> mean loss, detached; adds the gradients of this batch to the parameters."""


class FitOptions(Options):
    """How a network is fitted to the training images; shared by the supernet and by stand-alone training."""

    epochs: int = Field(20, ge=1, description="passes over the training images")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd (with Nesterov momentum) or adamw")
    learning_rate: float = Field(0.1, gt=0, description="peak learning rate; falls to 0 along a cosine")
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="share of all steps in which the rate rises linearly")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd, first beta of adamw")
    weight_decay: float = Field(
        5e-4, ge=0, description="weight decay of matrices and kernels (not of biases and norms)"
    )
    batch_size: int = Field(64, ge=2, description="images a step")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    augmentation: Literal["none", "shift", "flip", "shift+flip"] = Field(
        "none",
        description="shift: random crops after padding by an eighth; flip: mirrored left to right half the time "
        "(never for digits or text); worth it in long trainings, a loss in short ones",
    )
    max_grad_norm: float | None = Field(
        5.0, gt=0, description="longest gradient (L2 norm) that is not cut; none: never"
    )


def check_images(dataset: ImageDataset, options: FitOptions, images: int | None = None) -> None:
    """Refuse a data set that a training would stumble over.

    Args:
        dataset: its training split is counted.
        options: give the size of a batch.
        images: use only this many of the training images; None: all.

    Raises:
        DataError: there are fewer images than one batch holds.
    """
    count = len(dataset.train) if images is None else min(images, len(dataset.train))
    if count < options.batch_size:
        raise DataError(
            f"{count} training images of {dataset.source!r} do not fill one batch of {options.batch_size}: "
            "set batch_size lower or give more images"
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the context torch's global generators start from `seed`; afterwards they are as before.

    For what cannot be handed a generator: weight initialisation and dropout.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


class Trainer:
    """Fits `model` by mini-batches; can be saved after any epoch and goes on to the same result bit for bit.

    All randomness of an epoch (order, augmentation, dropout, sampled paths) comes from (seed, epoch) alone, so the
    state is the weights, the optimiser's memory and the number of finished epochs.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: ImageDataset,
        options: FitOptions,
        *,
        seed: int,
        device: torch.device,
        backward: Backward | None = None,
        images: int | None = None,
    ) -> None:
        """Nothing is trained yet.

        Args:
            model: is moved to `device`.
            dataset: only `train` is used, and the mean and std to find the value of a black pixel.
            options: how to fit.
            seed: same seed, same result on the same machine.
            device: where to train.
            backward: how a batch gives gradients; by default cross-entropy of ``model(images)``.
            images: train on this many images, a random subset that depends on `seed`; None: all of them.

        Raises:
            DataError: there are fewer images than one batch holds.
        """
        check_images(dataset, options, images)
        split = _subset(dataset.train, images, seed)
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.options = options
        self.finished_epochs = 0
        self._seed = seed
        self._images, self._labels = split.images.to(device), split.labels.to(device)
        black = [-mean / std for mean, std in zip(dataset.mean, dataset.std, strict=True)]
        self._black = torch.tensor(black, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        self._backward = backward or self._cross_entropy
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = _optimizer(self._parameters, options)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass; the images left over are other ones in each epoch."""
        return len(self._labels) // self.options.batch_size

    def run_epoch(self, deadline: float = math.inf) -> dict[str, float]:
        """Train for one epoch.

        Args:
            deadline: value of `time.perf_counter` after which training gives up.

        Returns:
            ``loss`` (mean over the epoch) and ``learning_rate`` (of the last step).

        Raises:
            FloatingPointError: the loss was not finite.
            TimeoutError: the deadline passed.
        """
        rng = np.random.default_rng([self._seed, self.finished_epochs])
        order = torch.from_numpy(rng.permutation(len(self._labels))).to(self._labels.device)
        first_step = self.finished_epochs * self.steps_per_epoch
        batches = torch.split(order, self.options.batch_size)[: self.steps_per_epoch]
        self.model.train()
        losses = []
        with seeded(int(rng.integers(2**63))):
            for step, batch in enumerate(batches, first_step):
                if time.perf_counter() > deadline:
                    raise TimeoutError(f"out of time in epoch {self.finished_epochs + 1} of {self.options.epochs}")
                losses.append(self._step(step, batch, rng))
        loss = float(torch.stack(losses).mean())
        if not math.isfinite(loss):
            raise FloatingPointError(f"the training loss became {loss} in epoch {self.finished_epochs + 1}")
        self.finished_epochs += 1
        return {"loss": loss, "learning_rate": self._optimizer.param_groups[0]["lr"]}

    def state_dict(self) -> StateDict:
        """Weights, optimiser memory and finished epochs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "finished_epochs": self.finished_epochs,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue from `state`."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.finished_epochs = state["finished_epochs"]

    def _step(self, step: int, batch: Tensor, rng: np.random.Generator) -> Tensor:
        images = augmented(self._images[batch], self.options.augmentation, self._black, rng)
        # On CPUs channels-last halves the time of convolutions with few channels.
        images = images.contiguous(memory_format=torch.channels_last)
        rate = self._learning_rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._backward(images, self._labels[batch], rng)
        if self.options.max_grad_norm is not None:
            self._cut_gradients(self.options.max_grad_norm)
        self._optimizer.step()
        return loss

    def _cut_gradients(self, longest: float) -> None:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        # Most are short enough, and a CPU need not multiply those by 1; a GPU would have to wait for the answer.
        if norm.device.type != "cpu" or not norm <= longest:
            nn.utils.clip_grads_with_norm_(self._parameters, longest, norm, foreach=True)

    def _learning_rate(self, step: int) -> float:
        # Loshchilov & Hutter 2017, "SGDR", equation 5 with one period, after a linear warm-up.
        total = self.options.epochs * self.steps_per_epoch
        warmup = self.options.warmup_fraction * total
        if step < warmup:
            return self.options.learning_rate * (step + 1) / (warmup + 1)
        return self.options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

    def _cross_entropy(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Tensor:
        loss = functional.cross_entropy(self.model(images), labels, label_smoothing=self.options.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def score(
    network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, batch_size: int = 512
) -> tuple[float, int]:
    """Mean cross-entropy, NaN where a logit is not finite, and number of correct predictions.

    Args:
        network: images [batch, channels, height, width] -> logits [batch, classes]; in eval mode.
        images: float32 [n, channels, height, width].
        labels: int64 [n].
        batch_size: images a call; changes speed and memory only.
    """
    losses, hits = [], []
    with torch.no_grad():
        for some_images, some_labels in zip(
            torch.split(images, batch_size), torch.split(labels, batch_size), strict=True
        ):
            logits = network(some_images.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, some_labels, reduction="sum")
            losses.append(torch.where(logits.isfinite().all(), loss, torch.nan))
            hits.append((logits.argmax(1) == some_labels).sum())
    return float(torch.stack(losses).sum()) / len(labels), int(torch.stack(hits).sum())


def augmented(images: Tensor, augmentation: str, black: Tensor, rng: np.random.Generator) -> Tensor:
    """Each image shifted by its own random offset, then perhaps mirrored.

    Args:
        images: float32 [n, channels, height, width].
        augmentation: ``none``, ``shift``, ``flip`` or ``shift+flip``.
        black: [1, channels, 1, 1]; the value of a black pixel, which fills what a shift uncovers.
        rng: source of offsets and mirrorings.
    """
    if "shift" in augmentation:
        images = _shifted(images, black, rng)
    if "flip" in augmentation:
        mirrored = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device)
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    return images


def _shifted(images: Tensor, black: Tensor, rng: np.random.Generator) -> Tensor:
    count, _, height, width = images.shape
    down, right = max(1, height // 8), max(1, width // 8)
    padded = functional.pad(images - black, (right, right, down, down)) + black
    top, left = rng.integers(2 * down + 1, size=(count, 1, 1)), rng.integers(2 * right + 1, size=(count, 1, 1))
    crops = np.arange(count).reshape(-1, 1, 1), top + np.arange(height).reshape(-1, 1), left + np.arange(width)
    index, rows, columns = (torch.from_numpy(positions).to(images.device) for positions in crops)
    return padded.permute(0, 2, 3, 1)[index, rows, columns].permute(0, 3, 1, 2)


def _subset(split: Split, images: int | None, seed: int) -> Split:
    if images is None or images >= len(split):
        return split
    # A prefix of one permutation: with equal seed a smaller subset lies within a larger one.
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(split))[:images])
    return Split(split.images[chosen], split.labels[chosen])


def _optimizer(parameters: list[nn.Parameter], options: FitOptions) -> torch.optim.Optimizer:
    decayed = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(options.momentum, 0.999), fused=True)
    nesterov = options.momentum > 0
    sgd = torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum, nesterov=nesterov, fused=True)
    if options.momentum > 0:
        # The first step starts from zeros anyway. Without them the fused SGD refuses parameters that meet their first
        # gradient later than others, as those of unsampled paths do.
        for parameter in parameters:
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def usable_device(name: str) -> torch.device:
    """The device called `name`.

    Raises:
        ConfigError: no such device here.
    """
    try:
        device = torch.device(name)
        if device.type not in {"cpu", "cuda"}:
            raise NotImplementedError(f"nothing is run on {device.type}")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        available = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ConfigError(f"device {name!r} cannot be used here; allowed: {', '.join(available)}") from error
    return device
