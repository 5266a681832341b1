"""Images, and small networks whose proxies can be worked out otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def images() -> Tensor:
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture
def network() -> nn.Module:
    """Everything that could leave a trace: BatchNorm statistics, an activation in place, dropout, a bias."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            nn.Conv2d(4, 5, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, 3),
        )
