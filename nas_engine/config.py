"""The settings of a search: one model, the same names in YAML, on the command line and in Python."""

from __future__ import annotations

import importlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from nas_engine import registry
from nas_engine.errors import ConfigError, nearest_hint
from nas_engine.options import Options, located

Model = TypeVar("Model", bound=BaseModel)

ExportFormat = Literal["onnx", "torch_export", "state_dict", "python"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = ("onnx", "torch_export", "state_dict", "python")


@dataclass(frozen=True)
class Component:
    """A component of a search by name, with its checked options."""

    kind: str
    name: str
    options: Options

    @property
    def factory(self) -> registry.Factory:
        """The class that the name stands for."""
        return registry.resolve(self.kind, self.name)


def component(kind: str, value: Any) -> Component:
    """Check a name, or a mapping ``{name: ..., option: value, ...}``.

    Raises:
        ConfigError: unknown name or option, or an option value that is not allowed.
    """
    if isinstance(value, Component):
        return value
    settings = {"name": value} if isinstance(value, str) else value
    if not isinstance(settings, Mapping) or not isinstance(settings.get("name"), str):
        raise ConfigError(f"{kind} {value!r} needs a name: {', '.join(registry.names(kind))}")
    options = {key: setting for key, setting in settings.items() if key != "name"}
    factory = registry.resolve(kind, settings["name"])
    return Component(kind, settings["name"], checked(factory.Options, options, f"{kind}."))


def _dump(value: Component) -> dict[str, Any]:
    return {"name": value.name, **value.options.model_dump(mode="json")}


def _section(name: str, value: Any = None) -> Options:
    """Options of a component that needs no name, imported on first use so that this module stays light."""
    module, attribute = _SECTIONS[name].split(":")
    model: type[Options] = getattr(importlib.import_module(module), attribute)
    return value if isinstance(value, model) else checked(model, {} if value is None else value, f"{name}.")


_AsDict = PlainSerializer(_dump, return_type=dict[str, Any])
_SectionDict = PlainSerializer(lambda value: value.model_dump(mode="json"), return_type=dict[str, Any])
_Space = Annotated[Component, BeforeValidator(lambda value: component("space", value)), _AsDict]
_Controller = Annotated[Component, BeforeValidator(lambda value: component("controller", value)), _AsDict]
_Evaluator = Annotated[Component, BeforeValidator(lambda value: component("evaluator", value)), _AsDict]
_Objective = Annotated[Component, BeforeValidator(lambda value: component("objective", value)), _AsDict]
_Cost = Annotated[Component, BeforeValidator(lambda value: component("cost", value)), _AsDict]

_COSTLY_EVALUATORS = ("training",)
_DEFAULTS = {"space": "nasbench201", "controller": "ppo", "evaluator": "supernet", "objective": "accuracy"}

# Where the options of the sections without a name live; `describe` reads them for the help texts.
_SECTIONS = {
    "training": "nas_engine.evaluators.training:TrainingOptions",
    "latency": "nas_engine.costs.measured:LatencyOptions",
}


class RetrainOptions(Options):
    """What happens after the search: which networks are trained from scratch, all in the same way."""

    candidates: int = Field(3, ge=1, description="best architectures of the search to retrain; validation picks one")
    random: int = Field(8, ge=0, description="random architectures retrained the same way, for comparison")


class ExportOptions(Options):
    """Which files of the winner are written, each checked by loading it back."""

    formats: tuple[ExportFormat, ...] = Field(EXPORT_FORMATS, description=f"any of {', '.join(EXPORT_FORMATS)}")


class SearchConfig(BaseModel):
    """Everything that determines a search; a run folder keeps it complete in ``config.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, arbitrary_types_allowed=True)

    data: Annotated[str, AfterValidator(lambda text: text if text == "digits" else located(text))] = Field(
        "digits", description="digits, FILE.npz, a folder of class folders, a CIFAR or an MNIST folder"
    )
    validation_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of the training images held out to choose by"
    )
    space: _Space = Field(default_factory=partial(component, "space", _DEFAULTS["space"]), description="search space")
    controller: _Controller = Field(
        default_factory=partial(component, "controller", _DEFAULTS["controller"]),
        description="what proposes architectures; by default ppo, with evaluator training ppo-model",
    )
    evaluator: _Evaluator = Field(
        default_factory=partial(component, "evaluator", _DEFAULTS["evaluator"]), description="what scores architectures"
    )
    objective: _Objective = Field(
        default_factory=partial(component, "objective", _DEFAULTS["objective"]),
        description="how metrics become a reward",
    )
    constraints: tuple[str, ...] = Field((), description="hard limits, for example 'macs <= 2e6'")
    costs: tuple[_Cost, ...] = Field((), description="more sources of costs, for example a latency table")
    evaluations: int = Field(400, ge=1, description="architectures to score; known ones are free")
    proposals_per_step: int = Field(10, ge=1, description="architectures the controller proposes before it learns")
    checkpoint_every: int = Field(1, ge=1, description="search steps between checkpoints")
    training: Annotated[Any, BeforeValidator(partial(_section, "training")), _SectionDict] = Field(
        default_factory=partial(_section, "training"), description="how networks are trained from scratch"
    )
    retrain: RetrainOptions = Field(RetrainOptions(), description="which networks are trained from scratch")
    latency: Annotated[Any, BeforeValidator(partial(_section, "latency")), _SectionDict] = Field(
        default_factory=partial(_section, "latency"), description="how latency is measured"
    )
    export: ExportOptions = Field(ExportOptions(), description="what is written at the end")
    device: str = Field("cpu", description="cpu, cuda or cuda:N")
    threads: int | None = Field(
        None, ge=1, description="CPU threads; by default 1 for small networks, where more only wait, else all cores"
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="same seed, same search")
    run: str | None = Field(None, description="run folder; by default runs/DATA-SPACE-CONTROLLER-N")

    def to_yaml(self) -> str:
        """The complete settings as YAML that `load_config` reads back."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        return text


def load_config(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> SearchConfig:
    """Settings from a YAML file and overrides; overrides win.

    Args:
        file: a YAML mapping, or None for the defaults.
        overrides: dotted names to values, for example ``{"space.channels": 16, "controller": "reinforce"}``.

    Raises:
        ConfigError: the file is missing or no mapping, or a name or value is not allowed.
    """
    settings = _read_yaml(file) if file is not None else {}
    # Components before their options, in whatever order they were given.
    ordered = sorted((overrides or {}).items(), key=lambda item: item[0].count("."))
    for name, value in ordered:
        if "." in name:
            _choose_controller(settings)
        _override(settings, name.split("."), value)
    _choose_controller(settings)
    config: SearchConfig = checked(SearchConfig, settings, "")
    return config


def describe() -> Iterator[tuple[str, str, str]]:
    """(dotted name, default, description) of every setting, with the options of the default components."""
    config = load_config()
    for name, field in SearchConfig.model_fields.items():
        value = getattr(config, name)
        options = value.options if isinstance(value, Component) else value
        yield name, value.name if isinstance(value, Component) else _default_text(options), field.description or ""
        if isinstance(options, Options):
            yield from describe_options(name, options)


def describe_options(prefix: str, options: Options) -> Iterator[tuple[str, str, str]]:
    """(dotted name, value, description) of the options of one component."""
    for name, field in type(options).model_fields.items():
        yield f"{prefix}.{name}", _default_text(getattr(options, name)), field.description or ""


def _default_text(value: Any) -> str:
    if isinstance(value, Options):
        return ""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return "none" if value is None else str(value)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {str(file)!r} ({error.strerror}): name an existing YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(file)!r} is not valid YAML: {' '.join(str(error).split())}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise ConfigError(f"{str(file)!r} must hold a mapping of settings, for example 'evaluations: 200'")
    return settings


def _override(settings: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *parents, last = path
    for parent in parents:
        inner = settings.get(parent)
        if not isinstance(inner, str | Mapping | None):
            raise ConfigError(f"{parent!r} is {inner!r}, which has no {last!r}: give a mapping of names to values")
        settings[parent] = {"name": inner} if isinstance(inner, str) else dict(inner or _default_section(parent))
        settings = settings[parent]
    current = settings.get(last)
    if isinstance(value, str) and isinstance(current, Mapping):
        # Another component keeps nothing of the options that were meant for the first one.
        value = dict(current) if current.get("name") == value else {"name": value}
    settings[last] = value


def _choose_controller(settings: dict[str, Any]) -> None:
    """Unless it is set: where an evaluation costs far more than a policy update, the one that needs the fewest."""
    evaluator = settings.get("evaluator")
    name = evaluator.get("name") if isinstance(evaluator, Mapping) else evaluator
    if name in _COSTLY_EVALUATORS:
        settings.setdefault("controller", "ppo-model")


def _default_section(name: str) -> dict[str, Any]:
    return {"name": _DEFAULTS[name]} if name in _DEFAULTS else {}


def checked(model: type[Model], settings: Mapping[str, Any], prefix: str) -> Model:
    """Validate settings against an options model.

    Args:
        model: the pydantic model.
        settings: names to values.
        prefix: what error messages put before a name, for example ``space.``.

    Raises:
        ConfigError: an unknown name (the nearest valid one is named) or a value that is not allowed.
    """
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{prefix.rstrip('.') or 'settings'} must be a mapping of names to values, got {settings!r}")
    _refuse_unknown_keys(model, settings, prefix)
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = prefix + ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise ConfigError(f"{name} is missing, and has no default") from error
        raise ConfigError(f"{name.rstrip('.')}: {first['msg']}, got {first['input']!r}") from error


def _refuse_unknown_keys(model: type[BaseModel], settings: Mapping[str, Any], prefix: str) -> None:
    for key, value in settings.items():
        field = model.model_fields.get(key)
        if field is None:
            hint = nearest_hint(str(key), model.model_fields)
            raise ConfigError(f"unknown setting {prefix + str(key)!r}: {hint}")
        nested = _model_of(field.annotation)
        if nested is not None and isinstance(value, Mapping):
            _refuse_unknown_keys(nested, value, f"{prefix}{key}.")


def _model_of(annotation: Any) -> type[BaseModel] | None:
    candidates = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel) and candidate is not Options:
            return candidate
    return None
