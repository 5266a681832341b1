"""Networks of the NAS-Bench-201 space: one searched cell, repeated in three stages between a stem and a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
KERNELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))

Edge = tuple[int, int]


def live_edges(operations: Sequence[str]) -> tuple[Edge, ...]:
    """The edges that lie on a path from node 0 to node 3 along operations other than ``none``, in order of `EDGES`.

    All other edges carry zeros or are read by nothing. They are neither built nor computed: a convolution of zeros
    would still add its trained BatchNorm bias, so that an architecture would depend on edges without any input.

    Args:
        operations: one name of `OPERATIONS` for each of `EDGES`.
    """
    connected = [edge for edge, operation in zip(EDGES, operations, strict=True) if operation != "none"]
    from_input, to_output = {0}, {3}
    for source, target in connected:  # EDGES are sorted by target: a node is complete before it is a source
        if source in from_input:
            from_input.add(target)
    for source, target in reversed(connected):
        if target in to_output:
            to_output.add(source)
    return tuple((source, target) for source, target in connected if source in from_input and target in to_output)


def relu_conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Module, ...]:
    """ReLU, convolution without bias that keeps the size (halves it, rounding up, at stride 2), BatchNorm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.ReLU(), convolution, nn.BatchNorm2d(outputs)


def make_operation(name: str, channels: int) -> nn.Module:
    """The candidate operation `name`, any of `OPERATIONS` but ``none``, on feature maps of `channels`."""
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Sequential(*relu_conv_bn(channels, channels, KERNELS[name]))


def run_cell(inputs: Tensor, edges: Sequence[Edge], operation_of: Callable[[Edge], nn.Module]) -> Tensor:
    """Output of a cell: each node is the sum of its live edges, the output is node 3.

    Where nothing reaches node 3 it is 0.0 times the input, as in the published networks: zeros, but a NaN stays one.

    Args:
        inputs: node 0, [batch, channels, height, width].
        edges: what `live_edges` returns.
        operation_of: the operation of a live edge.
    """
    nodes = {0: inputs}
    for position, (source, target) in enumerate(edges):
        term = operation_of((source, target))(nodes[source])
        nodes[target] = nodes[target] + term if target in nodes else term
        # Feature maps are the memory of a network: drop each as soon as nothing reads it any more.
        del term
        if all(later_source != source for later_source, _ in edges[position + 1 :]):
            del nodes[source]
    return nodes[3] if edges else 0.0 * inputs


class Cell(nn.Module):
    """The searched cell, with only the live edges as modules."""

    def __init__(self, operations: Sequence[str], channels: int) -> None:
        """Build the operation of each live edge.

        Args:
            operations: one name of `OPERATIONS` for each of `EDGES`.
            channels: of the feature maps.
        """
        super().__init__()
        self.live_edges = live_edges(operations)
        chosen = dict(zip(EDGES, operations, strict=True))
        self.edges = nn.ModuleDict({edge_name(e): make_operation(chosen[e], channels) for e in self.live_edges})

    def forward(self, inputs: Tensor) -> Tensor:
        """Feature maps [batch, channels, height, width], of the shape of `inputs`."""
        return run_cell(inputs, self.live_edges, lambda edge: self.edges[edge_name(edge)])


def edge_name(edge: Edge) -> str:
    """Name of the module that computes `edge`, for example ``edge_0_1``."""
    return f"edge_{edge[0]}_{edge[1]}"


class ReductionBlock(nn.Module):
    """Residual block that halves the resolution (rounding up) and doubles the channels."""

    def __init__(self, inputs: int) -> None:
        """Build for `inputs` input channels."""
        super().__init__()
        outputs = 2 * inputs
        self.residual = nn.Sequential(*relu_conv_bn(inputs, outputs, 3, stride=2), *relu_conv_bn(outputs, outputs, 3))
        # ceil_mode: odd sizes round up as in the strided convolution; on even sizes it changes nothing.
        pool = nn.AvgPool2d(2, stride=2, ceil_mode=True, count_include_pad=False)
        self.shortcut = nn.Sequential(pool, nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, inputs: Tensor) -> Tensor:
        """Feature maps [batch, 2 * inputs, ceil(height / 2), ceil(width / 2)]."""
        # The residual branch first: it needs more memory, and so the shortcut's result does not add to it.
        output: Tensor = self.residual(inputs) + self.shortcut(inputs)
        return output


def make_stem(image_channels: int, channels: int) -> nn.Sequential:
    """Convolution and BatchNorm that lift images to `channels` feature maps."""
    return nn.Sequential(nn.Conv2d(image_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


def make_body(channels: int, cells: int, make_cell: Callable[[int], nn.Module]) -> nn.ModuleList:
    """Three stages of `cells` cells with 1, 2 and 4 times `channels`, a reduction block before the second and third."""
    first, second, third = ([make_cell(factor * channels) for _ in range(cells)] for factor in (1, 2, 4))
    return nn.ModuleList([*first, ReductionBlock(channels), *second, ReductionBlock(2 * channels), *third])


def make_head(channels: int, classes: int) -> nn.Sequential:
    """BatchNorm, ReLU, global average pooling and the linear classifier."""
    activation = (nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    return nn.Sequential(*activation, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class NASBench201Network(nn.Module):
    """Stand-alone network of one architecture (Dong & Yang 2020, "NAS-Bench-201", section 2.1 and figure 1).

    Departures from the authors' code, none of which changes a network they publish: edges without effect are not
    built (see `live_edges`), odd image sizes work, and feature maps are freed early.

    Attributes:
        config: the arguments of the constructor; ``NASBench201Network(**network.config)`` has the same structure.
    """

    def __init__(
        self, operations: Sequence[str], channels: int = 16, cells: int = 5, image_channels: int = 3, classes: int = 10
    ) -> None:
        """Build with fresh weights from torch's global generator.

        Args:
            operations: one name of `OPERATIONS` for each of `EDGES`.
            channels: of the first stage.
            cells: of each of the three stages.
            image_channels: 3 for RGB, 1 for grey images.
            classes: number of logits.
        """
        super().__init__()
        self.config: dict[str, object] = {
            "operations": tuple(operations),
            "channels": channels,
            "cells": cells,
            "image_channels": image_channels,
            "classes": classes,
        }
        self.stem = make_stem(image_channels, channels)
        self.body = make_body(channels, cells, lambda width: Cell(operations, width))
        self.head = make_head(4 * channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of float32 images [batch, image_channels, height, width], at least 4 x 4."""
        features = self.stem(images)
        for layer in self.body:
            features = layer(features)
        logits: Tensor = self.head(features)
        return logits
