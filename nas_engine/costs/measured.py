"""Costs taken from a running network: latency on this machine, and the largest memory of live activations."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas_engine.options import Options
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture, ImageShape


class LatencyOptions(Options):
    """How latency is measured."""

    threads: int = Field(1, ge=1, description="CPU threads torch may use within an operation")
    batch_size: int = Field(1, ge=1, description="images a forward pass")
    warmup: int = Field(5, ge=0, description="forward passes before the clock starts")
    repeats: int = Field(30, ge=1, description="forward passes timed one by one")


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one forward pass in inference mode, and the setting it was taken in.

    Attributes:
        median_ms: median over the repeats, in milliseconds.
        p95_ms: 95th percentile over the repeats, in milliseconds.
        threads: CPU threads torch used.
        batch_size: images a pass.
        repeats: passes timed.
        device: where the network ran, for example ``cpu`` or ``cuda:0``.
    """

    median_ms: float
    p95_ms: float
    threads: int
    batch_size: int
    repeats: int
    device: str


def measure_latency(
    model: nn.Module,
    shape: ImageShape,
    *,
    threads: int = 1,
    batch_size: int = 1,
    warmup: int = 5,
    repeats: int = 30,
    seed: int = 0,
) -> Latency:
    """Time forward passes of `model`, in eval mode, on the device that holds its parameters.

    The mode of the model and torch's thread count are as before afterwards.

    Args:
        model: takes float32 [batch, channels, height, width].
        shape: of its images.
        threads: CPU threads torch may use within an operation.
        batch_size: images a pass.
        warmup: passes before the clock starts (allocator, caches and lazy kernels settle).
        repeats: passes timed one by one.
        seed: of the random pixels.
    """
    device = _device_of(model)
    images = _random_images(shape, batch_size, seed).to(device)
    with torch_threads(threads), _eval_mode(model), torch.inference_mode():
        for _ in range(warmup):
            model(images)
        _finish(device)
        seconds = [_time_forward(model, images) for _ in range(repeats)]
    median, p95 = 1e3 * np.percentile(seconds, [50, 95])
    return Latency(float(median), float(p95), threads, batch_size, repeats, str(device))


class MeasuredLatency:
    """Cost model ``latency_ms``: the median measured on this machine, once for each canonical architecture."""

    Options = LatencyOptions

    def __init__(self, space: SearchSpace, options: LatencyOptions = LatencyOptions(), device: str = "cpu") -> None:
        """Measure nothing yet.

        Args:
            space: builds the networks.
            options: how they are timed.
            device: where they run.
        """
        self.space = space
        self.options = options
        self.device = device
        self._median_ms: dict[str, float] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """``("latency_ms",)``."""
        return ("latency_ms",)

    def estimate(self, architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """Median latencies in milliseconds, float64 [n, 1]."""
        latencies = [self._latency_ms(self.space.canonical(architecture)) for architecture in architectures]
        return np.array(latencies, dtype=np.float64).reshape(-1, 1)

    def remember(self, medians_ms: Mapping[str, float]) -> None:
        """Take what was measured before, by `Architecture.key` of canonical architectures, as measured."""
        self._median_ms |= medians_ms

    def _latency_ms(self, canonical: Architecture) -> float:
        if canonical.key not in self._median_ms:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = self.space.build(canonical).to(self.device)
            latency = measure_latency(model, self.space.shape, **self.options.model_dump())
            self._median_ms[canonical.key] = latency.median_ms
        return self._median_ms[canonical.key]


def measured_peak_activation_bytes(model: nn.Module, shape: ImageShape) -> int:
    """Largest sum of live activations during eager inference of one image, as it happens in torch.

    Counted is every storage an operation returns, from then until its last reference goes; views and in-place results
    share one. The input image counts, which the caller holds throughout; parameters, buffers and the scratch memory
    within an operation do not.

    Args:
        model: takes float32 [1, channels, height, width]; its mode is as before afterwards.
        shape: of its images.

    Returns:
        Bytes.
    """
    image = _random_images(shape, 1, 0).to(_device_of(model))
    tracker = _LiveStorages(excluded=chain(model.parameters(), model.buffers()))
    tracker.add(image)
    with _eval_mode(model), torch.no_grad(), tracker:
        model(image)
    return tracker.peak_bytes


class _LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class and calls have no types
    """Sums, after each operation, the storages that something still refers to."""

    def __init__(self, excluded: Iterator[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = 0
        self._excluded = {tensor.untyped_storage()._cdata for tensor in excluded}
        # Weak references: this mode must not keep alive what it watches. They pin the address of a storage, so that
        # a new one cannot be taken for one that is gone.
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for output in tree_leaves(outputs):
            if isinstance(output, Tensor):
                self.add(output)
        return outputs

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._excluded and storage._cdata not in self._live:
            self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()  # type: ignore[no-untyped-call]
        gone = [key for key, (storage_ref, _) in self._live.items() if storage_ref.expired()]  # type: ignore[no-untyped-call]
        for key in gone:
            del self._live[key]
        self.peak_bytes = max(self.peak_bytes, sum(nbytes for _, nbytes in self._live.values()))


def _time_forward(model: nn.Module, images: Tensor) -> float:
    started = time.perf_counter()
    model(images)
    _finish(images.device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    """Wait for the kernels of a GPU, which run behind the calls that launch them."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _random_images(shape: ImageShape, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, shape.channels, shape.height, shape.width, generator=generator)


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return parameter.device if parameter is not None else torch.device("cpu")


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in was_training:
            module.training = True


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Within the context torch uses `count` CPU threads within an operation; afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
