"""Settings from the command line: options have the names of the configuration, whatever those are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from nas_engine.errors import ConfigError


def parse_arguments(arguments: Sequence[str]) -> tuple[Path | None, dict[str, Any]]:
    """Split ``[FILE.yaml] [--name value | --name=value]...`` into the file and the settings.

    Values are read as YAML; an option given several times becomes a list.

    Raises:
        ConfigError: an option without a value, or more than one file.
    """
    file: Path | None = None
    found: dict[str, list[Any]] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            if file is not None or word.startswith("-"):
                raise ConfigError(f"unexpected argument {word!r}: one FILE.yaml, then options such as --seed 1")
            file = Path(word)
            continue
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"option --{name} needs a value, for example --{name} VALUE")
            value = rest.pop(0)
        found.setdefault(name, []).append(_value(name, value))
    return file, {name: v[0] if len(v) == 1 and name != "constraints" else v for name, v in found.items()}


def _value(name: str, text: str) -> Any:
    if name in {"constraints", "run", "data"}:  # plain text, which YAML might take apart
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"option --{name}: {text!r} is no YAML value; quote it") from error
