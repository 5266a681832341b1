"""Weights (a torch state_dict) beside a JSON text that says which class to build and how."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas_engine.errors import ExportError
from nas_engine.exports.check import FileFormat, Predict, Reference
from nas_engine.store import write_atomically

ARCHITECTURE_FILE = "architecture.json"


def export_state_dict(model: nn.Module, images: Tensor, path: Path) -> float:
    """Write the weights of `model`, and ``architecture.json`` beside them, and check both.

    Args:
        model: the trained network; ``type(model)(**model.config)`` must build it; left unchanged.
        images: real images, [batch, channels, height, width].
        path: of the weights, for example ``weights.pt``.

    Returns:
        Largest absolute difference of logits between the rebuilt network and the network.

    Raises:
        ExportError: the network cannot be written, or the files do not load or do not agree.
    """
    return STATE_DICT.export_checked(Reference.of(model, images), path, {})


def load_network(path: Path) -> nn.Module:
    """The network of a weights file and its ``architecture.json``, in eval mode on the CPU.

    Args:
        path: of the weights.

    Raises:
        ExportError: the class cannot be imported or is no `nn.Module`.
    """
    entry = json.loads(path.with_name(ARCHITECTURE_FILE).read_text())
    found: Any = importlib.import_module(entry["module"])
    for name in entry["class"].split("."):
        found = getattr(found, name, None)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise ExportError(
            f"{entry['module']} has no network class {entry['class']}: define it at the top of the module"
        )
    network: nn.Module = found(**entry["config"])
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def configuration(network: nn.Module) -> dict[str, Any]:
    """The keyword arguments that rebuild `network`.

    Raises:
        ExportError: it has no dict `config`.
    """
    config = getattr(network, "config", None)
    if not isinstance(config, dict):
        raise ExportError(
            f"{type(network).__name__} has no dict attribute 'config' with its constructor's arguments: add one, or "
            "choose the formats onnx and torch_export"
        )
    return config


def _write(reference: Reference, path: Path, description: Mapping[str, object]) -> None:
    network = reference.network
    entry = {
        "module": type(network).__module__,
        "class": type(network).__qualname__,
        "config": configuration(network),
        "input_shape": ["batch", *reference.image_shape],
        "description": description,
    }
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    text = json.dumps(entry, indent=2)
    write_atomically(path, buffer.getvalue())
    write_atomically(path.with_name(ARCHITECTURE_FILE), text.encode())


def _load(path: Path) -> Predict:
    network = load_network(path)

    def predict(batches: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return [network(images) for images in batches]

    return predict


# The same code with the same weights gives the same logits, to the last bit on the same machine.
STATE_DICT = FileFormat("state_dict", ("weights.pt", ARCHITECTURE_FILE), _write, _load, relative_tolerance=1e-6)
"""The state_dict format; the description is in ``architecture.json``."""
