"""The `mobilenet` space: inverted residual layers with searched kernel, expansion, depth, width and resolution."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator

from nas_engine.errors import ConfigError, nearest_hint
from nas_engine.nn.mobilenet import MobileNet
from nas_engine.nn.mobilenet_supernet import MobileNetSupernet, Widths
from nas_engine.options import Options
from nas_engine.spaces.base import CostTable, SearchSpace
from nas_engine.spaces.diagram import DecisionDiagram
from nas_engine.types import Architecture, Decision, ImageShape

_SKIP = "skip"
_CHANNEL_MULTIPLE = 4
_FLOAT32_BYTES = 4

_Count = Annotated[int, Field(ge=1)]
_Stage = tuple[_Count, _Count, Annotated[int, Field(ge=1, le=2)]]
_Positive = Annotated[float, Field(gt=0)]


class MobileNetOptions(Options):
    """Size of the space. The defaults suit images of 8x8 to 32x32 pixels."""

    stages: tuple[_Stage, ...] = Field(
        ((16, 2, 1), (24, 3, 2), (40, 3, 2)),
        min_length=1,
        description="(channels, most layers, stride 1 or 2) of each stage; a stage has at least one layer",
    )
    kernels: tuple[_Count, ...] = Field((3, 5, 7), min_length=1, description="sides of the depthwise kernels, odd")
    expansions: tuple[_Count, ...] = Field((3, 6), min_length=1, description="hidden channels for each input channel")
    width_multipliers: tuple[_Positive, ...] = Field(
        (0.75, 1.0), min_length=1, description="factors on all channels, then rounded to multiples of 4"
    )
    resolutions: tuple[_Positive, ...] = Field(
        (0.75, 1.0),
        min_length=1,
        description="sizes the network resizes its images to: up to 1 a fraction of theirs, above 1 a height in pixels",
    )
    stem_width: int = Field(16, ge=1, description="channels after the stem")
    head_width: int = Field(128, ge=1, description="channels after the 1x1 convolution that precedes the classifier")

    @field_validator("kernels", "expansions", "width_multipliers", "resolutions")
    @classmethod
    def _ascending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(a >= b for a, b in pairwise(values)):
            raise ValueError("must ascend without repeats")
        return values

    @field_validator("resolutions")
    @classmethod
    def _one_unit(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if values[0] <= 1 < values[-1] or (values[0] > 1 and any(value % 1 for value in values)):
            raise ValueError("must be either all fractions of the image (up to 1) or all whole pixels (above 1)")
        return values

    @field_validator("kernels")
    @classmethod
    def _odd(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if any(value % 2 == 0 for value in values):
            raise ValueError("must be odd")
        return values


@dataclass(frozen=True, slots=True)
class _Place:
    """What a layer meets at one width and resolution; it does not depend on the other layers."""

    in_channels: int
    out_channels: int
    stride: int
    size: tuple[int, int]

    @property
    def out_size(self) -> tuple[int, int]:
        height, width = self.size
        return -(-height // self.stride), -(-width // self.stride)

    def costs(self, kernel: int, expansion: int) -> tuple[int, int]:
        """Parameters and multiply-accumulates of an inverted residual layer here."""
        before, after = _area(self.size), _area(self.out_size)
        hidden = self.in_channels * expansion
        expand, depthwise, project = self.in_channels * hidden, kernel * kernel * hidden, hidden * self.out_channels
        params = expand + depthwise + project + 4 * hidden + 2 * self.out_channels
        return params, before * expand + after * (depthwise + project)

    def peak_values(self, expansion: int) -> int:
        """Most live values within the layer: its input, and a convolution's result beside its normalised copy."""
        hidden = _area(self.size) * self.in_channels * expansion
        output = _area(self.out_size) * self.out_channels
        return _area(self.size) * self.in_channels + 2 * max(hidden, output)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Everything that width and resolution fix: all but the choices of the layers."""

    resolution: tuple[int, int]
    widths: Widths
    places: tuple[_Place, ...]


class MobileNetSpace(SearchSpace):
    """MobileNets for images of one shape (after ProxylessNAS, Cai et al. 2019, and Once-for-All, Cai et al. 2020).

    Decisions are ``width`` and ``resolution``, then one for each layer: ``k3e6`` (kernel 3, expansion 6) and so on,
    or ``skip`` for every layer but the first of its stage. After a skip the masks leave only skips for the rest of
    the stage, so a depth is coded in one way.

    The text form is ``w0.75,r1|k3e6,k5e3|k3e3``: width multiplier and resolution as in the options, then the layers
    of each stage that are not skipped.
    """

    name = "mobilenet"
    Options = MobileNetOptions

    def __init__(self, shape: ImageShape, options: MobileNetOptions = MobileNetOptions()) -> None:
        """Build the decisions and their diagram.

        Args:
            shape: images and classes of the networks.
            options: size of the space.

        Raises:
            ConfigError: the images are too small for the strides.
        """
        self.shape = shape
        self.options = options
        self.operations = tuple(product(options.kernels, options.expansions))
        self._skip = len(self.operations)
        self._skippable = tuple(layer > 0 for _, depth, _ in options.stages for layer in range(depth))
        self._strides = tuple(s if layer == 0 else 1 for _, depth, s in options.stages for layer in range(depth))
        self._resolutions = tuple(self._pixels(resolution) for resolution in options.resolutions)
        self._check_image_size()
        self._widths = tuple(self._channels(multiplier) for multiplier in options.width_multipliers)
        self._frames = {
            (width, resolution): self._frame(self._widths[width], self._resolutions[resolution])
            for width, resolution in product(range(len(self._widths)), range(len(self._resolutions)))
        }
        self.decisions = self._make_decisions()
        choices = [len(decision.choices) for decision in self.decisions]
        self.diagram = DecisionDiagram(choices, False, self._step)

    def encode(self, architecture: Architecture) -> str:
        """For example ``w0.75,r1|k3e6,k5e3|k3e3``."""
        genes = architecture.genes
        parts = [self._frame_name(genes[0], genes[1])]
        for start, depth in self._stage_slices():
            used = [gene for gene in genes[start : start + depth] if gene != self._skip]
            parts.append(",".join(self._operation_name(gene) for gene in used))
        return "|".join(parts)

    def decode(self, text: str) -> Architecture:
        """Inverse of `encode`.

        Raises:
            ConfigError: the text is not an architecture of this space; the message names the offending part.
        """
        first, *stages = text.strip().split("|")
        slices = list(self._stage_slices())
        if len(stages) != len(slices):
            example = self.encode(Architecture(self.name, self.diagram.unrank(0)))
            raise ConfigError(
                f"{text!r} has {len(stages)} stages, {self.name!r} has {len(slices)}: write it like {example!r}"
            )
        genes = self._decode_frame(first)
        for number, (stage, (_, depth)) in enumerate(zip(stages, slices, strict=True), start=1):
            genes += self._decode_stage(number, stage.split(","), depth)
        return self.architecture(genes)

    def canonical(self, architecture: Architecture) -> Architecture:
        """Merge what computes the same: equal channels, equal pixels, and kernels that reach beyond the image.

        A kernel tap further than ``size - 1`` from the centre meets only padding. So the smallest kernel that reaches
        all pixels computes the same as any larger one with the same centre.
        """
        genes = architecture.genes
        width = self._widths.index(self._widths[genes[0]])
        resolution = self._resolutions.index(self._resolutions[genes[1]])
        smallest = self._smallest_equal[width, resolution]
        layers = [of_place[gene] for gene, of_place in zip(genes[2:], smallest, strict=True)]
        return Architecture(self.name, (width, resolution, *layers))

    def build(self, architecture: Architecture) -> MobileNet:
        """A fresh stand-alone network."""
        frame = self._frame_of(architecture)
        layers = [
            (*self.operations[gene], place.out_channels, place.stride)
            for gene, place in self._used_layers(architecture)
        ]
        return MobileNet(
            image_channels=self.shape.channels,
            classes=self.shape.classes,
            resolution=frame.resolution,
            stem_width=frame.widths.stem,
            layers=layers,
            head_width=frame.widths.head,
        )

    def supernet(self) -> MobileNetSupernet:
        """Fresh shared weights: the largest network, of which each path uses a part."""
        return MobileNetSupernet(
            image_channels=self.shape.channels,
            classes=self.shape.classes,
            resolutions=self._resolutions,
            widths=self._widths,
            operations=self.operations,
            strides=self._strides,
            skippable=self._skippable,
        )

    def cost_table(self) -> CostTable:
        """Exact parameters and multiply-accumulates; the context is width and resolution."""
        most = max(len(decision.choices) for decision in self.decisions)
        constant = np.zeros((len(self._frames), 2), dtype=np.int64)
        entries = np.zeros((len(self._frames), len(self.decisions), most, 2), dtype=np.int64)
        for context, frame in enumerate(self._frames.values()):
            constant[context] = self._constant_costs(frame)
            for layer, place in enumerate(frame.places):
                for gene, (kernel, expansion) in enumerate(self.operations):
                    entries[context, 2 + layer, gene] = place.costs(kernel, expansion)
        return CostTable(("params", "macs"), (0, 1), constant, entries)

    def peak_activation_bytes(self, architecture: Architecture) -> int:
        """Largest sum of live float32 activations, in bytes, during eager inference of one image.

        The caller holds the image throughout; in-place ReLU6 needs no memory of its own.
        """
        frame = self._frame_of(architecture)
        layers = [place.peak_values(self.operations[gene][1]) for gene, place in self._used_layers(architecture)]
        return _FLOAT32_BYTES * (self._image_values() + max(self._peak_outside_layers(frame), *layers))

    def memory_table(self) -> CostTable:
        """The largest of what the ends and each layer hold; the context is width and resolution."""
        most = max(len(decision.choices) for decision in self.decisions)
        constant = np.zeros((len(self._frames), 1), dtype=np.int64)
        entries = np.zeros((len(self._frames), len(self.decisions), most, 1), dtype=np.int64)
        for context, frame in enumerate(self._frames.values()):
            constant[context] = self._image_values() + self._peak_outside_layers(frame)
            for layer, place in enumerate(frame.places):
                for gene, (_, expansion) in enumerate(self.operations):
                    entries[context, 2 + layer, gene] = self._image_values() + place.peak_values(expansion)
        metrics = ("peak_activation_bytes",)
        return CostTable(metrics, (0, 1), _FLOAT32_BYTES * constant, _FLOAT32_BYTES * entries, combine="max")

    def _image_values(self) -> int:
        return self.shape.channels * self.shape.height * self.shape.width

    def _peak_outside_layers(self, frame: _Frame) -> int:
        """Most live values in resizing, stem, head and classifier, without the image."""
        area = _area(frame.resolution)
        has_copy = frame.resolution != (self.shape.height, self.shape.width)
        resized = self.shape.channels * area if has_copy else 0
        stem = frame.widths.stem * area
        last = frame.places[-1]
        before_head = last.out_channels * _area(last.out_size)
        head = frame.widths.head * _area(last.out_size)
        end = [before_head + head, 2 * head, head + frame.widths.head, frame.widths.head + self.shape.classes]
        return max(resized + stem, 2 * stem, *end)

    def _pixels(self, resolution: float) -> tuple[int, int]:
        height, width = self.shape.height, self.shape.width
        factor = resolution if resolution <= 1 else resolution / height
        return max(1, round(height * factor)), max(1, round(width * factor))

    def _check_image_size(self) -> None:
        total = int(np.prod(self._strides))
        height, width = self._resolutions[0]
        if min(height, width) < total:
            raise ConfigError(
                f"images of {height}x{width} pixels (the smallest resolution) are too small for a total stride of "
                f"{total}: set the stride of a stage to 1 or raise space.resolutions"
            )

    def _channels(self, multiplier: float) -> Widths:
        stages = [(_rounded(width * multiplier), depth) for width, depth, _ in self.options.stages]
        return Widths(
            stem=_rounded(self.options.stem_width * multiplier),
            layers=tuple(width for width, depth in stages for _ in range(depth)),
            head=_rounded(self.options.head_width * multiplier),
        )

    def _frame(self, widths: Widths, resolution: tuple[int, int]) -> _Frame:
        places: list[_Place] = []
        size = resolution
        for before, after, stride in zip((widths.stem, *widths.layers), widths.layers, self._strides, strict=False):
            places.append(_Place(before, after, stride, size))
            size = places[-1].out_size
        return _Frame(resolution, widths, tuple(places))

    def _make_decisions(self) -> tuple[Decision, ...]:
        names = tuple(self._operation_name(gene) for gene in range(len(self.operations)))
        layers = [
            Decision(f"stage {stage} layer {layer}", names if layer == 1 else (*names, _SKIP))
            for stage, (_, depth, _) in enumerate(self.options.stages, start=1)
            for layer in range(1, depth + 1)
        ]
        widths = Decision("width", tuple(map(_label, self.options.width_multipliers)))
        resolutions = Decision("resolution", tuple(map(_label, self.options.resolutions)))
        return (widths, resolutions, *layers)

    def _step(self, position: int, stage_ended: Hashable, choice: int) -> Hashable | None:
        if position < 2 or not self._skippable[position - 2]:
            return False
        skipped = choice == self._skip
        return None if stage_ended and not skipped else skipped

    def _frame_name(self, width: int, resolution: int) -> str:
        return f"w{self.decisions[0].choices[width]},r{self.decisions[1].choices[resolution]}"

    def _operation_name(self, gene: int) -> str:
        kernel, expansion = self.operations[gene]
        return f"k{kernel}e{expansion}"

    def _stage_slices(self) -> list[tuple[int, int]]:
        depths = [depth for _, depth, _ in self.options.stages]
        return [(2 + sum(depths[:stage]), depth) for stage, depth in enumerate(depths)]

    def _decode_frame(self, text: str) -> list[int]:
        parts = text.split(",")
        if len(parts) != 2:
            raise ConfigError(f"{text!r} is no width and resolution: write it like {self._frame_name(0, 0)!r}")
        genes = []
        for letter, decision, part in zip("wr", self.decisions[:2], parts, strict=True):
            allowed = [letter + choice for choice in decision.choices]
            if part not in allowed:
                raise ConfigError(f"{part!r} in {text!r} is no {decision.name}: {nearest_hint(part, allowed)}")
            genes.append(allowed.index(part))
        return genes

    def _decode_stage(self, number: int, names: Sequence[str], depth: int) -> list[int]:
        if len(names) > depth:
            raise ConfigError(f"stage {number} has {len(names)} layers {list(names)}: allowed are 1 to {depth}")
        allowed = [self._operation_name(gene) for gene in range(len(self.operations))]
        for name in names:
            if name not in allowed:
                raise ConfigError(f"{name!r} in stage {number} is no layer: {nearest_hint(name, allowed)}")
        return [*map(allowed.index, names), *[self._skip] * (depth - len(names))]

    @cached_property
    def _smallest_equal(self) -> dict[tuple[int, int], list[list[int]]]:
        """For each width and resolution: of each layer, the gene that stands for each gene."""
        genes = range(self._skip + 1)
        return {
            key: [[self._smallest_equal_of(gene, place) for gene in genes] for place in frame.places]
            for key, frame in self._frames.items()
        }

    def _smallest_equal_of(self, gene: int, place: _Place) -> int:
        if gene == self._skip:
            return gene
        kernel, expansion = self.operations[gene]
        reach = max(place.size) - 1
        equal = [smaller for smaller in self.options.kernels if reach <= smaller // 2 and smaller <= kernel]
        return self.operations.index((min(equal, default=kernel), expansion))

    def _frame_of(self, architecture: Architecture) -> _Frame:
        return self._frames[architecture.genes[0], architecture.genes[1]]

    def _used_layers(self, architecture: Architecture) -> list[tuple[int, _Place]]:
        places = self._frame_of(architecture).places
        return [(g, place) for g, place in zip(architecture.genes[2:], places, strict=True) if g != self._skip]

    def _constant_costs(self, frame: _Frame) -> tuple[int, int]:
        """Parameters and multiply-accumulates of stem, head and classifier."""
        last = frame.places[-1]
        stem = 9 * self.shape.channels * frame.widths.stem
        head = last.out_channels * frame.widths.head
        classifier = frame.widths.head * self.shape.classes
        params = stem + 2 * frame.widths.stem + head + 2 * frame.widths.head + classifier + self.shape.classes
        return params, _area(frame.resolution) * stem + _area(last.out_size) * head + classifier


def _label(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _rounded(channels: float) -> int:
    """Nearest multiple of 4, at least 4, never more than 10 % below `channels` (the MobileNet rule)."""
    nearest = max(_CHANNEL_MULTIPLE, int(channels + _CHANNEL_MULTIPLE / 2) // _CHANNEL_MULTIPLE * _CHANNEL_MULTIPLE)
    return nearest + _CHANNEL_MULTIPLE if nearest < 0.9 * channels else nearest
