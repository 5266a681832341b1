"""Names to factories: the built-in components, those a program registers, and those of installed entry points."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any, Protocol

from nas_engine.errors import ConfigError, MissingExtraError, nearest_hint


class Factory(Protocol):
    """A component class: its options model, and how it is built from them (see the base module of its kind)."""

    Options: Any

    def __call__(self, *arguments: Any) -> Any:
        """Build the component."""
        ...


# "module:attribute", imported on first use: `python -m nas_engine --help` must not load torch.
_BUILT_IN: dict[str, dict[str, str]] = {
    "space": {
        "nasbench201": "nas_engine.spaces.nasbench201:NASBench201Space",
        "mobilenet": "nas_engine.spaces.mobilenet:MobileNetSpace",
    },
    "controller": {
        "ppo": "nas_engine.controllers.ppo:PPOController",
        "reinforce": "nas_engine.controllers.reinforce:ReinforceController",
        "ppo-model": "nas_engine.controllers.ppo_model:PPOModelController",
        "sb3": "nas_engine.controllers.sb3:SB3Controller",
        "random": "nas_engine.baselines.random:RandomController",
        "evolution": "nas_engine.baselines.evolution:EvolutionController",
        "local-search": "nas_engine.baselines.local_search:LocalSearchController",
        "thompson": "nas_engine.baselines.thompson:ThompsonController",
        "gp": "nas_engine.baselines.gaussian_process:GaussianProcessController",
        "optuna": "nas_engine.baselines.optuna:OptunaController",
        "reinforce-published": "nas_engine.baselines.categorical_reinforce:CategoricalReinforceController",
    },
    "evaluator": {
        "supernet": "nas_engine.evaluators.supernet:SupernetEvaluator",
        "tabular": "nas_engine.evaluators.tabular:TabularEvaluator",
        "training": "nas_engine.evaluators.training:TrainingEvaluator",
    },
    "cost": {
        "lookup": "nas_engine.costs.lookup:LookupCost",
        "measured": "nas_engine.costs.measured:MeasuredLatency",
    },
    "objective": {
        "accuracy": "nas_engine.objectives:Accuracy",
        "weighted_sum": "nas_engine.objectives:WeightedSum",
        "soft_power": "nas_engine.objectives:SoftPower",
        "absolute": "nas_engine.objectives:Absolute",
    },
}
_registered: dict[tuple[str, str], Factory] = {}


def register(kind: str, name: str, factory: Factory) -> None:
    """Make `factory` available under `name` in this process.

    Installed packages do the same with an entry point in the group ``nas_engine.<kind>``.

    Args:
        kind: ``space``, ``controller``, ``evaluator``, ``cost`` or ``objective``.
        name: the name users write in YAML and on the command line.
        factory: a class with a nested `Options` model, called as the built-in classes of its kind are.

    Raises:
        ConfigError: the kind does not exist or the name is taken.
    """
    if kind not in _BUILT_IN:
        raise ConfigError(f"unknown component kind {kind!r}: {nearest_hint(kind, _BUILT_IN)}")
    if name in names(kind):
        raise ConfigError(f"{kind} {name!r} exists already; register it under another name")
    _registered[kind, name] = factory


def names(kind: str) -> list[str]:
    """Sorted names of all components of `kind`, without importing any."""
    own = [name for registered_kind, name in _registered if registered_kind == kind]
    return sorted({*_BUILT_IN[kind], *own, *(point.name for point in _entry_points(kind))})


def resolve(kind: str, name: str) -> Factory:
    """The factory called `name`.

    Raises:
        ConfigError: there is none; the message names the nearest one.
        MissingExtraError: the component needs a package that is not installed.
    """
    if (kind, name) in _registered:
        return _registered[kind, name]
    if name in _BUILT_IN[kind]:
        module, attribute = _BUILT_IN[kind][name].split(":")
        try:
            factory: Factory = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"{kind} {name!r} needs the package {error.name!r}: pip install {error.name}"
            ) from error
        return factory
    for point in _entry_points(kind):
        if point.name == name:
            loaded: Factory = point.load()
            return loaded
    raise ConfigError(f"unknown {kind} {name!r}: {nearest_hint(name, names(kind))}")


def _entry_points(kind: str) -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=f"nas_engine.{kind}")
