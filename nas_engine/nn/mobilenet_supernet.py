"""Shared weights for all MobileNets of a space: a path uses the centre of each kernel and the first channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_engine.nn.mobilenet import resized
from nas_engine.nn.supernet import Genes, Supernet
from nas_engine.ops.depthwise_conv import depthwise_conv2d


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels at one width multiplier.

    Attributes:
        stem: channels after the stem.
        layers: channels after each layer.
        head: channels after the head.
    """

    stem: int
    layers: tuple[int, ...]
    head: int


class SlicedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm of the first channels: inputs with fewer channels use, and update, only their slice.

    One set of slices rather than one BatchNorm for each width: widths and expansions combine to many channel counts,
    each would see a fraction of the training, and statistics are recalibrated for each path anyway (Yu & Huang 2019,
    "Universally Slimmable Networks", section 3.4). A path runs every layer at most once a forward pass, so the one
    counter of batches is right for whichever slice is in use, and ``momentum=None`` gives exact averages.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        """[batch, channels, height, width], channels at most `num_features`."""
        channels = inputs.shape[1]
        momentum = self.momentum
        if self.training:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        return F.batch_norm(
            inputs,
            self.running_mean[:channels],
            self.running_var[:channels],
            self.weight[:channels],
            self.bias[:channels],
            self.training,
            momentum or 0.0,
            self.eps,
        )


class ElasticInvertedResidual(nn.Module):
    """An inverted residual layer at its largest, of which each call uses a part."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, expansion: int, stride: int) -> None:
        """Make the layer.

        Args:
            in_channels: most channels of the input.
            out_channels: most channels of the output.
            kernel: largest side of the depthwise kernel.
            expansion: largest number of hidden channels for each input channel.
            stride: of the depthwise convolution.
        """
        super().__init__()
        hidden = in_channels * expansion
        self.stride = stride
        self.expand = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.expand_norm = SlicedBatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)
        self.depthwise_norm = SlicedBatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.project_norm = SlicedBatchNorm2d(out_channels)

    def forward(self, inputs: Tensor, kernel: int, expansion: int, out_channels: int) -> Tensor:
        """[batch, in, height, width] to [batch, out_channels, ceil(height / stride), ceil(width / stride)]."""
        in_channels = inputs.shape[1]
        hidden_channels = in_channels * expansion
        border = (self.depthwise.kernel_size[0] - kernel) // 2
        centre = slice(border, border + kernel)
        hidden: Tensor = F.conv2d(inputs, self.expand.weight[:hidden_channels, :in_channels])
        hidden = F.relu6(self.expand_norm(hidden), inplace=True)
        hidden = depthwise_conv2d(hidden, self.depthwise.weight[:hidden_channels, :, centre, centre], self.stride)
        hidden = F.relu6(self.depthwise_norm(hidden), inplace=True)
        hidden = F.conv2d(hidden, self.project.weight[:out_channels, :hidden_channels])
        hidden = self.project_norm(hidden)
        return inputs + hidden if self.stride == 1 and in_channels == out_channels else hidden


class MobileNetSupernet(Supernet):
    """All MobileNets of a space in one set of weights (after Cai et al. 2020, "Once-for-All", section 3).

    Genes are: width, resolution, then for each layer the index of its (kernel, expansion), or one more for a skip.
    """

    def __init__(
        self,
        *,
        image_channels: int,
        classes: int,
        resolutions: Sequence[tuple[int, int]],
        widths: Sequence[Widths],
        operations: Sequence[tuple[int, int]],
        strides: Sequence[int],
        skippable: Sequence[bool],
    ) -> None:
        """Make the largest network.

        Args:
            image_channels: channels of the images.
            classes: number of logits.
            resolutions: (height, width) of each resolution choice, ascending.
            widths: channels of each width choice, ascending.
            operations: (kernel, expansion) of each choice of a layer, in the order of the genes; the last one has the
                largest of both.
            strides: of each layer.
            skippable: for each layer, whether it may be left out.
        """
        super().__init__()
        self.resolutions, self.widths = tuple(resolutions), tuple(widths)
        self.operations, self.skippable = tuple(operations), tuple(skippable)
        most, (kernel, expansion) = widths[-1], operations[-1]
        self.stem = nn.Conv2d(image_channels, most.stem, 3, padding=1, bias=False)
        self.stem_norm = SlicedBatchNorm2d(most.stem)
        self.layers = nn.ModuleList(
            ElasticInvertedResidual(before, after, kernel, expansion, stride)
            for before, after, stride in zip((most.stem, *most.layers), most.layers, strides, strict=False)
        )
        self.head = nn.Conv2d(most.layers[-1], most.head, 1, bias=False)
        self.head_norm = SlicedBatchNorm2d(most.head)
        self.classifier = nn.Linear(most.head, classes)

    def forward(self, images: Tensor, genes: Genes) -> Tensor:
        """Logits [batch, classes] of the path `genes` for float32 images [batch, channels, height, width]."""
        widths = self.widths[genes[0]]
        hidden = resized(images, self.resolutions[genes[1]])
        hidden = F.conv2d(hidden, self.stem.weight[: widths.stem], padding=1)
        hidden = F.relu6(self.stem_norm(hidden), inplace=True)
        for layer, gene, out_channels in zip(self.layers, genes[2:], widths.layers, strict=True):
            if gene < len(self.operations):
                kernel, expansion = self.operations[gene]
                hidden = layer(hidden, kernel, expansion, out_channels)
        hidden = F.conv2d(hidden, self.head.weight[: widths.head, : hidden.shape[1]])
        hidden = F.relu6(self.head_norm(hidden), inplace=True)
        hidden = torch.mean(hidden, dim=(2, 3))
        return F.linear(hidden, self.classifier.weight[:, : widths.head], self.classifier.bias)

    def largest(self) -> tuple[int, ...]:
        """Widest, highest resolution, every layer with the largest kernel and expansion."""
        last = len(self.operations) - 1
        return (len(self.widths) - 1, len(self.resolutions) - 1, *[last] * len(self.layers))

    def smallest(self) -> tuple[int, ...]:
        """Narrowest, lowest resolution, all skips, and the smallest kernel and expansion where there is none."""
        skip = len(self.operations)
        return (0, 0, *[skip if skippable else 0 for skippable in self.skippable])
