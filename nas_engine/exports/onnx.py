"""ONNX files: written by torch's exporter, checked by onnx and run by ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from nas_engine.exports.check import FileFormat, Predict, Reference
from nas_engine.exports.quiet import quiet
from nas_engine.store import write_atomically


def export_onnx(model: nn.Module, images: Tensor, path: Path) -> float:
    """Write `model` as ONNX and check the file.

    Args:
        model: the trained network; left unchanged.
        images: real images, [batch, channels, height, width].
        path: for example ``best.onnx``; input ``images``, output ``logits``, any batch size, weights inside.

    Returns:
        Largest absolute difference of logits between ONNX Runtime and torch.

    Raises:
        ExportError: the network cannot be written, or the file does not load or does not agree.
    """
    return ONNX.export_checked(Reference.of(model, images), path, {})


def _write(reference: Reference, path: Path, description: Mapping[str, object]) -> None:
    with quiet():
        program = torch.onnx.export(
            reference.program,
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),  # the program has a free batch size; this is only its name
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {"description": json.dumps(description)})
    write_atomically(path, proto.SerializeToString())


def _load(path: Path) -> Predict:
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def predict(batches: Sequence[Tensor]) -> list[Tensor]:
        return [torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0]) for images in batches]

    return predict


# ONNX Runtime fuses layers and reorders float32 sums: differences of 1e-6 of the largest logit are usual.
ONNX = FileFormat("onnx", ("best.onnx",), _write, _load, relative_tolerance=1e-4)
"""The ONNX format; the description is in its metadata entry ``description``."""
