"""NASWOT: how differently an untrained network switches its activations for different images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas_engine.proxies.sandbox import private_copy

# Activations that are, or nearly are, off below zero and on above: relu6 is a hardtanh.
_SWITCHES = ("relu", "hardtanh", "leaky_relu", "prelu", "hardswish", "silu", "gelu", "elu")
_PACKETS = frozenset(
    packet for name in _SWITCHES for packet in (f"aten::{name}", f"aten::{name}_", f"aten::_{name}_kernel")
)


def naswot(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The logarithm of the determinant of the kernel of activation patterns; higher is better.

    Source: Mellor et al. 2021, "Neural Architecture Search without Training", equation 2: K_ij is the number of
    rectifiers that are both on or both off for images i and j, and the score is log |det K|. As in the authors' code
    the network is in training mode, so that BatchNorm uses the statistics of these images. Activations are found
    wherever they are computed, by a module or a function.

    Args:
        network: untrained; it is not changed.
        images: float32 [batch, channels, height, width], all different.
        labels: int64 [batch], not looked at.

    Returns:
        -inf where two images have the same pattern; NaN where the network has no rectifier or gives no finite number.
    """
    with private_copy(network) as sandbox, torch.no_grad(), _Patterns(len(images)) as patterns:
        logits = sandbox.train()(images)
    if not patterns.kernel.any() or not bool(torch.isfinite(logits).all()):
        return math.nan
    return float(np.linalg.slogdet(patterns.kernel.cpu().numpy())[1])


class _Patterns(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up, over all activations computed within the context, how many units agree for each pair of images."""

    def __init__(self, batch: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernel = torch.zeros(batch, batch, dtype=torch.float64)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.name().partition(".")[0] in _PACKETS and len(args[0]) == len(self.kernel):
            self._add(args[0])
        return func(*args, **(kwargs or {}))

    def _add(self, inputs: Tensor) -> None:
        # With +1 for on and -1 for off, the product is agreeing minus disagreeing units.
        signs = torch.where(inputs.flatten(1) > 0, 1.0, -1.0)
        self.kernel = self.kernel.to(inputs.device) + (signs.shape[1] + signs @ signs.T).double() / 2
