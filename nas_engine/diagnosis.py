"""What `doctor` reports: versions, devices, and the state of the native module."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator

from nas_engine import __version__, native

_PACKAGES = (
    "torch",
    "numpy",
    "gymnasium",
    "stable-baselines3",
    "sb3-contrib",
    "optuna",
    "onnx",
    "onnxruntime",
    "pydantic",
)


def diagnose() -> Iterator[tuple[str, str]]:
    """(what, finding) pairs, in the order they are shown."""
    import torch

    yield "nas_engine", __version__
    yield "python", f"{sys.version.split()[0]} on {platform.platform()}"
    for package in _PACKAGES:
        yield package, _version(package)
    yield "torch threads", str(torch.get_num_threads())
    yield "cuda device", torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use"
    for name, finding in native.capabilities().items():
        yield f"native: {name}", str(finding)
    yield "supernet paths", _path_scoring()
    yield "NAS_ENGINE_DATA", os.environ.get("NAS_ENGINE_DATA") or "not set (only the table benchmarks need it)"


def _path_scoring() -> str:
    from nas_engine.ops.supernet_eval import bfloat16_levels, levels, scores_on_gpus

    if not levels():
        return "scored by PyTorch, path by path: there is no native module"
    found = [levels()[-1], *(level for level in bfloat16_levels() if level == "bf16-amx")]
    places = f"the CPU ({', '.join(found)})" + (" and on GPUs" if scores_on_gpus() else "")
    return f"scored natively for nasbench201 and mobilenet on {places}; else by PyTorch"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"missing: pip install {package}"
