"""PT2 files: the whole graph with its weights by torch.export, loadable without the network's Python code."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nas_engine.exports.check import FileFormat, Predict, Reference
from nas_engine.exports.quiet import quiet
from nas_engine.store import write_atomically


def export_torch_export(model: nn.Module, images: Tensor, path: Path) -> float:
    """Write `model` as a torch.export program and check the file.

    Args:
        model: the trained network; left unchanged.
        images: real images, [batch, channels, height, width].
        path: for example ``best.pt2``; ``torch.export.load(path).module()`` accepts any batch size.

    Returns:
        Largest absolute difference of logits between the loaded program and the network.

    Raises:
        ExportError: the network cannot be written, or the file does not load or does not agree.
    """
    return TORCH_EXPORT.export_checked(Reference.of(model, images), path, {})


def _write(reference: Reference, path: Path, description: Mapping[str, object]) -> None:
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(reference.program, buffer, extra_files={"description.json": json.dumps(description)})
    write_atomically(path, buffer.getvalue())


def _load(path: Path) -> Predict:
    with quiet():
        program = torch.export.load(path).module()

    def predict(batches: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return [program(images) for images in batches]

    return predict


# The same kernels in the same order; only decompositions of the graph may round differently.
TORCH_EXPORT = FileFormat("torch_export", ("best.pt2",), _write, _load, relative_tolerance=1e-5)
"""The torch.export format; the description is its extra file ``description.json``."""
