"""Makes the file of a device from whole networks that were measured on it: what each choice adds, by least squares."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nas_engine.costs.base import CostModel
from nas_engine.costs.device import device_table
from nas_engine.costs.device_file import ContextCosts, Cost, DeviceFile
from nas_engine.errors import ConfigError
from nas_engine.ops.cost_estimate import cost_estimate
from nas_engine.options import Options
from nas_engine.spaces.base import CostTable, SearchSpace
from nas_engine.types import Architecture

FloatArray = npt.NDArray[np.float64]
_HELD_OUT = 5  # every fifth architecture


class DeviceFit(NamedTuple):
    """A fitted table and how well it foretells.

    Attributes:
        file: the table; ``Path("phone.json").write_text(file.model_dump_json(indent=1))`` keeps it.
        errors: median of ``abs(predicted / measured - 1)`` for each metric, over architectures that were held out.
        held_out: how many these are.
    """

    file: DeviceFile
    errors: tuple[float, ...]
    held_out: int


def fit_device_file(
    space: SearchSpace, measured: CostModel, *, samples: int = 500, seed: int = 0, device: str = ""
) -> DeviceFit:
    """Measure random architectures and fit a constant and an entry for each choice, in each context of the space.

    Costs that do not add up over choices (operations that run in parallel, caches) are approximated: see `errors`.
    A choice that no measured architecture uses is null in the file.

    Args:
        space: whose choices get a cost.
        measured: for example `MeasuredLatency` on this machine, or a `LookupCost`.
        samples: architectures to measure, a fifth of them held out. A context needs more of them than it has choices.
        seed: of the sample.
        device: kept in the file.

    Raises:
        ConfigError: a context has no measured architecture.
    """
    rng = np.random.default_rng(seed)
    architectures = space.samples(rng, samples)
    costs = measured.estimate(architectures)
    known = np.isfinite(costs).all(axis=1)
    fitted = known & (np.arange(samples) % _HELD_OUT > 0)
    context, used = _uses(space, architectures)
    decisions = [space.decisions[position] for position in space.cost_table().context_decisions]
    tables = []
    for number, choices in enumerate(itertools.product(*(decision.choices for decision in decisions))):
        names = {decision.name: choice for decision, choice in zip(decisions, choices, strict=True)}
        rows = fitted & (context == number)
        if not rows.any():
            raise ConfigError(f"none of {samples} samples of {space.name!r} was measured with {names}; raise samples")
        tables.append(_fit(space, names, used[rows], costs[rows]))
    shape = (space.shape.channels, space.shape.height, space.shape.width, space.shape.classes)
    options = getattr(space, "options", None)
    file = DeviceFile(
        space=space.name,
        device=device,
        shape=shape,
        options=options.model_dump(mode="json") if isinstance(options, Options) else {},
        metrics=measured.names,
        context=tuple(decision.name for decision in decisions),
        tables=tuple(tables),
    )
    held_out = known & ~fitted
    prices = space.prices(device_table(space, file, "the fitted table"))
    errors = np.abs(cost_estimate(space.genes(architectures), prices).measures[held_out] / costs[held_out] - 1)
    medians = [float(np.nanmedian(column)) if np.isfinite(column).any() else math.nan for column in errors.T]
    return DeviceFit(file, tuple(medians), int(held_out.sum()))


def _uses(space: SearchSpace, architectures: Sequence[Architecture]) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Context [n], and which choices each architecture pays for [n, decisions, choices], 0 or 1.

    Both are counts themselves, so the tables of the space say them: that of its contexts, and one in which every
    choice is a metric of its own.
    """
    counted = space.cost_table()
    decisions, most = len(space.decisions), max(len(decision.choices) for decision in space.decisions)
    numbers = np.arange(len(counted.constant))[:, None]
    size = decisions * most
    single = np.eye(size, dtype=np.int64).reshape(1, decisions, most, size)
    constant = np.zeros((1, size), dtype=np.int64)
    choices = CostTable(tuple(map(str, range(size))), (), constant, single, counted.cell_edges, counted.zero_choice)
    contexts = CostTable(("context",), counted.context_decisions, numbers, None)
    counts = cost_estimate(space.genes(architectures), space.prices(contexts, choices)).counts
    return counts[:, 0], counts[:, 1:].reshape(-1, decisions, most).astype(np.float64)


def _fit(space: SearchSpace, context: dict[str, str], used: FloatArray, costs: FloatArray) -> ContextCosts:
    """The least-squares costs of one context; of all solutions the smallest, for choices that always go together."""
    counted = space.cost_table()
    free = np.ones(used.shape[1:], dtype=bool)
    free[list(counted.context_decisions)] = False
    if counted.cell_edges is not None:
        free[:, counted.zero_choice] = False  # what is never built costs nothing
    columns = np.column_stack([np.ones(len(used)), used[:, free]])
    solution, *_ = np.linalg.lstsq(columns, costs, rcond=None)
    entries = np.zeros((*free.shape, costs.shape[1]))
    entries[free] = solution[1:]
    entries[free & ~used.any(axis=0)] = math.nan
    return ContextCosts(
        context=context,
        constant=_costs(solution[0]),
        entries={
            decision.name: {choice: _costs(entries[position, gene]) for gene, choice in enumerate(decision.choices)}
            for position, decision in enumerate(space.decisions)
            if decision.name not in context
        },
    )


def _costs(values: FloatArray) -> tuple[Cost, ...]:
    return tuple(None if math.isnan(value) else value for value in values.tolist())
