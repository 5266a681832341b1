"""Exporting a trained network in several formats: write, load back, compare, record; a bad file fails the export."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from nas_engine.errors import ConfigError, ExportError, nearest_hint
from nas_engine.exports.check import FileFormat, Reference, disagreement
from nas_engine.exports.json import STATE_DICT
from nas_engine.exports.manifest import ExportedFile, describe_file, jsonable, write_manifest
from nas_engine.exports.onnx import ONNX
from nas_engine.exports.python_source import PYTHON
from nas_engine.exports.torch_export import TORCH_EXPORT

logger = logging.getLogger(__name__)

FORMATS: dict[str, FileFormat] = {form.name: form for form in (ONNX, TORCH_EXPORT, STATE_DICT, PYTHON)}
"""All formats by name."""


def export_network(
    model: nn.Module,
    example_images: Tensor,
    directory: Path,
    *,
    formats: Sequence[str],
    description: Mapping[str, object],
) -> list[ExportedFile]:
    """Write `model` in all `formats`, check each file, and record the outcome in ``manifest.json``.

    A file that fails its check stays where it is, marked in the manifest; the other formats are written all the same.

    Args:
        model: the trained network; left unchanged.
        example_images: real, normalised images to compare on, [batch, channels, height, width].
        directory: is made where it does not exist; older files of the same names are replaced.
        formats: of ``onnx``, ``torch_export``, ``state_dict``, ``python``.
        description: what the files say about the network (normalisation, class names, ...); JSON-able.

    Returns:
        The files, all of them verified.

    Raises:
        ConfigError: a format does not exist.
        ExportError: at least one file could not be written, does not load, or does not agree.
    """
    chosen = [_format(name) for name in dict.fromkeys(formats)]
    plain = jsonable(description)
    reference = Reference.of(model, example_images)
    files: list[ExportedFile] = []
    failures: dict[str, str] = {}
    for form in chosen:
        try:
            form.export(reference, directory / form.files[0], plain)
        except ExportError as error:
            failures[form.name] = str(error)
            continue
        checked = _checked(form, reference, directory)
        files += checked
        failures.update({file.format: file.error for file in checked if file.error})
    _write_manifest(directory, reference, files, failures, plain)
    if failures:
        raise ExportError("; ".join(failures.values()))
    return files


def export_one(
    model: nn.Module, example_images: Tensor, path: Path, *, format: str, description: Mapping[str, object]
) -> float:
    """Write `model` in one format to `path` and check the file before returning.

    Args:
        model: the trained network; left unchanged.
        example_images: real, normalised images to compare on, [batch, channels, height, width].
        path: the file to write.
        format: ``onnx``, ``torch_export``, ``state_dict`` or ``python``.
        description: what the file says about the network; JSON-able.

    Returns:
        Largest absolute difference of logits between the loaded file and the network.

    Raises:
        ConfigError: the format does not exist.
        ExportError: the network cannot be written, or the file does not load or does not agree.
    """
    form = _format(format)
    return form.export_checked(Reference.of(model, example_images), path, jsonable(description))


def _format(name: str) -> FileFormat:
    if name not in FORMATS:
        raise ConfigError(f"unknown export format {name!r}: {nearest_hint(name, FORMATS)}")
    return FORMATS[name]


def _checked(form: FileFormat, reference: Reference, directory: Path) -> list[ExportedFile]:
    path = directory / form.files[0]
    difference, tolerance, problem = None, None, None
    try:
        agreement = form.compare(reference, path)
        difference, tolerance = agreement.difference, agreement.tolerance
        problem = None if agreement.holds else disagreement(path, agreement)
    except ExportError as error:
        problem = str(error)
    logger.info("%s: %s", path, problem or f"logits differ by {difference:.3g}, allowed {tolerance:.3g}")
    return [describe_file(directory / name, form.name, difference, tolerance, problem) for name in form.files]


def _write_manifest(
    directory: Path,
    reference: Reference,
    files: Sequence[ExportedFile],
    failures: Mapping[str, str],
    description: Mapping[str, object],
) -> None:
    try:
        write_manifest(directory, reference, files, failures, description)
    except OSError as error:
        raise ExportError(f"cannot write to {directory}: {error.strerror or error}; choose another folder") from error
