"""How fast costs and rewards of many architectures are computed in one call: python cost_estimate.py [--quick].

Parameters and MACs of all NAS-Bench-201 cells against NumPy and against counters that walk each network; with peak
memory, and with a latency and a reward too, against NumPy and against Python for each architecture.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import thop
import torch
from fvcore.nn import FlopCountAnalysis
from ptflops import get_model_complexity_info
from record import Row, arguments, interleaved_seconds, median_of, rate_rows, report_goal, write_rows
from torch.utils.flop_counter import FlopCounterMode

from nas_engine import native
from nas_engine.objectives import soft_power
from nas_engine.ops.cost_estimate import cost_estimate
from nas_engine.ops.cost_estimate import cost_estimate_reference as reference
from nas_engine.ops.cost_table import CostTable, PriceList
from nas_engine.spaces.base import SearchSpace
from nas_engine.spaces.mobilenet import MobileNetSpace
from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
from nas_engine.types import Architecture, ImageShape, Metrics

SHAPE = ImageShape(channels=3, height=32, width=32, classes=10)
SPACE = NASBench201Space(SHAPE, NASBench201Options(channels=16, cells=5, allow_disconnected=True))
CELLS = SPACE.size
MOBILENETS = MobileNetSpace(SHAPE)

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


def latency_table(space: SearchSpace) -> CostTable:
    """Random latencies of every operation, as a table of a device has them."""
    counted, rng = space.cost_table(), np.random.default_rng(0)
    entries = counted.entries
    assert entries is not None
    shape = (*entries.shape[:-1], 1)
    return replace(counted, metrics=("latency_ms",), constant=rng.random((shape[0], 1)), entries=rng.random(shape))


def price_lists(space: SearchSpace) -> tuple[PriceList, PriceList, PriceList]:
    """Parameters and MACs; with peak memory; with a latency too."""
    memory = space.memory_table()
    assert memory is not None
    counted = space.cost_table()
    return space.prices(counted), space.prices(counted, memory), space.prices(counted, memory, latency_table(space))


def pricing_rows(
    case: str, space: SearchSpace, architectures: Sequence[Architecture], repeats: int
) -> tuple[list[Row], list[str]]:
    """Time the three price lists, each in native code, in NumPy and, where the search did so before, in Python.

    Returns:
        The rows, and the names of the three cases.
    """
    genes, (counts, with_memory, with_latency) = space.genes(architectures), price_lists(space)
    objective, accuracy = soft_power("latency_ms", target=3.0), np.random.default_rng(0).random(len(genes))

    def peaks_in_python() -> None:
        cost_estimate(genes, counts)
        for architecture in architectures:
            space.peak_activation_bytes(architecture)

    def rewards_in_python() -> None:
        latencies = cost_estimate(genes, with_latency).measures[:, 0].tolist()
        for score, latency in zip(accuracy.tolist(), latencies, strict=True):
            objective(Metrics({"accuracy": score, "latency_ms": latency}))

    cases = [case, f"{case}, with peak memory", f"{case}, with peak memory, latency and reward"]
    ways: list[dict[str, Callable[[], object]]] = [
        {"native": lambda: cost_estimate(genes, counts), "numpy reference": lambda: reference(genes, counts)},
        {
            "native": lambda: cost_estimate(genes, with_memory),
            "numpy reference": lambda: reference(genes, with_memory),
            "native counts, peaks in Python": peaks_in_python,
        },
        {
            "native": lambda: cost_estimate(genes, with_latency, objective.formula, accuracy),
            "numpy reference": lambda: reference(genes, with_latency, objective.formula, accuracy),
            "native costs, rewards in Python": rewards_in_python,
        },
    ]
    rows: list[Row] = []
    for name, variants in zip(cases, ways, strict=True):
        usable = {way: run for way, run in variants.items() if native.available() or "native" not in way}
        rows += rate_rows(name, interleaved_seconds(usable, repeats), len(genes), "1/s")
    return rows, cases


def require_equal(genes: npt.NDArray[np.int64], macs: dict[str, list[float]]) -> None:
    """Stop where the ways of counting disagree: a comparison of speed needs one answer."""
    prices = price_lists(SPACE)[0]
    expected = cost_estimate(genes, prices).counts[:, prices.names.index("macs")].tolist()
    for counter, counted in macs.items():
        if counted != expected:
            raise SystemExit(f"{counter} counts other MACs than the table: {counted} against {expected}")


def report_goals(rows: Sequence[Row], cases: Sequence[str], few_cells: str, counters: Sequence[str]) -> None:
    """Print what the native estimate was meant to reach beside what it reached."""
    for case in cases:
        rate = median_of(rows, case, "native")
        report_goal(f"one architecture of {case}", 1e6 / rate, 1, "us", at_most=True)
    rate = median_of(rows, cases[0], "native")
    report_goal(cases[0], 1e3 * CELLS / rate, 10, "ms", at_most=True)
    for counter in counters:
        report_goal(f"against {counter}", rate / median_of(rows, few_cells, counter), 10_000, "times as fast")


def main() -> None:
    """Time all ways in turn: tables and formulas on many architectures, the counters on a few."""
    options = arguments(__doc__ or "").parse_args()
    logging.getLogger("fvcore").setLevel(logging.ERROR)  # it warns about each operator that has no MACs
    warnings.filterwarnings("ignore", module="torch.jit")  # fvcore traces with an interface that torch has deprecated
    rng, repeats = np.random.default_rng(0), 3 if options.quick else 30
    cells = list(SPACE)
    rows, cases = pricing_rows(f"all {CELLS} cells", SPACE, cells, repeats)
    mobilenets = [MOBILENETS.sample(rng) for _ in range(1_000 if options.quick else 10_000)]
    more_rows, more_cases = pricing_rows(f"{len(mobilenets)} random mobilenets", MOBILENETS, mobilenets, repeats)
    rows += more_rows

    architectures = [cells[i] for i in rng.choice(CELLS, 4 if options.quick else 16, replace=False)]
    counters: dict[str, Counter] = {
        "torch FlopCounterMode": flop_counter_macs,
        "fvcore": fvcore_macs,
        "thop": thop_macs,
        "ptflops": ptflops_macs,
    }
    counted = {name: count_each(architectures, counter) for name, counter in counters.items()}
    require_equal(SPACE.genes(architectures), counted)
    slow = {name: lambda counter=counter: count_each(architectures, counter) for name, counter in counters.items()}
    few_cells = f"{len(architectures)} random cells"
    rows += rate_rows(few_cells, interleaved_seconds(slow, 2 if options.quick else 3), len(architectures), "1/s")
    write_rows(rows, options.out)
    if native.available():
        report_goals(rows, [*cases, *more_cases], few_cells, list(counters))


if __name__ == "__main__":
    main()
