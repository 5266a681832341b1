"""Draws a finished search: scores and entropy over the evaluations, and the trade-off of accuracy against MACs.

python plot_search.py ../runs/NAME ../docs/search.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from nas_engine.result import SearchResult
from nas_engine.types import Trial

mpl.use("Agg")
from matplotlib import pyplot as plt


def main() -> None:
    """Draw the run named first into the file named second."""
    run, target = Path(sys.argv[1]), Path(sys.argv[2])
    result = SearchResult(run)
    trials = [trial for trial in result.trials if trial.phase == "search" and trial.metrics and not trial.cached]
    events = [json.loads(line) for line in (run / "search.jsonl").read_text().splitlines()]
    figure, (progress, tradeoff) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    _draw_progress(progress, trials, [event for event in events if event["event"] == "step"])
    _draw_tradeoff(tradeoff, trials, result)
    data, controller = result.data["source"], result.config.controller.name
    figure.suptitle(f"{Path(data).stem}: {controller} on {result.config.space.name}, scored by the supernet")
    figure.savefig(target, dpi=110)


def _draw_progress(axes: Any, trials: list[Trial], steps: list[dict[str, Any]]) -> None:
    scores = np.array([100 * trial.outcome.values["accuracy"] for trial in trials])
    numbers = np.arange(1, len(scores) + 1)
    axes.plot(numbers, scores, ".", color="0.6", label="architecture")
    axes.plot(numbers, np.maximum.accumulate(scores), color="C0", label="best so far")
    axes.set(xlabel="evaluations", ylabel="validation accuracy of the path, %")
    entropy = axes.twinx()
    with_entropy = [step for step in steps if step.get("entropy") is not None]
    entropy.plot(
        [step["evaluations"] for step in with_entropy],
        [step["entropy"] for step in with_entropy],
        color="C1",
        label="policy entropy",
    )
    entropy.set(ylabel="entropy, nats a decision", ylim=(0, None))
    handles = [handle for each in (axes, entropy) for handle in each.get_legend_handles_labels()[0]]
    axes.legend(handles=handles, loc="lower right")


def _draw_tradeoff(axes: Any, trials: list[Trial], result: SearchResult) -> None:
    axes.scatter(
        [trial.outcome.values["macs"] / 1e6 for trial in trials],
        [100 * trial.outcome.values["accuracy"] for trial in trials],
        c=[trial.number for trial in trials],
        s=14,
        cmap="viridis",
        label="architecture (later: lighter)",
    )
    front = result.pareto_front
    axes.plot(
        [trial.outcome.values["macs"] / 1e6 for trial in front],
        [100 * trial.outcome.values["accuracy"] for trial in front],
        "o-",
        color="C3",
        markerfacecolor="none",
        label="non-dominated in accuracy and all costs",
    )
    axes.set(xlabel="million MACs", ylabel="validation accuracy of the path, %")
    axes.legend(loc="lower right")


if __name__ == "__main__":
    main()
