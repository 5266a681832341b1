"""manifest.json: which files were exported, how far each is from the network, and with which versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_engine.errors import ExportError
from nas_engine.exports.check import Reference
from nas_engine.store import write_atomically

MANIFEST_FILE = "manifest.json"

_PACKAGES = ("nas-engine", "torch", "numpy", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class ExportedFile:
    """One file of an export.

    Attributes:
        path: where it is.
        format: ``onnx``, ``torch_export``, ``state_dict`` or ``python``.
        size_bytes: its size.
        sha256: its digest.
        max_abs_difference: of logits between the loaded file and the network; None where it did not load.
        tolerance: largest difference accepted; None where it did not load.
        error: why the file must not be used; None for a good file.
    """

    path: Path
    format: str
    size_bytes: int
    sha256: str
    max_abs_difference: float | None
    tolerance: float | None
    error: str | None

    @property
    def verified(self) -> bool:
        """Whether the file loads and agrees with the network."""
        return self.error is None


def describe_file(
    path: Path, format: str, difference: float | None, tolerance: float | None, error: str | None
) -> ExportedFile:
    """The entry of a file on disk; `difference`, `tolerance` and `error` as in `ExportedFile`."""
    content = path.read_bytes()
    return ExportedFile(path, format, len(content), hashlib.sha256(content).hexdigest(), difference, tolerance, error)


def write_manifest(
    directory: Path,
    reference: Reference,
    files: Sequence[ExportedFile],
    failures: Mapping[str, str],
    description: Mapping[str, object],
) -> None:
    """Write ``manifest.json``; it lists the files of this export only.

    Args:
        directory: where the files are.
        reference: what they were compared with.
        files: good and bad ones.
        failures: message by format, for all formats that are not good.
        description: JSON-able; copied.
    """
    manifest = {
        "files": [_entry(file) for file in files],
        "failures": dict(failures),
        "input": {"name": "images", "dtype": "float32", "shape": ["batch", *reference.image_shape]},
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", reference.logits[0].shape[1]]},
        "compared_images": len(reference.batches[0]),
        "versions": {"python": platform.python_version(), **_versions()},
        "description": description,
    }
    write_atomically(directory / MANIFEST_FILE, (json.dumps(jsonable(manifest), indent=2) + "\n").encode())


def jsonable(value: Any) -> Any:
    """`value` with mappings, sequences and numpy numbers as JSON has them; numbers that JSON lacks become None.

    Raises:
        ExportError: something in it has no JSON form.
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, type):
        return jsonable(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ExportError(
        f"the description holds {value!r} of type {type(value).__name__}; use numbers, text, lists, dicts"
    )


def _entry(file: ExportedFile) -> dict[str, object]:
    return {
        "file": file.path.name,
        "format": file.format,
        "bytes": file.size_bytes,
        "sha256": file.sha256,
        "max_abs_difference": file.max_abs_difference,
        "tolerance": file.tolerance,
        "verified": file.verified,
        **({"error": file.error} if file.error else {}),
    }


def _versions() -> dict[str, str]:
    installed = {}
    for package in _PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return installed
