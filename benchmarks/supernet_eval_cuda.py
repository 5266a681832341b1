"""How fast paths of a supernet are scored on a GPU, native against PyTorch: python supernet_eval_cuda.py [--quick].

All variants score the same paths on the same images with running BatchNorm statistics, in turn, in one process; fp32
ones with TF32 off. It needs torch, numpy and the native module built with NAS_ENGINE_BUILD=cuda (`make bench-gpu`).
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
from torch import Tensor
from torch.nn import functional

from nas_engine.evaluators.path_programs import path_programs
from nas_engine.nn.nasbench201_supernet import NASBench201Supernet
from nas_engine.ops.supernet_eval import scores_on_gpus, supernet_eval

NATIVE, EAGER = "native", "eager NCHW"
Run = Callable[[], list[float]]
_SEED = 0
_PIXELS_AT_ONCE = 1 << 24  # images of all paths together, as far as memory goes
_FP32_TOLERANCE, _BF16_TOLERANCE = 1e-4, 0.05


@dataclass(frozen=True)
class Case:
    """A NAS-Bench-201 supernet at one size."""

    channels: int
    cells: int
    side: int
    batch: int

    @property
    def name(self) -> str:
        """As in the tables."""
        return f"nasbench201 C{self.channels} N{self.cells} {self.side}x{self.side}, batch {self.batch}"


CASES = [Case(*size, batch) for size in ((16, 5, 32), (16, 1, 32), (8, 1, 8)) for batch in (64, 256)]
GOAL_CASE, GOAL_OVER_EAGER, GOAL_OVER_BEST = CASES[0], 20.0, 3.0


def graphs_of(supernet: NASBench201Supernet, paths: Sequence[Genes], images: Tensor, labels: Tensor) -> Run:
    """A CUDA graph of each path, captured once; a call replays all of them."""
    graphs, losses = [], []
    with torch.inference_mode():
        for genes in paths:
            warm = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            with torch.cuda.stream(warm):
                functional.cross_entropy(supernet(images, genes), labels)
            warm.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                losses.append(functional.cross_entropy(supernet(images, genes), labels))
            graphs.append(graph)

    def replay() -> list[float]:
        for graph in graphs:
            graph.replay()
        return torch.stack(losses).tolist()

    return replay


def variants_of(case: Case, paths: Sequence[Genes]) -> dict[str, Run]:
    """All ways of scoring `paths`; each call returns their losses."""
    torch.manual_seed(_SEED)
    supernet = NASBench201Supernet(case.channels, case.cells, 3, 10).cuda().eval()
    last = NASBench201Supernet(case.channels, case.cells, 3, 10).cuda().eval()
    last.load_state_dict(supernet.state_dict())
    last = last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(case.batch, 3, case.side, case.side, device="cuda")
    labels = torch.randint(10, (case.batch,), device="cuda")
    images_last = images.contiguous(memory_format=torch.channels_last)
    programs = path_programs(supernet)
    assert programs is not None
    program, genes = programs.program((), case.side, case.side), np.array(paths, dtype=np.int64)
    return {
        NATIVE: lambda: supernet_eval(program, genes, images, labels).loss.tolist(),
        EAGER: lambda: eager(supernet, paths, images, labels),
        "eager channels_last": lambda: eager(last, paths, images_last, labels),
        "channels_last, bf16 autocast": lambda: autocast(last, paths, images_last, labels),
        "CUDA graph of each path": graphs_of(supernet, paths, images, labels),
        "paths batched by operation": lambda: batched(last, paths, images_last, labels, _PIXELS_AT_ONCE),
    }


def measure(case: Case, path_count: int, repeats: int) -> list[Row]:
    """Rates of all variants and the speedups of the native one over eager and over the best fp32 and bf16 ones."""
    rng = np.random.default_rng(_SEED)
    paths = [tuple(genes) for genes in rng.integers(0, 5, (path_count, 6)).tolist()]
    variants = variants_of(case, paths)
    expected = np.array(variants[EAGER]())
    for variant, run in variants.items():
        tolerance = _BF16_TOLERANCE if "bf16" in variant else _FP32_TOLERANCE
        if not np.allclose(run(), expected, rtol=tolerance, atol=tolerance):
            raise SystemExit(f"{variant} gives other losses than {EAGER}")
    seconds = interleaved_seconds(variants, repeats)
    name = f"{case.name}, {path_count} paths"
    rows = rate_rows(name, seconds, path_count * case.batch, "paths x images/s")
    medians = {variant: statistics.median(times) for variant, times in seconds.items()}
    best = min((variant for variant in medians if variant != NATIVE), key=medians.__getitem__)
    for other, goal in ((EAGER, GOAL_OVER_EAGER), (best, GOAL_OVER_BEST)):
        ratio = medians[other] / medians[NATIVE]
        rows.append(make_row(name, NATIVE, f"speedup over {other}", ratio, "times"))
        if case == GOAL_CASE:
            report_goal(f"{name}: speedup over {other}", ratio, goal, "times")
    return rows


def compiled(case: Case, repeats: int) -> list[Row]:
    """One path through torch.compile(mode="max-autotune"), which compiles every path anew."""
    variants = variants_of(case, [(3, 3, 3, 3, 3, 3)])
    torch.manual_seed(_SEED)
    supernet = NASBench201Supernet(case.channels, case.cells, 3, 10).cuda().eval()
    supernet = supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(case.batch, 3, case.side, case.side, device="cuda").contiguous(
        memory_format=torch.channels_last
    )
    labels = torch.randint(10, (case.batch,), device="cuda")
    network = torch.compile(supernet, mode="max-autotune")
    chosen: dict[str, Run] = {NATIVE: variants[NATIVE], EAGER: variants[EAGER]}
    chosen["torch.compile max-autotune"] = lambda: eager(network, [(3,) * 6], images, labels)  # type: ignore[arg-type]
    return rate_rows(f"{case.name}, 1 path", interleaved_seconds(chosen, repeats), case.batch, "paths x images/s")


def ceilings(repeats: int) -> list[Row]:
    """What the device can do at most: matrix products, and copies that do not fit its caches."""
    rows: list[Row] = []
    size = 4096
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        factor = torch.randn(size, size, device="cuda").to(dtype)
        seconds = _timed(partial(torch.matmul, factor, factor), repeats)
        rows.append(_row(f"GEMM {size}, {name}", "peak", 2 * size**3 / seconds / 1e12, "TFLOP/s"))
    source = torch.zeros(1 << 28, device="cuda")
    target = torch.empty_like(source)
    seconds = _timed(lambda: target.copy_(source), repeats)
    rows.append(_row("copy of 1 GiB", "bandwidth", 2 * 4 * len(source) / seconds / 1e9, "GB/s"))
    return rows


def _timed(run: Callable[[], object], repeats: int) -> float:
    def synchronised() -> None:
        run()
        torch.cuda.synchronize()

    return min(interleaved_seconds({"": synchronised}, repeats)[""])


def _row(variant: str, metric: str, value: float, unit: str) -> Row:
    return make_row("this device", variant, metric, value, unit)


def main() -> None:
    """Measure all cases and print goals beside what was reached."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=64, help="paths a call (default: 64)")
    parser.add_argument("--repeats", type=int, default=10, help="timed rounds (default: 10)")
    options = parser.parse_args()
    if not torch.cuda.is_available() or not scores_on_gpus():
        raise SystemExit("needs a CUDA device and a native module built with NAS_ENGINE_BUILD=cuda: make bench-gpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    paths, repeats, chosen = (8, 2, CASES[-2:-1]) if options.quick else (options.paths, options.repeats, CASES)
    rows = ceilings(repeats)
    for case in chosen:
        rows += measure(case, paths, repeats)
    if not options.quick:
        rows += compiled(GOAL_CASE, repeats)
    write_rows(rows, options.out)


if __name__ == "__main__":
    main()
