"""The anytime plot: how far from the optimum each method still is, against what it has spent."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas_engine.errors import ConfigError, MissingExtraError
from nas_engine.spaces.table import TableSpace
from nas_engine.suite.run import SeedResult

FloatArray = npt.NDArray[np.float64]

_POINTS = 200


def require_matplotlib() -> None:
    """Refuse a plot before the work, not after it.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError('--plot needs matplotlib: pip install "nas-engine[bench]"') from error


def plot_anytime(path: Path, space: TableSpace, results: Sequence[SeedResult], title: str) -> None:
    """Draw the median regret of each method with its quartiles.

    Args:
        path: a file whose ending matplotlib knows, for example .png or .svg.
        space: gives the optimum, and whether there are simulated seconds.
        results: all seeds of all methods.
        title: of the plot.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ConfigError: the file cannot be written.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    by_seconds = space.table.costs is not None
    for (method, group), style in zip(_by_method(results), itertools.cycle(("-", "--", "-.", ":")), strict=False):
        grid, regrets = regret_curves(space, group, by_seconds=by_seconds)
        low, median, high = np.quantile(regrets, [0.25, 0.5, 0.75], axis=0)
        (line,) = axes.plot(grid, median, style, label=method)
        axes.fill_between(grid, low, high, alpha=0.1, color=line.get_color(), linewidth=0)
    _label(axes, space, title, by_seconds=by_seconds)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot draw {str(path)!r} ({error}): name a .png, .svg or .pdf") from error


def regret_curves(
    space: TableSpace, results: Sequence[SeedResult], *, by_seconds: bool
) -> tuple[FloatArray, FloatArray]:
    """Distance of the best reward so far from the optimum, on a common grid.

    Args:
        space: gives the optimum.
        results: seeds of one method.
        by_seconds: whether the grid is in simulated seconds, otherwise in evaluations.

    Returns:
        The grid [points], from where every seed has seen something to where the longest ends, and regrets
        [seeds, points] of at least 0. A seed that ended sooner keeps its last value.
    """
    which = 1 if by_seconds else 0
    improved = [np.array(result.improvements, dtype=np.float64) for result in results]
    start = max(steps[0, which] for steps in improved)
    end = max(_end(result, by_seconds) for result in results)
    grid = np.geomspace(start, max(end, start * 1.001), _POINTS)
    optimum = space.table.reward_of(space.optimum)
    best = [steps[np.searchsorted(steps[:, which], grid * (1 + 1e-9), side="right") - 1, 2] for steps in improved]
    return grid, np.abs(optimum - np.stack(best))


def _end(result: SeedResult, by_seconds: bool) -> float:
    last = result.improvements[-1]
    return max(result.simulated_seconds or 0.0, last[1]) if by_seconds else float(max(result.spent, last[0]))


def _by_method(results: Sequence[SeedResult]) -> list[tuple[str, list[SeedResult]]]:
    methods = dict.fromkeys(result.method for result in results)
    groups = [(m, [r for r in results if r.method == m and r.improvements]) for m in methods]
    return [(method, group) for method, group in groups if group]


def _label(axes: Any, space: TableSpace, title: str, *, by_seconds: bool) -> None:
    reward = space.table.description.reward.column
    axes.set_xscale("log")
    axes.set_xlabel("simulated seconds" if by_seconds else "evaluations")
    axes.set_ylabel(f"regret of {reward} (median, quartiles shaded)")
    # Logarithmic down to the second-best architecture, below which there is only the optimum, 0.
    distinct = np.unique(space.table.rewards)
    if len(distinct) > 1:
        axes.set_yscale("symlog", linthresh=float(distinct[-1] - distinct[-2]), linscale=0.5)
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
