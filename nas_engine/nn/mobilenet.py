"""A network of inverted residual layers (MobileNetV2, Sandler et al. 2018), built from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise k x k, project 1x1, each with BatchNorm; ReLU6 after the first two.

    The input is added to the output where their shapes agree.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, expansion: int, stride: int) -> None:
        """Make the layer.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            kernel: side of the depthwise kernel, odd.
            expansion: hidden channels for each input channel.
            stride: of the depthwise convolution.
        """
        super().__init__()
        hidden = in_channels * expansion
        self.expand = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(out_channels)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, inputs: Tensor) -> Tensor:
        """[batch, in_channels, height, width] to [batch, out_channels, ceil(height / stride), ceil(width / stride)]."""
        # One statement an operation: each intermediate result is freed as soon as the next one exists.
        hidden: Tensor = self.expand(inputs)
        hidden = F.relu6(self.expand_norm(hidden), inplace=True)
        hidden = self.depthwise(hidden)
        hidden = F.relu6(self.depthwise_norm(hidden), inplace=True)
        hidden = self.project(hidden)
        hidden = self.project_norm(hidden)
        return inputs + hidden if self.has_shortcut else hidden


class MobileNet(nn.Module):
    """Resize, 3x3 stem, inverted residual layers, 1x1 head, mean over pixels, linear classifier.

    Attributes:
        config: the constructor's arguments; ``MobileNet(**config)`` builds the same network.
    """

    def __init__(
        self,
        image_channels: int,
        classes: int,
        resolution: Sequence[int],
        stem_width: int,
        layers: Sequence[Sequence[int]],
        head_width: int,
    ) -> None:
        """Make the network with weights from torch's global generator.

        Args:
            image_channels: channels of the images.
            classes: number of logits.
            resolution: (height, width) to which images of another size are resized first.
            stem_width: channels after the stem.
            layers: (kernel, expansion, out_channels, stride) of each layer.
            head_width: channels after the head.
        """
        super().__init__()
        self.config: dict[str, object] = {
            "image_channels": image_channels,
            "classes": classes,
            "resolution": list(resolution),
            "stem_width": stem_width,
            "layers": [list(layer) for layer in layers],
            "head_width": head_width,
        }
        self.resolution = (resolution[0], resolution[1])
        self.stem = nn.Conv2d(image_channels, stem_width, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(stem_width)
        self.layers = nn.ModuleList()
        width = stem_width
        for kernel, expansion, out_channels, stride in layers:
            self.layers.append(InvertedResidual(width, out_channels, kernel, expansion, stride))
            width = out_channels
        self.head = nn.Conv2d(width, head_width, 1, bias=False)
        self.head_norm = nn.BatchNorm2d(head_width)
        self.classifier = nn.Linear(head_width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of float32 images [batch, image_channels, height, width]."""
        hidden = resized(images, self.resolution)
        hidden = self.stem(hidden)
        hidden = F.relu6(self.stem_norm(hidden), inplace=True)
        for layer in self.layers:
            hidden = layer(hidden)
        hidden = self.head(hidden)
        hidden = F.relu6(self.head_norm(hidden), inplace=True)
        hidden = torch.mean(hidden, dim=(2, 3))
        logits: Tensor = self.classifier(hidden)
        return logits


def resized(images: Tensor, resolution: tuple[int, int]) -> Tensor:
    """Images at `resolution` (height, width) by bilinear interpolation; themselves where they have that size."""
    if tuple(images.shape[-2:]) == resolution:
        return images
    return F.interpolate(images, size=resolution, mode="bilinear", align_corners=False)
