"""How fast a supernet is trained, and where the time goes: python supernet_training.py [--quick] [--compile].

Every variant is the same training (same weights, batches and paths) with one thing done in another way; they take
turns in one process, and their first losses must agree. A profile of the current code groups its operations.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from record import Row, arguments, interleaved_seconds, make_row, median_of, rate_rows, write_rows
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from nas_engine import native
from nas_engine.costs.measured import torch_threads
from nas_engine.data.base import ImageDataset, Split
from nas_engine.data.loading import load_dataset
from nas_engine.evaluators.supernet import SupernetEvaluator, SupernetOptions
from nas_engine.nn.nasbench201 import ReductionBlock
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space

NOW = "as it is"
Change = Callable[[SupernetEvaluator], None]
_SEED = 0
_TOLERANCE = 2e-2  # of the mean loss of the first epoch, relative; bfloat16 has three digits
_GROUPS = {
    "convolution, backward": ("aten::convolution_backward", "_DepthwiseConv2dBackward"),
    "convolution, forward": ("aten::mkldnn_convolution",),
    "BatchNorm": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "pooling": ("aten::avg_pool2d", "aten::avg_pool2d_backward"),
    "ReLU": (
        "aten::clamp_min",
        "aten::clamp_min_",
        "aten::threshold_backward",
        "aten::clamp",
        "aten::hardtanh_backward",
    ),
    "sums of feature maps": ("aten::add",),
    "optimizer": ("Optimizer.step#SGD.step", "aten::_foreach_norm", "aten::_foreach_mul_"),
}


@dataclass(frozen=True)
class Case:
    """A space whose supernet is trained, and the images."""

    name: str
    space: SearchSpace
    dataset: ImageDataset


def cases() -> list[Case]:
    """The images of the default search, and larger ones in the two sizes of network that 2 cores can search."""
    digits = load_dataset("digits", validation_fraction=0.2, seed=_SEED)
    large = noise(digits, channels=3, side=32)
    options = {width: NASBench201Options(channels=width, cells=1) for width in (8, 16)}
    return [
        Case("nasbench201 C8 N1 8x8", NASBench201Space(digits.shape, options[8]), digits),
        Case("nasbench201 C8 N1 32x32", NASBench201Space(large.shape, options[8]), large),
        Case("nasbench201 C16 N1 32x32", NASBench201Space(large.shape, options[16]), large),
        Case("mobilenet 8x8", MobileNetSpace(digits.shape), digits),
        Case("mobilenet 32x32", MobileNetSpace(large.shape), large),
    ]


def noise(dataset: ImageDataset, channels: int, side: int) -> ImageDataset:
    """The labels of `dataset` with random images of another size: speed does not depend on what they show."""
    generator = torch.Generator().manual_seed(_SEED)
    count = len(dataset.train)
    train = Split(torch.randn(count, channels, side, side, generator=generator), dataset.train.labels)
    return dataclasses.replace(
        dataset, train=train, validation=train, test=train, mean=(0.0,) * channels, std=(1.0,) * channels
    )


def evaluator_of(case: Case, steps: int, epochs: int) -> SupernetEvaluator:
    """An untrained supernet, `steps` batches an epoch."""
    options = SupernetOptions(epochs=epochs)
    images = steps * options.batch_size
    train = Split(case.dataset.train.images[:images], case.dataset.train.labels[:images])
    return SupernetEvaluator(case.space, dataclasses.replace(case.dataset, train=train), options, seed=_SEED)


def unfused(evaluator: SupernetEvaluator) -> None:
    """A call of the optimizer for each operation on all tensors, as it was before."""
    trainer = evaluator._trainer
    groups = [{name: group[name] for name in ("params", "weight_decay")} for group in trainer._optimizer.param_groups]
    momentum = trainer.options.momentum
    trainer._optimizer = torch.optim.SGD(groups, trainer.options.learning_rate, momentum, nesterov=True, foreach=True)


def contiguous(evaluator: SupernetEvaluator) -> None:
    """Channels first, as PyTorch does by default."""
    trainer, backward = evaluator._trainer, evaluator._trainer._backward
    trainer.model.to(memory_format=torch.contiguous_format)
    trainer._backward = lambda images, labels, rng: backward(images.contiguous(), labels, rng)


def bfloat16(evaluator: SupernetEvaluator) -> None:
    """Bfloat16 where PyTorch thinks it fit."""
    backward = evaluator._trainer._backward

    def in_bfloat16(images: Tensor, labels: Tensor, rng: np.random.Generator) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return backward(images, labels, rng)

    evaluator._trainer._backward = in_bfloat16


def pytorchs_gradient(evaluator: SupernetEvaluator) -> None:
    """Depthwise convolutions as `torch.nn.functional.conv2d` differentiates them."""
    backward = evaluator._trainer._backward

    def without_native_code(images: Tensor, labels: Tensor, rng: np.random.Generator) -> Tensor:
        with patch.object(native, "module", lambda: None):
            return backward(images, labels, rng)

    evaluator._trainer._backward = without_native_code


def compiled(evaluator: SupernetEvaluator) -> None:
    """Each candidate operation and each reduction through torch.compile; whole paths would be compiled anew each."""
    for module in evaluator.supernet.modules():
        is_operation = isinstance(module, nn.Sequential) and isinstance(module[0], nn.ReLU)
        if is_operation or isinstance(module, ReductionBlock):
            module.compile(dynamic=False)


def measure(case: Case, changes: dict[str, Change], steps: int, repeats: int) -> list[Row]:
    """Images per second of all variants, and the current code's ratio to each."""
    trainings = {}
    for variant, change in changes.items():
        evaluator = evaluator_of(case, steps, repeats + 1)
        change(evaluator)
        trainings[variant] = evaluator.prepare()
    losses: dict[str, list[float]] = {variant: [] for variant in trainings}

    def train(variant: str) -> None:
        losses[variant].append(next(trainings[variant]).values["loss"])

    seconds = interleaved_seconds({variant: partial(train, variant) for variant in trainings}, repeats)
    first = {variant: values[0] for variant, values in losses.items()}
    if not np.allclose(list(first.values()), first[NOW], rtol=_TOLERANCE):
        raise SystemExit(f"{case.name}: the variants do not compute the same losses: {first}")
    images = steps * SupernetOptions().batch_size
    rows = rate_rows(case.name, seconds, images, "images/s")
    for variant in trainings:
        if variant != NOW:
            ratio = median_of(rows, case.name, NOW) / median_of(rows, case.name, variant)
            rows.append(make_row(case.name, NOW, f"speed over: {variant}", ratio, "x"))
    return rows


