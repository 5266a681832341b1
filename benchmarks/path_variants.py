"""The ways of scoring paths of a supernet in PyTorch that the native op is compared with; on the images' device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nas_engine.nn.nasbench201 import EDGES, OPERATIONS, edge_name, live_edges
from nas_engine.nn.nasbench201_supernet import NASBench201Supernet, SharedCell
from nas_engine.nn.supernet import Supernet

Genes = tuple[int, ...]
PIXELS_AT_ONCE = 1 << 17  # of `batched`, on a CPU: the fastest that was tried, at both image sizes


def eager(supernet: Supernet, paths: Sequence[Genes], images: Tensor, labels: Tensor) -> list[float]:
    """Loss of each path, one forward pass after the other."""
    with torch.inference_mode():
        losses = [functional.cross_entropy(supernet(images, genes), labels) for genes in paths]
        return torch.stack(losses).tolist()  # fetched together: a GPU does not wait after each path


def autocast(supernet: Supernet, paths: Sequence[Genes], images: Tensor, labels: Tensor) -> list[float]:
    """The same in bfloat16 where PyTorch thinks it fit."""
    with torch.autocast(images.device.type, torch.bfloat16):
        return eager(supernet, paths, images, labels)


def batched(
    supernet: NASBench201Supernet,
    paths: Sequence[Genes],
    images: Tensor,
    labels: Tensor,
    pixels_at_once: int = PIXELS_AT_ONCE,
) -> list[float]:
    """All paths at once: each operation of each edge runs on the images of all paths that chose it.

    Weights are shared, so batching over the batch dimension does what grouped convolutions or vmap would, and better.
    """
    losses: list[float] = []
    at_once = max(1, pixels_at_once // (len(images) * images.shape[2] * images.shape[3]))
    with torch.inference_mode():
        stem = supernet.stem(images)
        for first in range(0, len(paths), at_once):
            some = paths[first : first + at_once]
            features = stem.repeat(len(some), 1, 1, 1)
            for layer in supernet.body:
                features = _batched_cell(layer, some, features) if isinstance(layer, SharedCell) else layer(features)
            logits = supernet.head(features).reshape(len(some), len(images), -1)
            losses += [float(functional.cross_entropy(one, labels)) for one in logits]
    return losses


def _batched_cell(cell: SharedCell, paths: Sequence[Genes], inputs: Tensor) -> Tensor:
    count = len(inputs) // len(paths)
    nodes = [inputs] + [torch.zeros_like(inputs) for _ in range(3)]
    for edge, (source, target) in enumerate(EDGES):
        for choice, name in enumerate(OPERATIONS[1:], start=1):
            chosen = [i for i, genes in enumerate(paths) if genes[edge] == choice and _is_live(genes, edge)]
            if chosen:
                rows = torch.cat([torch.arange(i * count, (i + 1) * count, device=inputs.device) for i in chosen])
                operation: Any = cell.edges[edge_name(EDGES[edge])]
                nodes[target].index_add_(0, rows, operation[name](nodes[source][rows]))
    return nodes[3]


def _is_live(genes: Genes, edge: int) -> bool:
    return EDGES[edge] in live_edges([OPERATIONS[gene] for gene in genes])
