"""What every weight-sharing network offers, and the BatchNorm recalibration that makes its paths comparable."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Genes = Sequence[int]


class Supernet(nn.Module):
    """Shared weights for all architectures of a space; a path is chosen by genes at each call.

    Promises: `forward` computes only what the path needs, and two calls with equal genes, weights, BatchNorm mode
    and images give equal logits.
    """

    @abstractmethod
    def forward(self, images: Tensor, genes: Genes) -> Tensor:
        """Logits [batch, classes] of the path `genes` for float32 images [batch, channels, height, width]."""

    @abstractmethod
    def largest(self) -> tuple[int, ...]:
        """Genes of the most expensive path, which sandwich sampling always trains."""

    @abstractmethod
    def smallest(self) -> tuple[int, ...]:
        """Genes of the cheapest path that connects input and output, which sandwich sampling always trains."""


@contextmanager
def recalibrated(supernet: Supernet, genes: Genes, batches: Sequence[Tensor]) -> Iterator[None]:
    """Within the context, BatchNorm layers hold the statistics of the path `genes` on `batches`; then the old ones.

    Statistics that shared BatchNorm layers gather while all paths are trained in turn fit no single path; without
    recalibration the ranking of paths is close to meaningless (Guo et al. 2020, "Single Path One-Shot", section 3.4;
    Yu & Huang 2019, "Universally Slimmable Networks", section 3.4).

    Args:
        supernet: left in eval mode inside the context, and in its former mode afterwards.
        genes: the path.
        batches: calibration images, each [batch, channels, height, width]; from training data, never from the data
            that scores the path.
    """
    layers = [m for m in supernet.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    saved = [(m, m.momentum, {k: v.clone() for k, v in m.named_buffers(recurse=False)}) for m in layers]
    was_training = supernet.training
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # cumulative average: every calibration image counts the same
        supernet.train()
        with torch.no_grad():
            for images in batches:
                supernet(images, genes)
        supernet.eval()
        yield
    finally:
        for layer, momentum, buffers in saved:
            layer.momentum = momentum
            for name, value in buffers.items():
                getattr(layer, name).copy_(value)
        supernet.train(was_training)
