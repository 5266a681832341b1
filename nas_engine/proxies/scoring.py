"""Proxies by name, and their values for architectures of a space on real images."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nas_engine.data.base import ImageDataset
from nas_engine.proxies.base import check_proxy_names
from nas_engine.proxies.grad_norm import grad_norm
from nas_engine.proxies.naswot import naswot
from nas_engine.proxies.synflow import synflow
from nas_engine.scores import FloatArray
from nas_engine.spaces.base import SearchSpace
from nas_engine.types import Architecture

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Proxy = Callable[[nn.Module, Tensor, Tensor], float]
"""(untrained network, images, labels) -> a number, higher is better; the network is not changed."""

PROXIES: Mapping[str, Proxy] = {"naswot": naswot, "synflow": synflow, "grad_norm": grad_norm}


class NetworkProxies:
    """Computes proxies on the networks that a space builds and on training images of a data set.

    The value of an architecture depends on the seed and on nothing else: all networks are initialised from the same
    seed and see the same images. A proxy that fails gives NaN, as an evaluation that fails is a `Failure`.

    Attributes:
        names: of the proxies.
        seconds: spent so far, by the clock.
        before_each: called before each architecture; what it raises ends the call (a search that is to stop).
    """

    def __init__(
        self,
        space: SearchSpace,
        dataset: ImageDataset,
        names: Sequence[str],
        seed: int = 0,
        device: str = "cpu",
        batch: int = 32,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Draw the images.

        Args:
            space: builds the networks.
            dataset: its training split gives the images.
            names: of `PROXIES`.
            seed: of images and weights.
            device: where to compute.
            batch: number of images, fewer where there are not so many.
            clock: gives seconds; `time.thread_time` leaves out what other programs take.

        Raises:
            ConfigError: an unknown name, or one twice.
        """
        check_proxy_names(names, tuple(PROXIES))
        self.names, self.seconds = tuple(names), 0.0
        self.before_each: Callable[[], object] = lambda: None
        self._space, self._seed, self._device, self._clock = space, seed, device, clock
        chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(dataset.train))[:batch])
        self._images = dataset.train.images[chosen].to(device)
        self._labels = dataset.train.labels[chosen].to(device)

    def __call__(self, architectures: Sequence[Architecture]) -> FloatArray:
        """Values [n, proxies]."""
        started = self._clock()
        rows = []
        for architecture in architectures:
            self.before_each()
            rows.append([value for value, _ in self.measure(architecture).values()])
        self.seconds += self._clock() - started
        return np.array(rows, dtype=np.float64).reshape(len(architectures), len(self.names))

    def measure(self, architecture: Architecture) -> dict[str, tuple[float, float]]:
        """Value and seconds of each proxy of one architecture."""
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self._seed)
            network = self._guarded(architecture, "network", lambda: self._space.build(architecture).to(self._device))
            return {name: self._timed(architecture, name, network) for name in self.names}

    def _timed(self, architecture: Architecture, name: str, network: nn.Module | None) -> tuple[float, float]:
        started = self._clock()
        value = None
        if network is not None:
            value = self._guarded(architecture, name, lambda: PROXIES[name](network, self._images, self._labels))
        return np.nan if value is None else value, self._clock() - started

    def _guarded(self, architecture: Architecture, what: str, compute: Callable[[], Result]) -> Result | None:
        """What `compute` returns; None where it fails: whatever happens inside one network, the search goes on."""
        try:
            return compute()
        except Exception:
            logger.warning("%s of %s failed", what, architecture.key, exc_info=True)
            return None
