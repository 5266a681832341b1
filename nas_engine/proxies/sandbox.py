"""A copy of a network that may be used in any way, and the weights of it that proxies look at."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@contextmanager
def private_copy(network: nn.Module) -> Iterator[nn.Module]:
    """A copy of `network`; whatever is done to it, the network and torch's global generators are left as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield copy.deepcopy(network)


def layer_weights(network: nn.Module) -> list[Tensor]:
    """The weights, without biases, of all convolutions and linear layers: those that Abdelfattah et al. sum over."""
    return [module.weight for module in network.modules() if isinstance(module, _LAYERS)]
