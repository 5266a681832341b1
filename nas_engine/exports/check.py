"""What an exported file must reproduce, and how it is compared with the network it came from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from nas_engine.errors import ExportError
from nas_engine.exports.quiet import quiet

Predict = Callable[[Sequence[Tensor]], list[Tensor]]
"""What a loaded file computes: batches of images [batch, channels, height, width] to logits [batch, classes]."""


@dataclass(frozen=True)
class Reference:
    """A trained network with its answers to real images.

    Attributes:
        network: a copy on the CPU in eval mode; the original is never touched.
        batches: all images, at least two, then the first alone: a file must accept any batch size.
        logits: of `network`, [batch, classes] for each of `batches`.
    """

    network: nn.Module
    batches: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]

    @classmethod
    def of(cls, model: nn.Module, images: Tensor) -> Reference:
        """Copy `model` and compute its logits in eval mode.

        Args:
            model: the trained network.
            images: real images, [batch, channels, height, width].

        Raises:
            ExportError: there are no images, or the network returns anything but finite logits [batch, classes].
        """
        if images.ndim != 4 or len(images) == 0:
            raise ExportError(f"example images have shape {list(images.shape)}; pass [batch, channels, height, width]")
        network = copy.deepcopy(model).cpu().eval()
        images = images.detach().cpu()
        batches = (images if len(images) > 1 else images.repeat(2, 1, 1, 1), images[:1])
        with torch.no_grad():
            logits = tuple(network(batch) for batch in batches)
        for found, batch in zip(logits, batches, strict=True):
            if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(batch):
                raise ExportError(
                    f"{type(model).__name__} does not return one tensor [batch, classes]: export its logits"
                )
            if not found.isfinite().all():
                raise ExportError(f"{type(model).__name__} returns NaN or infinite logits; train it again, then export")
        return cls(network, batches, logits)

    @cached_property
    def program(self) -> ExportedProgram:
        """The graph of `network` for any batch size, traced once for all formats that need it."""
        free_batch = {0: torch.export.Dim("batch", min=1)}
        with quiet():
            program = torch.export.export(self.network, (self.batches[0],), dynamic_shapes=(free_batch,))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # it would carry file paths of this machine into the exported files
        return program

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width."""
        return tuple(self.batches[0].shape[1:])

    @property
    def scale(self) -> float:
        """The largest absolute logit, at least 1."""
        return max(1.0, float(self.logits[0].abs().max()))

    def difference(self, predict: Predict) -> float:
        """Largest absolute difference of logits over all batches; infinite for other shapes, NaN or infinity."""
        predicted = predict(self.batches)
        if [found.shape for found in predicted] != [expected.shape for expected in self.logits]:
            return float("inf")
        differences = torch.cat(predicted) - torch.cat(self.logits)
        return float(differences.abs().max()) if differences.isfinite().all() else float("inf")


@dataclass(frozen=True)
class Agreement:
    """How far a loaded file is from the network: largest absolute difference of logits, and what is accepted."""

    difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the file may be used."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class FileFormat:
    """One way to write a trained network.

    Attributes:
        name: what users call it.
        files: names of the files it writes; the first is the one that is loaded.
        write: (reference, path of the first file, JSON-able description) writes them all, atomically.
        load: opens the first file as a user would.
        relative_tolerance: accepted difference, as a share of the largest logit (or of 1, if that is larger).
    """

    name: str
    files: tuple[str, ...]
    write: Callable[[Reference, Path, Mapping[str, object]], None]
    load: Callable[[Path], Predict]
    relative_tolerance: float

    def export(self, reference: Reference, path: Path, description: Mapping[str, object]) -> None:
        """Write the files without checking them.

        Raises:
            ExportError: the network has something that the format cannot hold, or the folder cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.write(reference, path, description)
        except ExportError:
            raise
        except Exception as error:  # exporters raise almost any type for what they do not support
            raise ExportError(
                f"cannot write {type(reference.network).__name__} as {self.name} to {path}: {first_line(error)}; "
                "choose another format or folder"
            ) from error

    def compare(self, reference: Reference, path: Path) -> Agreement:
        """Load the file and measure how far it is from the network.

        Raises:
            ExportError: it does not load or does not run.
        """
        try:
            difference = reference.difference(self.load(path))
        except ExportError:
            raise
        except Exception as error:  # damaged files raise almost any type
            raise ExportError(f"{path} does not load back: {first_line(error)}; do not use it, export again") from error
        return Agreement(difference, self.relative_tolerance * reference.scale)

    def export_checked(self, reference: Reference, path: Path, description: Mapping[str, object]) -> float:
        """Write the files and refuse them where they do not agree with the network.

        Returns:
            Largest absolute difference of logits.

        Raises:
            ExportError: the network cannot be written, or the file does not load or does not agree.
        """
        self.export(reference, path, description)
        agreement = self.compare(reference, path)
        if not agreement.holds:
            raise ExportError(disagreement(path, agreement))
        return agreement.difference


def disagreement(path: Path, agreement: Agreement) -> str:
    """What to tell the user about a file that does not compute what the network computes."""
    return (
        f"{path} does not agree with the trained network: logits differ by {agreement.difference:.3g}, allowed: "
        f"{agreement.tolerance:.3g}; do not use it, export again"
    )


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
