"""The weight-sharing network of the NAS-Bench-201 space: every edge of every cell holds all candidate operations."""

from __future__ import annotations

from functools import cache

from torch import Tensor, nn

from nas_engine.nn.nasbench201 import (
    EDGES,
    OPERATIONS,
    Edge,
    edge_name,
    live_edges,
    make_body,
    make_head,
    make_operation,
    make_stem,
    run_cell,
)
from nas_engine.nn.supernet import Genes, Supernet

_SKIP = OPERATIONS.index("skip_connect")
_CONV_3X3 = OPERATIONS.index("nor_conv_3x3")


class NASBench201Supernet(Supernet):
    """Shared weights for all architectures; a path has the layers of `NASBench201Network` in the same places."""

    def __init__(self, channels: int, cells: int, image_channels: int, classes: int) -> None:
        """Build with fresh weights from torch's global generator; arguments as in `NASBench201Network`."""
        super().__init__()
        self.stem = make_stem(image_channels, channels)
        self.body = make_body(channels, cells, SharedCell)
        self.head = make_head(4 * channels, classes)

    def forward(self, images: Tensor, genes: Genes) -> Tensor:
        """Logits [batch, classes] of the path `genes` for float32 images [batch, channels, height, width]."""
        operations = _operations(tuple(genes))
        features = self.stem(images)
        for layer in self.body:
            features = layer(features, operations) if isinstance(layer, SharedCell) else layer(features)
        logits: Tensor = self.head(features)
        return logits

    def largest(self) -> tuple[int, ...]:
        """A 3x3 convolution on every edge."""
        return (_CONV_3X3,) * len(EDGES)

    def smallest(self) -> tuple[int, ...]:
        """Only a skip from input to output."""
        return tuple(_SKIP if edge == (0, 3) else 0 for edge in EDGES)


class SharedCell(nn.Module):
    """All candidate operations on all edges."""

    def __init__(self, channels: int) -> None:
        """Build for feature maps of `channels`."""
        super().__init__()
        self.edges = nn.ModuleDict(
            {
                edge_name(edge): nn.ModuleDict({name: make_operation(name, channels) for name in OPERATIONS[1:]})
                for edge in EDGES
            }
        )

    def forward(self, inputs: Tensor, operations: dict[Edge, str]) -> Tensor:
        """Feature maps of the shape of `inputs`; `operations` names the operation of each live edge."""
        return run_cell(inputs, tuple(operations), lambda e: self.edges[edge_name(e)][operations[e]])  # type: ignore[index]


@cache
def _operations(genes: tuple[int, ...]) -> dict[Edge, str]:
    names = [OPERATIONS[gene] for gene in genes]
    chosen = dict(zip(EDGES, names, strict=True))
    return {edge: chosen[edge] for edge in live_edges(names)}
