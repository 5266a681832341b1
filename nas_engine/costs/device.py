"""Costs on a device as sums over the choices of an architecture, from a table of that device."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from nas_engine.costs.device_file import ContextCosts, Cost, DeviceFile, read_device_file
from nas_engine.errors import ConfigError, nearest_hint
from nas_engine.ops.cost_estimate import cost_estimate
from nas_engine.options import Options, located
from nas_engine.spaces.base import CostTable, SearchSpace
from nas_engine.types import Architecture, Decision

FloatArray = npt.NDArray[np.float64]


class DeviceOptions(Options):
    """Where the table is."""

    path: Annotated[str, AfterValidator(located)] = Field(
        "", description="JSON file with the costs of every choice on a device (format: docs/extend.md)"
    )


class DeviceCost:
    """Cost model over the table of a device: a constant and one entry for each choice, by context.

    In a cell only edges on a path from input to output count, as for parameters and MACs. An architecture with a
    choice that was not measured costs NaN.

    Attributes:
        table: the costs as `cost_estimate` takes them, to price them with other tables in one call.
    """

    Options = DeviceOptions

    def __init__(self, space: SearchSpace, options: DeviceOptions = DeviceOptions()) -> None:
        """Read the table into memory.

        Args:
            space: whose choices it prices.
            options: where it is.

        Raises:
            ConfigError: there is no such file, it does not have the documented format, or it is for other networks.
        """
        if not options.path:
            raise ConfigError("cost 'device' needs 'path': give a JSON file with the costs of every choice")
        self.space = space
        self.options = options
        self.table = device_table(space, read_device_file(options.path), f"device table {options.path!r}")
        self._prices = space.prices(self.table)

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics of the file."""
        return self.table.metrics

    def estimate(self, architectures: Sequence[Architecture]) -> FloatArray:
        """Costs of valid architectures of the space, float64 [n, metrics]; NaN where a choice was not measured."""
        return cost_estimate(self.space.genes(architectures), self._prices).measures


def device_table(space: SearchSpace, file: DeviceFile, source: str) -> CostTable:
    """The table of a device's file.

    Args:
        space: whose choices it prices.
        file: as read.
        source: what error messages call the file.

    Raises:
        ConfigError: the file is for other networks, or names, leaves out or repeats something wrongly.
    """
    _check_networks(space, file, source)
    names = [decision.name for decision in space.decisions]
    context = tuple(_position(f"{source}: context", name, names) for name in file.context)
    rows: dict[tuple[int, ...], tuple[FloatArray, FloatArray]] = {}
    for number, costs in enumerate(file.tables):
        where = f"{source}: tables[{number}]"
        key = _context_of(where, costs.context, file.context, space.decisions, context)
        if key in rows:
            raise ConfigError(f"{where} is the second one with the context {costs.context}; remove one of them")
        rows[key] = _costs(where, costs, file, space.decisions)
    combinations = list(itertools.product(*(range(len(space.decisions[d].choices)) for d in context)))
    for key in combinations:
        if key not in rows:
            choices = [f"{names[d]} {space.decisions[d].choices[g]}" for d, g in zip(context, key, strict=True)]
            raise ConfigError(f"{source} has no table for {', '.join(choices)}; add one to 'tables'")
    counted = space.cost_table()
    return CostTable(
        metrics=file.metrics,
        context_decisions=context,
        constant=np.stack([rows[key][0] for key in combinations]),
        entries=np.stack([rows[key][1] for key in combinations]),
        cell_edges=counted.cell_edges,
        zero_choice=counted.zero_choice,
    )


def _check_networks(space: SearchSpace, file: DeviceFile, source: str) -> None:
    if file.space != space.name:
        raise ConfigError(f"{source} is for the space {file.space!r}, this search has {space.name!r}; name its table")
    shape = (space.shape.channels, space.shape.height, space.shape.width, space.shape.classes)
    if file.shape not in (None, shape):
        raise ConfigError(
            f"{source} is for images and classes of shape {list(file.shape or ())}, these are {list(shape)}; measure "
            "again, or remove 'shape' if the costs hold for both"
        )
    options = getattr(space, "options", None)
    actual = options.model_dump(mode="json") if isinstance(options, Options) else {}
    for name, value in file.options.items():
        if name not in actual:
            raise ConfigError(f"{source}: {name!r} is no option of {space.name!r}: {nearest_hint(name, actual)}")
        if actual[name] != value:
            raise ConfigError(
                f"{source} is for {name} {value}, this search has {actual[name]}; set space.{name}, measure again, or "
                f"remove {name!r} from 'options' if the costs hold for both"
            )


def _position(where: str, name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise ConfigError(f"{where} has no {name!r}: {nearest_hint(name, names)}")
    return names.index(name)


def _require_names(where: str, given: Iterable[str], wanted: Sequence[str], allowed: Sequence[str]) -> None:
    for name in given:
        _position(where, name, allowed)
    missing = [name for name in wanted if name not in given]
    if missing:
        raise ConfigError(f"{where} lacks {missing[0]!r}; add it (null where it was not measured)")


def _context_of(
    where: str,
    choices: Mapping[str, str],
    context: Sequence[str],
    decisions: Sequence[Decision],
    positions: Sequence[int],
) -> tuple[int, ...]:
    _require_names(f"{where}.context", choices, context, context)
    return tuple(
        _position(f"{where}.context.{name}", choices[name], decisions[position].choices)
        for name, position in zip(context, positions, strict=True)
    )


def _costs(
    where: str, costs: ContextCosts, file: DeviceFile, decisions: Sequence[Decision]
) -> tuple[FloatArray, FloatArray]:
    """Constant [metrics] and entries [decisions, max_choices, metrics] of one context."""
    names = [decision.name for decision in decisions if decision.name not in file.context]
    _require_names(f"{where}.entries", costs.entries, names, names)
    most = max(len(decision.choices) for decision in decisions)
    entries = np.zeros((len(decisions), most, len(file.metrics)))
    for position, decision in enumerate(decisions):
        if decision.name in file.context:
            continue
        place, row = f"{where}.entries[{decision.name!r}]", costs.entries[decision.name]
        _require_names(place, row, decision.choices, decision.choices)
        for gene, choice in enumerate(decision.choices):
            entries[position, gene] = _numbers(f"{place}[{choice!r}]", row[choice], file.metrics)
    return _numbers(f"{where}.constant", costs.constant, file.metrics), entries


def _numbers(where: str, values: Sequence[Cost], metrics: Sequence[str]) -> FloatArray:
    if len(values) != len(metrics):
        raise ConfigError(
            f"{where} has {len(values)} numbers {list(values)}: give one for each of {', '.join(metrics)}"
        )
    return np.array([math.nan if value is None else value for value in values])
