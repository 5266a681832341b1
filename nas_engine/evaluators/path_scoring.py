"""Scores paths of a supernet: in native code where it knows the supernet, path by path in PyTorch elsewhere."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.evaluators.fit import score
from nas_engine.evaluators.path_programs import Context, path_programs
from nas_engine.nn.supernet import Genes, Supernet, recalibrated
from nas_engine.ops.supernet_eval import Statistics, bfloat16_levels, scores_on_gpus, supernet_eval
from nas_engine.ops.supernet_program import SupernetProgram

_logger = logging.getLogger(__name__)
_FALLBACK = "Paths of the supernet are scored by PyTorch: %s"
_NO_BFLOAT16 = "Paths of the supernet are scored in float32 instead of bfloat16: %s"
_BFLOAT16_LEVEL = "bf16-amx"  # the one that is faster than float32
_CHECKED_IMAGES, _CHECKED_PATHS = 64, 4

Precision = Literal["float32", "bfloat16"]
_BFLOAT16_TOLERANCE = 0.1  # of a loss, relative and absolute: rounding takes a tenth of that, faults take all
_CHECK_TOLERANCE = 1e-2  # of the loss, in nats and relative; convolutions of cuDNN may use TF32


def score_paths(
    supernet: Supernet,
    genes_list: Sequence[Genes],
    images: Tensor,
    labels: Tensor,
    calibration: Sequence[Tensor],
    batch_size: int = 512,
) -> tuple[Tensor, Tensor]:
    """Score paths one after the other in PyTorch, each with BatchNorm statistics of its own.

    Args:
        supernet: trained; unchanged afterwards.
        genes_list: the paths.
        images: that score the paths, float32 [n, channels, height, width].
        labels: int64 [n].
        calibration: batches of training images; empty: the shared statistics are used as they are.
        batch_size: images a call while scoring.

    Returns:
        Mean cross-entropy float64 [paths], NaN where a logit is not finite, and correct predictions int64 [paths].
    """
    was_training = supernet.training
    supernet.eval()
    losses, hits = [], []
    try:
        for genes in genes_list:
            with recalibrated(supernet, genes, calibration) if calibration else nullcontext():
                loss, correct = score(partial(supernet, genes=genes), images, labels, batch_size)
            losses.append(loss)
            hits.append(correct)
    finally:
        supernet.train(was_training)
    return torch.tensor(losses, dtype=torch.float64), torch.tensor(hits, dtype=torch.int64)


class PathScorer:
    """Scores paths of one supernet as `score_paths` does, by the fastest way there is.

    Native code scores the supernets of the built-in spaces on the CPU and, where it was built with CUDA, on a GPU;
    others go through PyTorch. On a GPU the first call scores some paths on some images in both ways, with the
    statistics of the supernet and with those of a calibration batch, and PyTorch takes over if they differ: no compile
    has seen every device.

    Attributes:
        fallback: why PyTorch scores the paths; empty where native code does.
    """

    def __init__(
        self,
        supernet: Supernet,
        device: torch.device,
        check: bool | None = None,
        precision: Precision = "float32",
    ) -> None:
        """Decide once; the reason of a fallback is logged.

        Args:
            supernet: whose paths are scored; its weights may change between calls.
            device: where supernet and images are.
            check: whether the first call is compared with PyTorch; None: on a GPU.
            precision: of the convolutions of native code. bfloat16 needs a CPU with AMX; elsewhere float32 is used,
                and the log says so.
        """
        self._supernet = supernet
        self._path_programs = path_programs(supernet)
        self._programs: dict[tuple[Context, int, int], SupernetProgram] = {}
        self.fallback = self._reason(device)
        self._must_check = device.type == "cuda" if check is None else check
        if self.fallback:
            _logger.info(_FALLBACK, self.fallback)
        self._level = self._bfloat16_level(device) if precision == "bfloat16" else ""
        self._bfloat16_checked = False

    def __call__(
        self,
        genes_list: Sequence[Genes],
        images: Tensor,
        labels: Tensor,
        calibration: Sequence[Tensor],
        batch_size: int = 512,
    ) -> tuple[Tensor, Tensor]:
        """Loss and correct predictions of each path; arguments and results as those of `score_paths`.

        Raises:
            NativeError: a gene is not among the choices of its decision, or native code cannot take the images or
                weights.
        """
        if self._path_programs is not None:
            _require_genes(genes_list, self._path_programs.choices)
        if self._must_check and not self.fallback and genes_list and len(images):
            few = [batch[:_CHECKED_IMAGES] for batch in calibration[:1]]
            for batches in [few, []] if few else [[]]:
                self._check(genes_list[:_CHECKED_PATHS], images[:_CHECKED_IMAGES], labels[:_CHECKED_IMAGES], batches)
            self._must_check = False
        if self._level and not self._bfloat16_checked and genes_list and len(images):
            self._bfloat16_checked = True
            few = [batch[:_CHECKED_IMAGES] for batch in calibration[:1]]
            self._check_bfloat16(genes_list[:_CHECKED_PATHS], images[:_CHECKED_IMAGES], labels[:_CHECKED_IMAGES], few)
        if self.fallback or self._path_programs is None:
            return score_paths(self._supernet, genes_list, images, labels, calibration, batch_size)
        return self._score_by_context(genes_list, images, labels, calibration)

    def _check(
        self, genes_list: Sequence[Genes], images: Tensor, labels: Tensor, calibration: Sequence[Tensor]
    ) -> None:
        if self.fallback:
            return
        expected = score_paths(self._supernet, genes_list, images, labels, calibration)[0]
        try:
            found = self._score_by_context(genes_list, images, labels, calibration)[0]
        except NativeError as error:
            self.fallback = str(error)
        else:
            if torch.allclose(found, expected, rtol=_CHECK_TOLERANCE, atol=_CHECK_TOLERANCE, equal_nan=True):
                return
            worst = int((found - expected).abs().nan_to_num(nan=math.inf).argmax())
            self.fallback = f"native code gives a loss of {found[worst]:.6g}, PyTorch {expected[worst]:.6g}"
        _logger.warning(_FALLBACK, self.fallback)

    def _score_by_context(
        self, genes_list: Sequence[Genes], images: Tensor, labels: Tensor, calibration: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        assert self._path_programs is not None  # else there is a fallback
        loss = torch.empty(len(genes_list), dtype=torch.float64)
        correct = torch.empty(len(genes_list), dtype=torch.int64)
        contexts = [self._path_programs.context(genes) for genes in genes_list]
        for context in dict.fromkeys(contexts):
            chosen = [index for index, other in enumerate(contexts) if other == context]
            genes = np.array([genes_list[index] for index in chosen], dtype=np.int64)
            loss[chosen], correct[chosen] = self._score_natively(context, genes, images, labels, calibration)
        return loss, correct

    def _score_natively(
        self, context: Context, genes: np.ndarray, images: Tensor, labels: Tensor, calibration: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        assert self._path_programs is not None  # else there is a fallback
        images, *batches = (self._path_programs.images(batch, context) for batch in (images, *calibration))
        height, width = images.shape[2:]
        program = self._programs.get((context, height, width))
        if program is None:
            program = self._programs[context, height, width] = self._path_programs.program(context, height, width)
        statistics = Statistics.RECALIBRATED if batches else Statistics.RUNNING
        scores = supernet_eval(program, genes, images, labels, statistics, batches, level=self._level)
        return scores.loss, scores.correct

    def _bfloat16_level(self, device: torch.device) -> str:
        if device.type == "cpu" and not self.fallback and _BFLOAT16_LEVEL in bfloat16_levels():
            return _BFLOAT16_LEVEL
        _logger.warning(_NO_BFLOAT16, "it needs native code on a CPU with AMX")
        return ""

    def _check_bfloat16(
        self, genes_list: Sequence[Genes], images: Tensor, labels: Tensor, calibration: Sequence[Tensor]
    ) -> None:
        """Compare the chosen level, which no test machine need have had, with float32; use that where they differ."""
        level, self._level = self._level, ""
        expected = self._score_by_context(genes_list, images, labels, calibration)[0]
        self._level = level
        try:
            found = self._score_by_context(genes_list, images, labels, calibration)[0]
        except NativeError as error:
            problem = str(error)
        else:
            if torch.allclose(found, expected, rtol=_BFLOAT16_TOLERANCE, atol=_BFLOAT16_TOLERANCE, equal_nan=True):
                return
            problem = f"losses of {found.tolist()} where float32 gives {expected.tolist()}"
        self._level = ""
        _logger.warning(_NO_BFLOAT16, problem)

    def _reason(self, device: torch.device) -> str:
        if self._path_programs is None:
            return f"native code does not know {type(self._supernet).__name__}"
        if native.module() is None:
            return "there is no native module"
        if device.type != "cpu" and not (device.type == "cuda" and scores_on_gpus()):
            return f"the native module cannot score on {device}"
        return ""


def _require_genes(genes_list: Sequence[Genes], choices: Sequence[int]) -> None:
    # Python's lists would take -1 for the last choice, in PyTorch as in the context of a program.
    for index, genes in enumerate(genes_list):
        if len(genes) != len(choices) or not all(isinstance(gene, int | np.integer) for gene in genes):
            raise NativeError(
                f"supernet_eval: genes must be {len(choices)} integers for each path, got {list(genes)} for {index}"
            )
        for decision, (gene, limit) in enumerate(zip(genes, choices, strict=True)):
            if not 0 <= gene < limit:
                raise NativeError(f"supernet_eval: genes[{index}, {decision}] = {gene} is outside 0..{limit - 1}")
