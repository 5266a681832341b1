"""How fast paths of a supernet are scored, native against every way in PyTorch: python supernet_eval.py [--quick].

All variants score the same paths on the same images with running BatchNorm statistics, in turn, in one process. The
machine's own ceilings (GEMM, copy) are measured between them. Counted FLOPs are two for each multiply-accumulate of
the direct algorithm, so a fast algorithm may exceed the GEMM ceiling.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from path_variants import Genes, autocast, batched, eager
from record import Row, arguments, interleaved_seconds, make_row, rate_rows, report_goal, write_rows
from torch import Tensor, nn

from nas_engine.costs.analytic import AnalyticCost
from nas_engine.evaluators.path_scoring import PathScorer, score_paths
from nas_engine.nn.nasbench201_supernet import NASBench201Supernet
from nas_engine.ops.supernet_eval import bfloat16_levels
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.types import Architecture, ImageShape

NATIVE, NATIVE_BF16, EAGER = "native", "native bf16", "eager NCHW"
_SEED = 0
_SPEEDUP = "speedup over "
_GOAL_OVER_BEST = 2.2
_BF16_GOAL, _BF16_GOAL_OVER_BEST = 16.0, 4.0
_CALIBRATION_IMAGES = 256


@dataclass(frozen=True)
class Case:
    """A space at one size."""

    name: str
    space: SearchSpace
    speedup_goal: float  # against eager NCHW


def cases() -> list[Case]:
    """The sizes of the published networks, of a small search, and of the smallest one that is useful."""

    def cells(channels: int, count: int, side: int) -> SearchSpace:
        return NASBench201Space(ImageShape(3, side, side, 10), NASBench201Options(channels=channels, cells=count))

    return [
        Case("nasbench201 C16 N5 32x32", cells(16, 5, 32), 4.5),
        Case("nasbench201 C16 N1 32x32", cells(16, 1, 32), 4.5),
        Case("nasbench201 C8 N1 8x8", cells(8, 1, 8), 10.0),
        Case("mobilenet 32x32", MobileNetSpace(ImageShape(3, 32, 32, 10)), 4.5),
    ]


def recalibrating_variants(
    case: Case, paths: Sequence[Genes], images: Tensor, labels: Tensor, calibration: Tensor
) -> dict[str, Callable[[], list[float]]]:
    """What a search does: the BatchNorm statistics of each path are those of the calibration images."""
    torch.manual_seed(_SEED)
    supernet = case.space.supernet().eval()
    last = case.space.supernet().eval()
    last.load_state_dict(supernet.state_dict())
    last = last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images_last, calibration_last = (
        tensor.contiguous(memory_format=torch.channels_last) for tensor in (images, calibration)
    )
    scorer = PathScorer(supernet, torch.device("cpu"))
    return {
        NATIVE: lambda: scorer(paths, images, labels, [calibration])[0].tolist(),
        EAGER: lambda: score_paths(supernet, paths, images, labels, [calibration])[0].tolist(),
        "eager channels_last": lambda: score_paths(last, paths, images_last, labels, [calibration_last])[0].tolist(),
    }


def variants_of(
    case: Case, paths: Sequence[Genes], images: Tensor, labels: Tensor, with_bf16: bool = False
) -> dict[str, Callable[[], list[float]]]:
    """All ways of scoring `paths`; each call returns their losses."""
    torch.manual_seed(_SEED)
    supernet = case.space.supernet().eval()
    last = case.space.supernet().eval()
    last.load_state_dict(supernet.state_dict())
    last = last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images_last = images.contiguous(memory_format=torch.channels_last)
    scorer = PathScorer(supernet, torch.device("cpu"))
    if scorer.fallback:
        raise SystemExit(f"nothing native to measure: {scorer.fallback}")
    variants: dict[str, Callable[[], list[float]]] = {
        NATIVE: lambda: scorer(paths, images, labels, ())[0].tolist(),
        EAGER: lambda: eager(supernet, paths, images, labels),
        "eager channels_last": lambda: eager(last, paths, images_last, labels),
    }
    if "bf16-amx" in bfloat16_levels():
        tiles = PathScorer(supernet, torch.device("cpu"), precision="bfloat16")
        variants[NATIVE_BF16] = lambda: tiles(paths, images, labels, ())[0].tolist()
    if with_bf16:
        variants["channels_last, bf16 autocast"] = lambda: autocast(last, paths, images_last, labels)
    if isinstance(last, NASBench201Supernet):
        variants["paths batched by operation"] = lambda: batched(last, paths, images_last, labels)
    return variants


def measure(
    case: Case, batch: int, path_count: int, repeats: int, with_bf16: bool, calibration_images: int = 0
) -> list[Row]:
    """Rates of all variants, their FLOP/s, and the speedups of the native one."""
    rng = np.random.default_rng(_SEED)
    architectures = [case.space.sample(rng) for _ in range(path_count)]
    paths = [architecture.genes for architecture in architectures]
    shape = case.space.shape
    images = torch.randn(batch + calibration_images, shape.channels, shape.height, shape.width)
    labels = torch.randint(shape.classes, (batch,))
    name = f"{case.name}, {path_count} paths, batch {batch}"
    if calibration_images:
        variants = recalibrating_variants(case, paths, images[:batch], labels, images[batch:])
        name += f", recalibrated on {calibration_images}"
    else:
        variants = variants_of(case, paths, images, labels, with_bf16)
    require_equal(variants)
    seconds = interleaved_seconds(variants, repeats)
    rows = rate_rows(name, seconds, path_count * batch, "paths x images/s")
    flops = 2 * len(images) * macs(case.space, architectures)
    medians = {variant: statistics.median(times) for variant, times in seconds.items()}
    rows += [
        make_row(name, variant, "direct FLOPs", flops / median / 1e9, "GFLOP/s") for variant, median in medians.items()
    ]
    ours = [variant for variant in medians if variant in (NATIVE, NATIVE_BF16)]
    for mine in ours:
        # float32 is compared with float32; bfloat16 with all.
        others = [other for other in medians if other not in ours and (mine == NATIVE_BF16 or "bf16" not in other)]
        best = min(others, key=medians.__getitem__)
        for other in dict.fromkeys((EAGER, best)):
            rows.append(make_row(name, mine, _SPEEDUP + other, medians[other] / medians[mine], "x"))
    return rows


def report_speedups(case: Case, rows: Sequence[Row]) -> None:
    """Print the speedups among the `rows` of `case` beside their goals."""
    for row in rows:
        if row["metric"].startswith(_SPEEDUP):
            over_eager, over_best = (
                (_BF16_GOAL, _BF16_GOAL_OVER_BEST)
                if row["variant"] == NATIVE_BF16
                else (case.speedup_goal, _GOAL_OVER_BEST)
            )
            goal = over_eager if row["metric"] == _SPEEDUP + EAGER else over_best
            report_goal(f"{row['case']}, {row['variant']}: {row['metric']}", row["value"], goal, "times")


def macs(space: SearchSpace, architectures: Sequence[Architecture]) -> float:
    """Exact multiply-accumulates of all `architectures` for one image."""
    model = AnalyticCost(space)
    return float(model.estimate(architectures)[:, model.names.index("macs")].sum())


def require_equal(variants: dict[str, Callable[[], list[float]]]) -> None:
    """Stop where two ways disagree: a comparison of speed needs one answer. bfloat16 may differ by its precision."""
    expected = np.array(variants[EAGER]())
    for variant, run in variants.items():
        tolerance = 0.05 if "bf16" in variant else 1e-4
        if not np.allclose(run(), expected, rtol=tolerance, atol=tolerance):
            raise SystemExit(f"{variant} gives other losses than {EAGER}")


def ceilings(repeats: int) -> list[Row]:
    """What the machine can do at most: matrix products and copies that do not fit its caches."""
    size = 1024
    products = {dtype: torch.randn(size, size).to(dtype) for dtype in (torch.float32, torch.bfloat16)}
    source = torch.zeros(1 << 26)
    target = torch.empty_like(source)
    seconds = interleaved_seconds(
        {
            "fp32": lambda: products[torch.float32] @ products[torch.float32],
            "bf16": lambda: products[torch.bfloat16] @ products[torch.bfloat16],
            "copy": lambda: target.copy_(source),
        },
        repeats,
    )
    best = {name: min(times) for name, times in seconds.items()}
    return [
        make_row("this machine", "GEMM 1024, fp32", "peak", 2 * size**3 / best["fp32"] / 1e9, "GFLOP/s"),
        make_row("this machine", "GEMM 1024, bf16", "peak", 2 * size**3 / best["bf16"] / 1e9, "GFLOP/s"),
        make_row("this machine", "copy of 256 MiB", "bandwidth", 2 * 4 * len(source) / best["copy"] / 1e9, "GB/s"),
    ]


def compiled(case: Case, batch: int, repeats: int) -> list[Row]:
    """One path through torch.compile, which compiles every path anew: its speed, and what that costs."""
    rng = np.random.default_rng(_SEED)
    genes = case.space.sample(rng).genes
    shape = case.space.shape
    images = torch.randn(batch, shape.channels, shape.height, shape.width)
    labels = torch.randint(shape.classes, (batch,))
    own = variants_of(case, [genes], images, labels)
    variants = {name: own[name] for name in (NATIVE, EAGER)}
    for name, memory_format in (("NCHW", torch.contiguous_format), ("channels_last", torch.channels_last)):
        torch.manual_seed(_SEED)
        supernet = case.space.supernet().eval().to(memory_format=memory_format)  # type: ignore[call-overload]
        path: nn.Module = torch.compile(supernet)  # type: ignore[assignment]
        inputs = images.contiguous(memory_format=memory_format)
        variants[f"torch.compile, {name}"] = partial(eager, path, [genes], inputs, labels)  # type: ignore[arg-type]
    require_equal(variants)
    seconds = interleaved_seconds(variants, repeats)
    return rate_rows(f"{case.name}, 1 path, batch {batch}", seconds, batch, "paths x images/s")


def main() -> None:
    """Measure all cases and print goals beside what was reached."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=64, help="paths a call (default: 64)")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds (default: 3)")
    parser.add_argument("--case", default="", help="only cases whose name contains this, without recalibration")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes a minute")
    options = parser.parse_args()
    paths, repeats, batches = (4, 1, [16]) if options.quick else (options.paths, options.repeats, [64, 256])
    rows = ceilings(repeats + 4)
    peaks = {row["variant"]: row["value"] for row in rows}
    # Without instructions for it PyTorch emulates bf16, and a run takes hours.
    with_bf16 = peaks["GEMM 1024, bf16"] > peaks["GEMM 1024, fp32"] / 4
    rows_of: list[tuple[Case, list[Row]]] = []
    for case in [case for case in cases() if options.case in case.name]:
        for batch in batches:
            rows_of.append((case, measure(case, batch, paths, repeats, with_bf16)))
            rows += rows_of[-1][1]
    for case in [] if options.case else cases()[1:3]:
        rows += measure(case, batches[0], paths, repeats, False, _CALIBRATION_IMAGES)
    if not (options.quick or options.no_compile) and options.case in cases()[1].name:
        rows += compiled(cases()[1], 64, repeats)
    write_rows(rows, options.out)
    for case, found in rows_of:
        report_speedups(case, found)


if __name__ == "__main__":
    main()
