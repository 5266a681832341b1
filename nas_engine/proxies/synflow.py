"""SynFlow: how much signal an untrained network can carry from its input to its output."""

from __future__ import annotations

import math
import types

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas_engine.proxies.sandbox import layer_weights, private_copy


def synflow(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The logarithm of the sum of all synaptic saliencies; higher is better.

    Source: Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow",
    equation 2: R is the sum of the outputs for an image of ones, of the network with the absolute values of its
    parameters, and the saliency of a weight is |dR/dw * w|. The score sums those of convolutions and linear layers
    and takes BatchNorm out, as Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS", section 3.2 and their
    code do; in float64, where deep networks do not overflow.

    Args:
        network: untrained; it is not changed.
        images: float32 [batch, channels, height, width]; only the shape of one counts.
        labels: int64 [batch], not looked at.

    Returns:
        -inf where no weight has any effect; NaN where the network gives no finite number.
    """
    with private_copy(network) as sandbox, torch.enable_grad():
        sandbox.double().eval().requires_grad_(True)
        for parameter in sandbox.parameters():
            parameter.data.abs_()
        for module in sandbox.modules():
            if isinstance(module, _BatchNorm):
                module.forward = types.MethodType(_pass_on, module)  # type: ignore[method-assign]
        weights = layer_weights(sandbox)
        flow = sandbox(torch.ones_like(images[:1], dtype=torch.float64)).sum()
        gradients = torch.autograd.grad(flow, weights, allow_unused=True)
    total = sum(
        float((weight.detach() * gradient).abs().sum())
        for weight, gradient in zip(weights, gradients, strict=True)
        if gradient is not None
    )
    if not math.isfinite(total):
        return math.nan
    return math.log(total) if total > 0 else -math.inf


def _pass_on(module: nn.Module, inputs: Tensor) -> Tensor:
    return inputs
