"""Gradient norm: how strongly the loss of one batch pulls on the weights of an untrained network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_engine.proxies.sandbox import layer_weights, private_copy


def grad_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The sum over layers of the Euclidean norm of the gradient of their weights; higher is better.

    Source: Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS", section 3.2 and their code: cross-entropy
    of one batch, convolutions and linear layers, the network in training mode.

    Args:
        network: untrained; it is not changed.
        images: float32 [batch, channels, height, width].
        labels: int64 [batch].

    Returns:
        NaN where a gradient is not finite.
    """
    with private_copy(network) as sandbox, torch.enable_grad():
        sandbox.train().requires_grad_(True)
        weights = layer_weights(sandbox)
        loss = functional.cross_entropy(sandbox(images), labels)
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    total = sum(float(gradient.norm()) for gradient in gradients if gradient is not None)
    return total if math.isfinite(total) else math.nan