def profiled(case: Case, steps: int) -> list[Row]:
    """Share of each group of operations in the time of a step, and of what Python does between them."""
    training = evaluator_of(case, steps, epochs=2).prepare()
    next(training)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        started = time.perf_counter()
        next(training)
        total = time.perf_counter() - started
    events = {event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()}
    groups = {name: sum(events.get(key, 0.0) for key in keys) for name, keys in _GROUPS.items()}
    groups["other operations"] = sum(events.values()) - sum(groups.values())
    groups["Python between operations"] = total - sum(events.values())
    rows = [make_row(case.name, "profile", f"share: {name}", seconds / total, "") for name, seconds in groups.items()]
    return [*rows, make_row(case.name, "profile", "a step", total / steps * 1e3, "ms")]


def computes_in_bfloat16() -> bool:
    """Whether this machine has instructions for it; without them PyTorch emulates it many times slower."""
    products = {dtype: torch.randn(512, 512).to(dtype) for dtype in (torch.float32, torch.bfloat16)}
    seconds = interleaved_seconds({str(dtype): partial(torch.matmul, a, a) for dtype, a in products.items()}, 5)
    return statistics.median(seconds[str(torch.bfloat16)]) < 2 * statistics.median(seconds[str(torch.float32)])


def main() -> None:
    """Measure all cases on one thread, print the rows and write them."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed epochs of each variant (default: 7)")
    parser.add_argument("--compile", action="store_true", help="also torch.compile, which takes minutes")
    options = parser.parse_args()
    steps, repeats = (3, 1) if options.quick else (16, options.repeats)
    changes: dict[str, Change] = {
        NOW: lambda evaluator: None,
        "optimizer not fused": unfused,
        "channels first": contiguous,
    }
    rows = []
    with torch_threads(1):
        if computes_in_bfloat16():
            changes["bfloat16 autocast"] = bfloat16
        for case in cases():
            compiles = options.compile and isinstance(case.space, NASBench201Space)
            own = {**changes, "operations compiled": compiled} if compiles else dict(changes)
            if isinstance(case.space, MobileNetSpace):
                own["PyTorch's depthwise gradient"] = pytorchs_gradient
            rows += measure(case, own, steps, repeats)
            rows += profiled(case, steps)
    write_rows(rows, options.out)


if __name__ == "__main__":
    main()
