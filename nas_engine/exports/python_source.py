"""One Python file that rebuilds the trained network with torch alone: the network's own source, then its weights."""

from __future__ import annotations

import ast
import base64
import inspect
import io
import pprint
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas_engine.errors import ExportError
from nas_engine.exports.check import FileFormat, Predict, Reference
from nas_engine.exports.json import configuration
from nas_engine.store import write_atomically

_PROBES = 2  # stored images with which the file can check itself
_TIMEOUT_S = 300.0

_HEADER = """\
# A trained network in one file. It needs torch and nothing else:
#
#     from {module} import load
#     logits = load()(images)  # float32 [batch, {shape}], normalised as DESCRIPTION says
#
# `python {file}` rebuilds the network and checks it. The source of {name} comes first, then its weights.

"""

_LOADER = '''

# ---- the trained network ----

import base64 as _base64
import io as _io
import zlib as _zlib

import torch

DESCRIPTION = {description}


def load():
    """The trained network in eval mode on the CPU."""
    network = {name}(**{config})
    network.load_state_dict(_unpack(_WEIGHTS))
    return network.eval()


def _unpack(text):
    content = _zlib.decompress(_base64.b64decode(text))
    return torch.load(_io.BytesIO(content), map_location="cpu", weights_only=True)


def _check():
    network, probe = load(), _unpack(_PROBE)
    with torch.no_grad():
        difference = (network(probe["images"]) - probe["logits"]).abs().max().item()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"{name}: {{parameters:,}} parameters; stored logits differ by {{difference:.1e}}")
    if not difference <= {tolerance!r}:
        raise SystemExit("this is more than rounding: the file is damaged, or this torch computes differently")


_WEIGHTS = """
{weights}"""

_PROBE = """
{probe}"""

if __name__ == "__main__":
    _check()
'''

# Runs the file as a program, then takes `load` from it, in an interpreter where nas_engine does not exist.
_DRIVER = """
import runpy, sys
sys.modules["nas_engine"] = sys.modules["nas_envs"] = None
import torch
torch.set_num_threads(int(sys.argv[4]))
network = runpy.run_path(sys.argv[1], run_name="__main__")["load"]()
with torch.no_grad():
    torch.save([network(images) for images in torch.load(sys.argv[2], weights_only=True)], sys.argv[3])
"""


def export_python(model: nn.Module, images: Tensor, path: Path) -> float:
    """Write `model` as one Python file and check it in a fresh interpreter where nas_engine cannot be imported.

    Args:
        model: the trained network; its module may import torch and the standard library only, and
            ``type(model)(**model.config)`` must build it; left unchanged.
        images: real images, [batch, channels, height, width].
        path: for example ``best.py``; its function ``load()`` returns the network in eval mode.

    Returns:
        Largest absolute difference of logits between the rebuilt network and the network.

    Raises:
        ExportError: the network's module needs more than torch, or the file does not run or does not agree.
    """
    return PYTHON.export_checked(Reference.of(model, images), path, {})


def _write(reference: Reference, path: Path, description: Mapping[str, object]) -> None:
    network, images, logits = reference.network, reference.batches[0][:_PROBES], reference.logits[0][:_PROBES]
    name = type(network).__qualname__
    header = _HEADER.format(
        module=path.stem, file=path.name, name=name, shape=", ".join(map(str, reference.image_shape))
    )
    loader = _LOADER.format(
        description=pprint.pformat(description, width=110, sort_dicts=False),
        name=name,
        config=_literal(network),
        tolerance=1e-4 * reference.scale,  # other machines have other kernels
        weights=_packed(network.state_dict()),
        probe=_packed({"images": images.clone(), "logits": logits.clone()}),
    )
    write_atomically(path, (header + _source(network).rstrip() + "\n" + loader).encode())


def _packed(value: Any) -> str:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return base64.encodebytes(zlib.compress(buffer.getvalue(), level=9)).decode("ascii")


def _literal(network: nn.Module) -> str:
    config = configuration(network)
    try:
        same = ast.literal_eval(repr(config)) == config
    except (ValueError, SyntaxError):
        same = False
    if not same:
        raise ExportError(
            f"the config of {type(network).__name__} is {config!r}; allowed: numbers, strings, tuples, lists and dicts "
            "of them: store what the constructor needs in this form"
        )
    return repr(config)


def _source(network: nn.Module) -> str:
    kind = type(network)
    try:
        source = inspect.getsource(sys.modules[kind.__module__])
    except (OSError, TypeError, KeyError) as error:
        raise ExportError(
            f"the source of {kind.__module__}, where {kind.__qualname__} is defined, is not available: define it in a "
            "module file, or leave out the format python"
        ) from error
    tree = ast.parse(source)
    if "<locals>" in kind.__qualname__ or kind.__qualname__.split(".")[0] not in _defined(tree):
        raise ExportError(f"{kind.__qualname__} is not defined at the top of {kind.__module__}: define it there")
    foreign = sorted({package for package in _imported(tree) if not _is_available(package)})
    if foreign:
        raise ExportError(
            f"{kind.__qualname__} is defined in {kind.__module__}, which imports {', '.join(foreign)}; allowed: torch "
            "and the standard library: move the class into a module without these, or leave out the format python"
        )
    taken = {"load", "DESCRIPTION", "_unpack", "_check"} & _defined(tree)
    if taken:
        raise ExportError(
            f"{kind.__module__} defines {', '.join(sorted(taken))}, which the file must define: rename it"
        )
    return source


def _is_available(package: str) -> bool:
    return package == "torch" or package in sys.stdlib_module_names


def _imported(node: ast.AST) -> Iterator[str]:
    """Top-level packages that running the code may import; a relative import counts as ``.``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield "." if child.level else (child.module or "").partition(".")[0]
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (name for statement in child.orelse for name in _imported(statement))
        else:
            yield from _imported(child)


def _defined(tree: ast.Module) -> set[str]:
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def _load(path: Path) -> Predict:
    def predict(batches: Sequence[Tensor]) -> list[Tensor]:
        with tempfile.TemporaryDirectory() as folder:
            given, found = Path(folder) / "images.pt", Path(folder) / "logits.pt"
            torch.save([images.clone() for images in batches], given)
            arguments = [str(path.resolve()), str(given), str(found), str(torch.get_num_threads())]
            done = subprocess.run(
                [sys.executable, "-I", "-c", _DRIVER, *arguments],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
                raise ExportError(f"{path} does not run by itself: {last}; do not use it, export again")
            logits: list[Tensor] = torch.load(found, weights_only=True)
        return logits

    return predict


# The same code with the same weights gives the same logits, to the last bit on the same machine.
PYTHON = FileFormat("python", ("best.py",), _write, _load, relative_tolerance=1e-6)
"""The single-file format; the description is its constant ``DESCRIPTION``."""
