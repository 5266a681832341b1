"""The methods that a benchmark compares: names for a controller, its options and how many it proposes at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from nas_engine import registry
from nas_engine.config import component
from nas_engine.errors import ConfigError, nearest_hint
from nas_engine.proxies.base import ProxyScores
from nas_engine.spaces.base import SearchSpace


@dataclass(frozen=True)
class Method:
    """A controller as it takes part in a benchmark.

    Attributes:
        label: how it is named in results.
        controller: name of the controller.
        options: its options; the rest keeps its defaults.
        batch: architectures that it proposes before it learns.
    """

    label: str
    controller: str
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that its results depend on, defaults included; plain values for JSON."""
        options = component("controller", {"name": self.controller, **self.options}).options
        return {"controller": self.controller, "options": options.model_dump(mode="json"), "batch": self.batch}

    @property
    def proxies(self) -> tuple[str, ...]:
        """Names of the zero-cost proxies that it asks for; most methods ask for none."""
        chosen = component("controller", {"name": self.controller, **self.options})
        return tuple(getattr(chosen.options, "proxies", ()))

    def build(self, space: SearchSpace, seed: int, proxies: ProxyScores | None = None) -> Any:
        """A fresh controller of `space`, with `proxies` where it asks for some."""
        chosen = component("controller", {"name": self.controller, **self.options})
        return chosen.factory(space, chosen.options, seed, *(() if proxies is None else (proxies,)))


# Chosen on the reward val12_cifar10 of NAS-Bench-201 alone, as all settings here and the defaults of ppo-model.
_FEW_EVALUATIONS = {
    "replay": 48,
    "replay_scale": 2.0,
    "learning_rate": 0.01,
    "max_grad_norm": 10.0,
    "self_imitation_weight": 0.0,
    "entropy_floor": 0.3,
    "initial_design": 10,
    "incumbent_bonus": 2.0,
    "likeliest_of": [16],
    "patience": 25,
    "hidden_size": 24,
    "embedding_size": 16,
}

# One line a method. Methods that learn from single rewards are asked for one architecture at a time.
_METHODS = (
    Method("random", "random"),
    Method("evolution", "evolution", {"population_size": 30, "sample_size": 10}),
    Method("evolution-published", "evolution", {"population_size": 10, "sample_size": 3}),
    Method("local-search", "local-search"),
    Method("tpe", "optuna", {"sampler": "tpe"}),
    Method("thompson", "thompson"),
    Method("gp", "gp"),
    Method("reinforce-published", "reinforce-published"),
    Method("reinforce", "reinforce", _FEW_EVALUATIONS),
    Method("ppo", "ppo", {**_FEW_EVALUATIONS, "epochs": 1}),
    Method("ppo-model", "ppo-model"),
)
METHODS: Mapping[str, Method] = {method.label: method for method in _METHODS}


def parse_methods(text: str) -> list[Method]:
    """Read ``random,ppo,ppo:learning_rate=0.01:batch=5``.

    Args:
        text: names separated by commas: those of `METHODS` and of all controllers. Options, and ``batch``, follow
            after colons.

    Raises:
        ConfigError: an unknown method or option, a method twice, or none.
    """
    parts = re.split(r",(?![^\[]*\])", text)  # a comma within brackets belongs to a list of values
    found = [_parse(part.strip()) for part in parts if part.strip()]
    labels = [method.label for method in found]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice or not found:
        problem = f"method {twice[0]!r} is named twice" if twice else "no method is named"
        raise ConfigError(f"{problem}: --methods takes different ones, separated by commas, for example random,ppo")
    return found


def _parse(text: str) -> Method:
    name, *settings = text.split(":")
    known = METHODS.get(name)
    if known is None and name not in registry.names("controller"):
        raise ConfigError(f"unknown method {name!r}: {nearest_hint(name, {*METHODS, *registry.names('controller')})}")
    base = known or Method(name, name)
    options = dict(base.options)
    for setting in settings:
        option, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"method {text!r}: write options as NAME=VALUE, got {setting!r}")
        try:
            options[option] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"method {text!r}: {value!r} is no value; write a number, a name or [1, 2]") from None
    batch = options.pop("batch", base.batch)
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise ConfigError(f"method {text!r}: batch must be a whole number of at least 1, got {batch!r}")
    component("controller", {"name": base.controller, **options})  # refuses what the controller does not take
    return Method(text, base.controller, options, batch)
