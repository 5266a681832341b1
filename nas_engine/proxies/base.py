"""What a controller knows of zero-cost proxies: names and values, no networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nas_engine.errors import ConfigError, nearest_hint
from nas_engine.scores import FloatArray
from nas_engine.types import Architecture


class ProxyScores(Protocol):
    """Where a controller gets the values of proxies from, each architecture once.

    Attributes:
        names: of the proxies, the columns of what a call returns.
        seconds: what all calls so far have cost; whoever runs the search counts it in the budget.
    """

    names: tuple[str, ...]
    seconds: float

    def __call__(self, architectures: Sequence[Architecture]) -> FloatArray:
        """Values [n, proxies] of architectures in canonical form, higher is better; NaN where there is none."""
        ...


def check_proxy_names(names: Sequence[str], available: Sequence[str]) -> None:
    """Refuse proxies that nobody computes.

    Raises:
        ConfigError: one is not available, or is named twice.
    """
    for name in names:
        if name not in available:
            raise ConfigError(f"controller.proxies: unknown proxy {name!r}: {nearest_hint(name, available)}")
    if len(set(names)) < len(names):
        raise ConfigError(f"controller.proxies: {', '.join(names)} names one twice: name each once")
