"""A small but complete search space for tests: residual MLP blocks whose hidden widths are searched."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from nas_engine.errors import ConfigError
from nas_engine.nn.supernet import Genes, Supernet
from nas_engine.options import Options
from nas_engine.spaces.base import CostTable, SearchSpace
from nas_engine.spaces.diagram import DecisionDiagram
from nas_engine.types import Architecture, Decision, ImageShape


class BlockSpaceOptions(Options):
    """Options of `BlockSpace`."""

    blocks: int = Field(6, ge=1, description="number of residual blocks, one decision each")
    widths: int = Field(5, ge=1, description="choices of each block: hidden width 0 (skip) to widths - 1")
    features: int = Field(16, ge=1, description="features between the blocks")
    merge_skips: bool = Field(False, description="whether skipped blocks are moved to the end in the canonical form")
    max_total_width: int | None = Field(None, ge=0, description="largest sum of hidden widths; None: no limit")


class BlockSpace(SearchSpace):
    """Gene g of block b is its hidden width; width 0 skips the block.

    By default all ``widths ** blocks`` sequences are valid and each is its own canonical form, so any score of the
    genes is a problem with a known optimum. `merge_skips` adds a canonical form that merges architectures (a skipped
    block computes nothing, wherever it stands), `max_total_width` adds masks that depend on the whole prefix.
    """

    name = "blocks"
    Options = BlockSpaceOptions

    def __init__(
        self,
        shape: ImageShape = ImageShape(1, 8, 8, 10),
        options: BlockSpaceOptions = BlockSpaceOptions(),
    ) -> None:
        """Build the decisions and their diagram.

        Args:
            shape: images and classes of the networks.
            options: size of the space and its rules.
        """
        self.shape = shape
        self.options = options
        names = tuple(f"width {width}" for width in range(options.widths))
        self.decisions = tuple(Decision(f"block {block}", names) for block in range(options.blocks))
        limit = options.max_total_width

        def add_width(position: int, total: int, width: int) -> int | None:
            if limit is None:
                return 0
            return total + width if total + width <= limit else None

        self.diagram = DecisionDiagram([options.widths] * options.blocks, 0, add_width)  # type: ignore[arg-type]

    def encode(self, architecture: Architecture) -> str:
        """Hidden widths joined by ``-``, for example ``3-0-4``."""
        return "-".join(map(str, architecture.genes))

    def decode(self, text: str) -> Architecture:
        """Inverse of `encode`.

        Raises:
            ConfigError: the text is not an architecture of this space.
        """
        parts = text.split("-")
        for part in parts:
            if not part.isdigit():
                raise ConfigError(f"{part!r} in {text!r} is no hidden width; an architecture looks like '3-0-4'")
        return self.architecture([int(part) for part in parts])

    def canonical(self, architecture: Architecture) -> Architecture:
        """Skipped blocks last, where `merge_skips` is set; otherwise the architecture itself."""
        if not self.options.merge_skips:
            return architecture
        used = [gene for gene in architecture.genes if gene]
        return Architecture(self.name, (*used, *[0] * (len(self.decisions) - len(used))))

    def build(self, architecture: Architecture) -> nn.Module:
        """Linear stem, the residual blocks, linear classifier."""
        blocks = [_ResidualBlock(self.options.features, gene) for gene in architecture.genes if gene]
        return nn.Sequential(nn.Flatten(), self._stem(), *blocks, self._classifier())

    def supernet(self) -> Supernet:
        """One copy of every block at every width."""
        return _BlockSupernet(self._stem(), self._classifier(), self.options)

    def cost_table(self) -> CostTable:
        """Exact parameters and multiply-accumulates; block costs add up."""
        features, pixels = self.options.features, self._pixels()
        widths = np.arange(self.options.widths, dtype=np.int64)
        macs = 2 * features * widths
        params = np.where(widths > 0, macs + widths + features, 0)
        block = np.stack([params, macs], axis=-1)
        ends = features * (pixels + self.shape.classes)
        return CostTable(
            metrics=("params", "macs"),
            context_decisions=(),
            constant=np.array([[ends + features + self.shape.classes, ends]], dtype=np.int64),
            entries=np.tile(block, (1, self.options.blocks, 1, 1)),
        )

    def peak_activation_bytes(self, architecture: Architecture) -> int:
        """The image, which the caller holds throughout, and the most demanding moment between stem and logits."""
        features = self.options.features
        inside = [max(features + 2 * width, 3 * features) for width in architecture.genes if width]
        return 4 * (self._pixels() + max([features + self.shape.classes, *inside]))

    def memory_table(self) -> CostTable:
        """The same peaks as a table."""
        features, widths = self.options.features, np.arange(self.options.widths, dtype=np.int64)
        inside = np.where(widths > 0, self._pixels() + np.maximum(features + 2 * widths, 3 * features), 0)
        ends = self._pixels() + features + self.shape.classes
        return CostTable(
            metrics=("peak_activation_bytes",),
            context_decisions=(),
            constant=np.array([[4 * ends]], dtype=np.int64),
            entries=np.tile(4 * inside[:, None], (1, self.options.blocks, 1, 1)),
            combine="max",
        )

    def _pixels(self) -> int:
        return self.shape.channels * self.shape.height * self.shape.width

    def _stem(self) -> nn.Linear:
        return nn.Linear(self._pixels(), self.options.features)

    def _classifier(self) -> nn.Linear:
        return nn.Linear(self.options.features, self.shape.classes)


class _ResidualBlock(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, features))

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = inputs + self.inner(inputs)
        return output


class _BlockSupernet(Supernet):
    def __init__(self, stem: nn.Module, classifier: nn.Module, options: BlockSpaceOptions) -> None:
        super().__init__()
        self.stem, self.classifier = stem, classifier
        self.blocks = nn.ModuleList(
            nn.ModuleList(_ResidualBlock(options.features, width) for width in range(1, options.widths))
            for _ in range(options.blocks)
        )
        diagram = BlockSpace(options=options).diagram
        self._ends = diagram.unrank(0), diagram.unrank(diagram.size - 1)

    def forward(self, images: Tensor, genes: Genes) -> Tensor:
        """Logits [batch, classes] of the path `genes`."""
        hidden: Tensor = self.stem(torch.flatten(images, 1))
        for block, gene in zip(self.blocks, genes, strict=True):
            if gene:
                hidden = block[gene - 1](hidden)  # type: ignore[index]
        logits: Tensor = self.classifier(hidden)
        return logits

    def largest(self) -> tuple[int, ...]:
        """The last path in order of genes; it has the largest total width."""
        return self._ends[1]

    def smallest(self) -> tuple[int, ...]:
        """All blocks skipped: the stem still connects images and classifier."""
        return self._ends[0]
