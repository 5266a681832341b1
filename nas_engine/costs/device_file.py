"""The file of a device: JSON that says what each choice costs on it, checked as it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from nas_engine.errors import ConfigError, nearest_hint
from nas_engine.options import Options

Cost = Annotated[float, Field(strict=True)] | None
"""A number, or null where it was not measured."""


class ContextCosts(Options):
    """Costs in one context; every list has one number for each metric of the file."""

    context: dict[str, str] = Field({}, description="decision of the context -> its choice")
    constant: tuple[Cost, ...] = Field(description="cost of everything that no decision changes")
    entries: dict[str, dict[str, tuple[Cost, ...]]] = Field(
        {}, description="decision -> choice -> costs; all but the decisions of the context must be there"
    )


class DeviceFile(Options):
    """What the file of a device holds."""

    space: str = Field(description="name of the space")
    device: str = Field("", description="what was measured, and how, in words")
    shape: tuple[int, int, int, int] | None = Field(None, description="channels, height, width, classes it holds for")
    options: dict[str, Any] = Field({}, description="options of the space that it holds for; others do not matter")
    metrics: tuple[str, ...] = Field(min_length=1, description="for example latency_ms, energy_mj")
    context: tuple[str, ...] = Field((), description="decisions on which all other entries depend")
    tables: tuple[ContextCosts, ...] = Field(min_length=1, description="one for each combination of their choices")

    @field_validator("metrics", "context")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names) or "" in names:
            raise ValueError("must be names without repeats")
        return names


def read_device_file(path: str) -> DeviceFile:
    """Read and check the file, apart from what only the space knows.

    Raises:
        ConfigError: there is no such file, it is no JSON, or it does not hold what `DeviceFile` says.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
        return DeviceFile.model_validate(content)
    except FileNotFoundError as error:
        raise ConfigError(f"device table {path!r} does not exist: name a .json file") from error
    except ValidationError as error:
        raise ConfigError(f"device table {path!r}: {_first_problem(error)}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read device table {path!r} as JSON: {' '.join(str(error).split())}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return found


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = "".join(_places(first["loc"])).lstrip(".") or "the file"
    if first["type"] == "missing":
        return f"{place} is missing; add it"
    if first["type"] == "extra_forbidden":
        fields = (ContextCosts if len(first["loc"]) > 1 else DeviceFile).model_fields
        return f"{place} is unknown: {nearest_hint(str(first['loc'][-1]), fields)}"
    value = repr(first["input"])
    return f"{place}: {first['msg']}, got {value if len(value) <= 80 else value[:77] + '...'}"


def _places(location: tuple[int | str, ...]) -> Iterator[str]:
    return (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
