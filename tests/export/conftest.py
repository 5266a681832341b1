"""Networks of both spaces with trained-looking statistics, real images for them, and their exports in all formats."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_engine.data.loading import load_dataset
from nas_engine.exports import FORMATS, ExportedFile, export_network
from nas_engine.spaces.mobilenet import MobileNetOptions, MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.types import ImageShape

DESCRIPTION = {
    "normalisation": {"mean": (0.3,), "std": (np.float64(0.4),)},
    "classes": tuple("0123456789"),
    "bad": np.nan,
}


THIRD_PARTY_NETWORK = """
from torch import nn


class Own(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.{config_name} = {{"classes": classes}}
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, classes))

    def forward(self, images):
        return self.layers(images)
"""


@dataclass(frozen=True)
class Exported:
    """A network, the images it was compared on, others, and its files."""

    model: nn.Module
    shown: Tensor
    unseen: Tensor
    folder: Path
    files: list[ExportedFile]


def with_random_statistics(model: nn.Module, seed: int) -> nn.Module:
    """BatchNorm as after training: statistics and affine parameters away from their initial values."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2.0, generator=generator)
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, generator=generator)
    return model.train()


def random_network(space_name: str, height: int, seed: int) -> nn.Module:
    """A random architecture of a small space for grey images of 8 pixels width."""
    shape = ImageShape(channels=1, height=height, width=8, classes=10)
    if space_name == "nasbench201":
        space = NASBench201Space(shape, NASBench201Options(channels=4, cells=1))
    else:
        stages = ((8, 2, 1), (12, 2, 2))
        space = MobileNetSpace(shape, MobileNetOptions(stages=stages, stem_width=8, head_width=32))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = space.build(space.sample(np.random.default_rng(seed)))
    return with_random_statistics(model, seed)


@pytest.fixture(scope="session")
def images() -> Tensor:
    """40 real digits, [40, 1, 8, 8], normalised."""
    return load_dataset("digits").validation.images[:40]


def export_all(space_name: str, images: Tensor, folder: Path) -> Exported:
    """Tracing for ONNX takes seconds: processes that run tests side by side share one export in `folder`."""
    model = random_network(space_name, images.shape[2], seed=3)
    shown, unseen = images[:16], images[16:]
    done = folder.with_suffix(".pickle")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            files = export_network(model, shown, folder, formats=tuple(FORMATS), description=DESCRIPTION)
            done.write_bytes(pickle.dumps(files))
    return Exported(model, shown, unseen, folder, pickle.loads(done.read_bytes()))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all processes of pytest-xdist: each has its own folder in that of the session."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def nasbench201(images: Tensor, shared_folder: Path) -> Exported:
    """A network of nasbench201 in all formats."""
    return export_all("nasbench201", images, shared_folder / "exported_nasbench201")


@pytest.fixture(scope="session")
def mobilenet(images: Tensor, shared_folder: Path) -> Exported:
    """A network of mobilenet in all formats, for images that are not square."""
    return export_all("mobilenet", images[:, :, :6], shared_folder / "exported_mobilenet")


@pytest.fixture(params=["nasbench201", "mobilenet"])
def exported(request) -> Exported:
    """Both spaces in all formats."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def small(images: Tensor) -> nn.Module:
    """A small network of nasbench201."""
    return random_network("nasbench201", 8, seed=1)


@pytest.fixture
def third_party(tmp_path: Path) -> Iterator[Callable[..., nn.Module]]:
    """Write a module of somebody else, `prefix` first, and build its network `Own` of plain torch."""
    names = []

    def build(prefix: str = "", *, config_name: str = "config", **arguments: object) -> nn.Module:
        name = f"third_party_{len(names)}"
        names.append(name)
        path = tmp_path / f"{name}.py"
        path.write_text(f"{prefix}\n{THIRD_PARTY_NETWORK.format(config_name=config_name)}")
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Own(**arguments)

    yield build
    for name in names:
        del sys.modules[name]
