"""How fast parameters and MACs of all 15,625 NAS-Bench-201 cells are priced: python cost_estimate.py [--quick]."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import thop
import torch
from fvcore.nn import FlopCountAnalysis
from ptflops import get_model_complexity_info
from record import Row, arguments, interleaved_seconds, median_of, rate_rows, report_goal, write_rows
from torch.utils.flop_counter import FlopCounterMode

from nas_engine import native
from nas_engine.ops.cost_estimate import cost_estimate, cost_estimate_reference
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.types import Architecture, ImageShape

SHAPE = ImageShape(channels=3, height=32, width=32, classes=10)
SPACE = NASBench201Space(SHAPE, NASBench201Options(channels=16, cells=5, allow_disconnected=True))

Counter = Callable[[Architecture], float]


def flop_counter_macs(architecture: Architecture) -> float:
    """MACs by PyTorch's own counter, on the device "meta": shapes only, no weights and no arithmetic."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        SPACE.build(architecture).eval()(torch.empty(1, SHAPE.channels, SHAPE.height, SHAPE.width))
    return float(counter.get_total_flops()) / 2  # it counts a multiply-accumulate as two


def fvcore_macs(architecture: Architecture) -> float:
    """MACs of convolutions and linear layers by fvcore, which traces the network on the CPU."""
    image = torch.zeros(1, SHAPE.channels, SHAPE.height, SHAPE.width)
    by_operator = FlopCountAnalysis(SPACE.build(architecture).eval(), image).by_operator()
    return float(by_operator["conv"] + by_operator["linear"])


def thop_macs(architecture: Architecture) -> float:
    """MACs of convolutions and linear layers by thop, told to leave out what it has rules for beside them."""

    def nothing(*hook: object) -> None:
        del hook

    left_out = (torch.nn.BatchNorm2d, torch.nn.AvgPool2d, torch.nn.AdaptiveAvgPool2d)
    image = torch.zeros(1, SHAPE.channels, SHAPE.height, SHAPE.width)
    rules = dict.fromkeys(left_out, nothing)
    macs, _ = thop.profile(SPACE.build(architecture), (image,), custom_ops=rules, verbose=False)
    return float(macs)


def ptflops_macs(architecture: Architecture) -> float:
    """MACs by ptflops at the level of PyTorch's operators, less the biases, each of which it counts as one."""
    image = (SHAPE.channels, SHAPE.height, SHAPE.width)
    macs, _ = get_model_complexity_info(
        SPACE.build(architecture), image, print_per_layer_stat=False, as_strings=False, backend="aten"
    )
    return float(macs) - SHAPE.classes  # the classifier is the only layer with a bias


def count_each(architectures: Sequence[Architecture], counter: Counter) -> list[float]:
    """MACs of each architecture."""
    return [counter(architecture) for architecture in architectures]


def table_arguments() -> dict[str, object]:
    """The arrays of the space's cost table as `cost_estimate` takes them."""
    table = SPACE.cost_table()
    sizes = tuple(len(SPACE.decisions[decision].choices) for decision in table.context_decisions)
    return {
        "constant": table.constant,
        "entries": table.entries,
        "context_decisions": table.context_decisions,
        "context_sizes": sizes,
        "cell_edges": table.cell_edges,
        "zero_choice": table.zero_choice,
    }


def require_equal(genes: npt.NDArray[np.int64], macs: dict[str, list[float]]) -> None:
    """Stop where the ways of counting disagree: a comparison of speed needs one answer."""
    column = SPACE.cost_table().metrics.index("macs")
    expected = cost_estimate(genes, **table_arguments())[:, column].tolist()  # type: ignore[arg-type]
    for counter, counted in macs.items():
        if counted != expected:
            raise SystemExit(f"{counter} counts other MACs than the table: {counted} against {expected}")


def report_goals(rows: Sequence[Row], all_cells: str, few_cells: str, counters: Sequence[str], cells: int) -> None:
    """Print what the native estimate was meant to reach beside what it reached."""
    rate = median_of(rows, all_cells, "native")
    report_goal("one architecture", 1e6 / rate, 1, "us", at_most=True)
    report_goal(all_cells, 1e3 * cells / rate, 10, "ms", at_most=True)
    for counter in counters:
        report_goal(f"against {counter}", rate / median_of(rows, few_cells, counter), 10_000, "times as fast")


def main() -> None:
    """Time all ways, in turn: the table's two on all cells, the counters on a few."""
    options = arguments(__doc__ or "").parse_args()
    logging.getLogger("fvcore").setLevel(logging.ERROR)  # it warns about each operator that has no MACs
    warnings.filterwarnings("ignore", module="torch.jit")  # fvcore traces with an interface that torch has deprecated
    genes = np.array(list(SPACE.diagram), dtype=np.int64)
    table = table_arguments()
    variants: dict[str, Callable[[], object]] = {
        "numpy reference": lambda: cost_estimate_reference(genes, **table),  # type: ignore[arg-type]
    }
    if native.available():
        variants["native"] = lambda: cost_estimate(genes, **table)  # type: ignore[arg-type]
    all_cells = f"all {len(genes)} cells"
    rows = rate_rows(all_cells, interleaved_seconds(variants, 5 if options.quick else 50), len(genes), "1/s")

    rng = np.random.default_rng(0)
    chosen = genes[rng.choice(len(genes), 4 if options.quick else 16, replace=False)]
    architectures = [Architecture(SPACE.name, tuple(row)) for row in chosen.tolist()]
    counters: dict[str, Counter] = {
        "torch FlopCounterMode": flop_counter_macs,
        "fvcore": fvcore_macs,
        "thop": thop_macs,
        "ptflops": ptflops_macs,
    }
    require_equal(chosen, {name: count_each(architectures, counter) for name, counter in counters.items()})
    slow = {name: lambda counter=counter: count_each(architectures, counter) for name, counter in counters.items()}
    seconds = interleaved_seconds(slow, 2 if options.quick else 3)
    few_cells = f"{len(architectures)} random cells"
    rows += rate_rows(few_cells, seconds, len(architectures), "1/s")
    write_rows(rows, options.out)
    if native.available():
        report_goals(rows, all_cells, few_cells, list(counters), len(genes))


if __name__ == "__main__":
    main()
