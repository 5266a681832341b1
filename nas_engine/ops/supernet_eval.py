"""Scores many paths of a weight-sharing network in one call: loss and correct predictions of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_engine import native
from nas_engine.errors import NativeError
from nas_engine.ops.boundary import (
    call_native,
    require_array,
    require_int,
    require_member,
    require_range,
    require_tensor,
)
from nas_engine.ops.supernet_eval_cuda import GpuPaths
from nas_engine.ops.supernet_program import IntArray, Node, SupernetProgram, Term, TermKind

_OP = "supernet_eval"
_MOST_THREADS = 1024
_FEWEST_ROUNDED = 8  # channels: convolutions of fewer stay in float32


class Statistics(IntEnum):
    """Where the BatchNorm layers of a path take mean and variance from."""

    RUNNING = 0
    BATCH = 1
    RECALIBRATED = 2


class PathScores(NamedTuple):
    """Results of scored paths.

    Attributes:
        loss: float64 [paths]; mean cross-entropy in nats, NaN where a logit is not finite or there are no images.
        correct: int64 [paths]; correct predictions.
        logits: float32 [paths, images, classes], or None where they were not asked for.
    """

    loss: Tensor
    correct: Tensor
    logits: Tensor | None


def levels() -> list[str]:
    """Instruction sets whose kernels run on this processor, the fastest last; empty without the native module."""
    module = native.module()
    return [] if module is None else list(module.kernel_levels())


def bfloat16_levels() -> list[str]:
    """The same for kernels that convolve in bfloat16; only ``bf16-amx`` among them is faster than float32.

    Convolutions of at least 8 channels to at least 8 multiply inputs and weights rounded to bfloat16 and add in
    float32; BatchNorm, biases and everything else stay in float32, as do the activations between them.
    """
    module = native.module()
    return [] if module is None else list(module.bfloat16_levels())


def scores_on_gpus() -> bool:
    """Whether the native module has the CUDA kernels; a device may still be missing."""
    return hasattr(native.module(), "supernet_eval_cuda")


def supernet_eval(
    program: SupernetProgram,
    genes: IntArray,
    images: Tensor,
    labels: Tensor,
    statistics: Statistics = Statistics.RUNNING,
    calibration: Sequence[Tensor] = (),
    *,
    want_logits: bool = False,
    level: str = "",
    threads: int | None = None,
) -> PathScores:
    """Loss and correct predictions of many paths, on the CPU or on the CUDA device where the images are.

    Each path is cut down to what it computes, its BatchNorm layers are folded into the convolutions, and a few
    images at a time go through the whole network while their activations stay in cache. The result depends neither
    on the number of threads nor on what else is in the call.

    Args:
        program: the network; its weights are read and never changed.
        genes: int64 [paths, decisions], each in 0..choices-1 of its decision.
        images: float32 [n, channels, height, width], on the device of the weights.
        labels: int64 [n], each in 0..classes-1.
        statistics: RUNNING: those of the BatchNorm layers; BATCH: those of `images` as one batch, as in training
            mode; RECALIBRATED: averages over the `calibration` batches (see `nas_engine.nn.supernet.recalibrated`).
        calibration: batches of images, for RECALIBRATED only.
        want_logits: also return all logits.
        level: one of `levels()` or `bfloat16_levels()`; empty: the last of `levels()`. Of no use on a GPU.
        threads: 1 to 1024; None: as many as torch uses. Of no use on a GPU.

    Returns:
        Tensors on the CPU.

    Raises:
        NativeError: an argument has the wrong type, dtype, device, shape or range, or there is no native module.
    """
    module = native.module()
    if module is None:
        raise NativeError(f"{_OP} needs the native module; supernet_eval_reference computes the same")
    _require_scorable(program, genes, images, labels, statistics, calibration)
    threads = _threads(threads)
    if not isinstance(level, str):
        raise NativeError(f"{_OP}: level must be one of {', '.join(levels() + bfloat16_levels())} or '', got {level!r}")
    if images.is_cuda and not scores_on_gpus():
        raise NativeError(
            f"{_OP}: images are on {images.device}, but the native module was built without CUDA; use images.cpu()"
        )
    images, labels = images.contiguous(), labels.contiguous()
    batches = [batch.contiguous() for batch in calibration]
    described = describe(module, program, images.device)
    classes = program.head.linear.weight.shape[0]
    if images.is_cuda:
        paths = GpuPaths.on_device(module, described, classes, images.device)
        return PathScores(*paths.score(genes, images, labels, statistics, batches, want_logits=want_logits))
    loss, correct = torch.empty(len(genes), dtype=torch.float64), torch.empty(len(genes), dtype=torch.int64)
    logits = torch.empty(len(genes), len(images), classes) if want_logits else None
    request = module.ScoreRequest(
        genes.ctypes.data,
        len(genes),
        images.data_ptr(),
        len(images),
        labels.data_ptr(),
        [(batch.data_ptr(), len(batch)) for batch in batches],
        int(statistics),
        threads,
        level,
    )
    shapes = {"genes": genes.shape, "images": images.shape}
    addresses = (loss.data_ptr(), correct.data_ptr(), 0 if logits is None else logits.data_ptr())
    call_native(_OP, module.supernet_eval, described, request, *addresses, shapes=shapes)
    return PathScores(loss, correct, logits)


def describe(module: ModuleType, program: SupernetProgram, device: torch.device) -> Any:
    """`program` as native code holds it, with the addresses of its weights; made anew only when they have moved.

    Raises:
        NativeError: a weight is not float32 on `device`, or has a shape that does not fit.
    """
    key = device, program.places()
    if key not in program.described:
        _require_weights(program, device)
        shapes = {"nodes": program.tables.nodes.shape, "terms": program.tables.terms.shape}
        program.described.clear()
        program.described[key] = call_native(_OP, _program_of, module, program, shapes=shapes)
    return program.described[key]


def _program_of(module: ModuleType, program: SupernetProgram) -> Any:
    tables = program.tables
    weights = np.array([_weight_row(c.weight) for c in tables.convolutions], dtype=np.int64).reshape(-1, 8)
    norms = np.array([_norm_row(norm) for norm in tables.norms], dtype=np.int64).reshape(-1, 5)
    epsilons = np.array([norm.eps for norm in tables.norms], dtype=np.float64)
    linear, norm = program.head.linear, program.head.norm
    head = np.array(
        (
            program.head.node,
            -1 if norm is None else next(i for i, known in enumerate(tables.norms) if known is norm),
            linear.weight.data_ptr(),
            linear.bias.data_ptr(),
            *linear.weight.shape,
        ),
        dtype=np.int64,
    )
    arrays = (tables.nodes, tables.terms, weights, norms)
    sized = [number for array in arrays for number in (array.ctypes.data, len(array))]
    return module.SupernetProgram(*sized, epsilons.ctypes.data, head.ctypes.data, program.choices)


def _weight_row(weight: Tensor) -> tuple[int, ...]:
    return (weight.data_ptr(), *weight.shape[:3], *weight.stride())


def _norm_row(norm: nn.BatchNorm2d) -> tuple[int, ...]:
    assert norm.running_mean is not None  # required by `_require_weights`
    assert norm.running_var is not None
    tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return (*(tensor.data_ptr() for tensor in tensors), len(norm.weight))


def _require_scorable(
    program: SupernetProgram,
    genes: IntArray,
    images: Tensor,
    labels: Tensor,
    statistics: Statistics,
    calibration: Sequence[Tensor],
) -> None:
    if not isinstance(program, SupernetProgram):
        raise NativeError(f"{_OP}: program must be a SupernetProgram, got {type(program).__name__}")
    shape = (None, *program.tables.nodes[0, 2:5].tolist())
    require_member(_OP, "statistics", statistics, Statistics)
    require_array(_OP, "genes", genes, np.int64, (None, program.decisions))
    require_range(_OP, "genes", genes, program.choices)
    device = images.device if isinstance(images, Tensor) and images.is_cuda else torch.device("cpu")
    require_tensor(_OP, "images", images, torch.float32, shape, device=device)
    require_tensor(_OP, "labels", labels, torch.int64, (len(images),), device=device)
    require_range(_OP, "labels", labels.cpu().numpy(), program.head.linear.weight.shape[0])
    if not isinstance(calibration, list | tuple):
        raise NativeError(f"{_OP}: calibration must be a list or tuple of tensors, got {type(calibration).__name__}")
    for index, batch in enumerate(calibration):
        require_tensor(_OP, f"calibration[{index}]", batch, torch.float32, shape, device=device)
        if not len(batch):
            raise NativeError(f"{_OP}: calibration[{index}] is empty; leave it out")
    if bool(calibration) != (statistics is Statistics.RECALIBRATED):
        raise NativeError(
            f"{_OP}: calibration has {len(calibration)} batches with statistics {statistics.name}; "
            "RECALIBRATED needs at least one, the others none"
        )


def _threads(threads: int | None) -> int:
    if threads is None:
        return min(torch.get_num_threads(), _MOST_THREADS)
    require_int(_OP, "threads", threads, 1, _MOST_THREADS)
    return threads


def _require_weights(program: SupernetProgram, device: torch.device) -> None:
    for name, tensor, shape in program.tensors():
        # Convolutions may have any strides: trainers keep them channels last.
        require_tensor(_OP, name, tensor, torch.float32, shape, device=device, contiguous=len(shape) < 4)


def supernet_eval_reference(
    program: SupernetProgram,
    genes: IntArray,
    images: Tensor,
    labels: Tensor,
    statistics: Statistics = Statistics.RUNNING,
    calibration: Sequence[Tensor] = (),
    *,
    bfloat16: bool = False,
) -> PathScores:
    """The same as `supernet_eval` in PyTorch, path by path and layer by layer: the oracle of its tests.

    Args:
        program: as the arguments that follow, those of `supernet_eval`.
        genes: see there.
        images: see there.
        labels: see there.
        statistics: see there.
        calibration: see there.
        bfloat16: round what the `bfloat16_levels` round.

    Raises:
        NativeError: as `supernet_eval`.
    """
    _require_scorable(program, genes, images, labels, statistics, calibration)
    logits = []
    for path in genes.tolist():
        norms: dict[int, _Statistics] = {}
        if statistics is Statistics.RUNNING:
            norms = {id(n): (n.running_mean, n.running_var) for n in program.norms}  # type: ignore[misc]
        elif statistics is Statistics.RECALIBRATED:
            norms = _recalibrated(program, path, calibration, bfloat16)
        logits.append(_logits(program, path, images, norms, {}, bfloat16))
    stacked = torch.stack(logits) if logits else torch.empty(0, len(images), len(program.head.linear.weight))
    targets = labels.expand(len(stacked), -1)
    losses = F.cross_entropy(stacked.double().permute(0, 2, 1), targets, reduction="none").mean(1)
    finite = stacked.isfinite().flatten(1).all(1)
    correct = (stacked.argmax(2) == targets).sum(1)
    return PathScores(torch.where(finite, losses, torch.nan), correct, stacked)


_Statistics = tuple[Tensor, Tensor]


def _recalibrated(
    program: SupernetProgram, path: list[int], batches: Sequence[Tensor], bfloat16: bool
) -> dict[int, _Statistics]:
    seen: list[dict[int, _Statistics]] = []
    for batch in batches:
        seen.append({})
        _logits(program, path, batch, {}, seen[-1], bfloat16)
    return {
        norm: (
            torch.stack([statistics[norm][0] for statistics in seen]).mean(0),
            torch.stack([statistics[norm][1] for statistics in seen]).mean(0),
        )
        for norm in seen[0]
    }


def _logits(
    program: SupernetProgram,
    path: list[int],
    images: Tensor,
    known: Mapping[int, _Statistics],
    measured: dict[int, _Statistics],
    bfloat16: bool,
) -> Tensor:
    """Logits with the `known` statistics, or with those of the batch, which are then added to `measured`."""

    def normalised(norm: nn.BatchNorm2d | None, values: Tensor) -> Tensor:
        if norm is None:
            return values
        channels = values.shape[1]
        if known:
            mean, variance = known[id(norm)]
        else:
            variance, mean = torch.var_mean(values, dim=(0, 2, 3), correction=1)
            measured[id(norm)] = mean, variance
            variance = variance * (1 - channels / values.numel())  # a batch is normalised by its biased variance
        affine = norm.weight[:channels], norm.bias[:channels]
        return F.batch_norm(values, mean[:channels], variance[:channels], *affine, eps=norm.eps)

    def value_of(term: Term, node: Node) -> Tensor | None:
        source = nodes[term.source]
        if source is None or (term.choice and path[term.choice[0]] != term.choice[1]):
            return None
        source = source.relu() if term.rectified else source
        return normalised(term.norm, _linear_part(term, node, source, bfloat16))

    nodes: list[Tensor | None] = [images]
    with torch.no_grad():
        for node in program.nodes[1:]:
            values = [value for term in node.terms if (value := value_of(term, node)) is not None]
            total: Tensor | None = sum(values) if values else None  # type: ignore[assignment]
            if total is None and not node.optional:
                total = _zeros(node, nodes)
            nodes.append(F.relu6(total) if total is not None and node.relu6 else total)
        last = nodes[program.head.node]
        assert last is not None  # the head's node is not optional
        features = last if program.head.norm is None else normalised(program.head.norm, last).relu()
        linear = program.head.linear
        return F.linear(features.mean((2, 3)), linear.weight[:, : features.shape[1]], linear.bias)


def _zeros(node: Node, nodes: Sequence[Tensor | None]) -> Tensor:
    source = None if node.zero_of is None else nodes[node.zero_of]
    if source is not None:
        return 0.0 * source
    image = nodes[0]
    assert image is not None
    return image.new_zeros(len(image), node.channels, node.height, node.width)


def _linear_part(term: Term, node: Node, source: Tensor, bfloat16: bool) -> Tensor:
    if term.kind is TermKind.IDENTITY:
        return source
    if term.kind is TermKind.AVERAGE_POOL:
        padding = (term.kernel - 1) // 2
        right, bottom = (_missing(size, term) for size in (source.shape[3], source.shape[2]))
        window = (padding, right, padding, bottom)
        ones = F.pad(torch.ones_like(source), window)
        kernel, stride = term.kernel, term.stride
        return F.avg_pool2d(F.pad(source, window), kernel, stride) / F.avg_pool2d(ones, kernel, stride)
    assert term.convolution is not None
    weight = term.convolution.weight
    border = (weight.shape[2] - term.kernel) // 2
    centre = slice(border, border + term.kernel)
    depthwise = term.kind is TermKind.DEPTHWISE
    weight = weight[: node.channels, : 1 if depthwise else source.shape[1], centre, centre]
    groups = source.shape[1] if depthwise else 1
    if bfloat16 and not depthwise and min(source.shape[1], node.channels) >= _FEWEST_ROUNDED:
        source, weight = source.bfloat16().float(), weight.bfloat16().float()
    return F.conv2d(source, weight, None, term.stride, term.kernel // 2, groups=groups)


def _missing(size: int, term: Term) -> int:
    """Padding after the last pixel that gives ``ceil(size / stride)`` windows."""
    outputs = -(-size // term.stride)
    return max(0, (outputs - 1) * term.stride + term.kernel - (term.kernel - 1) // 2 - size)
