"""What the columns of a table mean: a small YAML file, checked like all settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, model_validator

from nas_engine.config import checked
from nas_engine.errors import ConfigError, nearest_hint
from nas_engine.limits import Constraint
from nas_engine.options import Options

DATA_VARIABLE = "NAS_ENGINE_DATA"
_BUILT_IN = files("nas_engine.tables") / "builtin"


class DecisionColumns(Options):
    """Which columns hold the decisions: several, or one that holds all decisions of a row as a text."""

    columns: tuple[str, ...] = Field((), description="one column a decision")
    column: str | None = Field(None, description="one column that holds all decisions; $key: the key of a JSON mapping")
    separator: str = Field("", description="what stands between the decisions in `column`; empty: one digit each")
    names: tuple[str, ...] = Field((), description="names of the decisions; by default those of the columns")
    choices: tuple[str, ...] | tuple[tuple[str, ...], ...] = Field(
        (), description="names of the choices, one list for all decisions or one for each; by default as found"
    )

    @model_validator(mode="after")
    def _one_way(self) -> DecisionColumns:
        if bool(self.columns) == (self.column is not None):
            raise ValueError("give either 'columns', one for each decision, or 'column', which holds them all")
        return self


class Reward(Options):
    """What is to be optimised."""

    column: str = Field(description="what a search is told of an architecture")
    direction: Literal["max", "min"] = Field("max", description="whether more or less is better")
    percent: bool = Field(False, description="whether it is an accuracy in percent (else one is a fraction)")


class Joined(Options):
    """A second file whose columns are known before an evaluation."""

    file: str = Field(description="CSV, TSV, JSONL, JSON, NPZ or pickle")
    index: str = Field(description="column of both files, different in each row; $row: the number of the row")


class Context(Options):
    """The rows of a larger table that count, for example those of one data set."""

    column: str = Field(description="column that tells the parts of the table apart")
    value: str = Field(description="its value in the rows that count")


class Cell(Options):
    """Says that the decisions are the edges of a cell: methods may count its paths."""

    edges: tuple[str, ...] = Field(description="'SOURCE>TARGET' of each decision, for example '0>1'; 0 is the input")
    zero: str | None = Field(None, description="choice that means no connection")
    identity: str | None = Field(None, description="choice that passes its input on")


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _named(value: Any) -> Any:
    return {name: name for name in _texts(value)} if isinstance(value, str | list | tuple) else value


class ProxyColumns(Options):
    """Zero-cost proxies that somebody has computed: a file with the same decision columns as the table."""

    file: str = Field(description="CSV, TSV, JSONL, JSON, NPZ or pickle; read only where a method asks for proxies")
    columns: Annotated[dict[str, str], BeforeValidator(_named)] = Field(
        min_length=1, description="names of proxies, higher is better, and their columns"
    )
    seconds: dict[str, str] = Field({}, description="name of a proxy: column of the seconds that computing it takes")

    @model_validator(mode="after")
    def _of_proxies(self) -> ProxyColumns:
        for name in self.seconds:
            if name not in self.columns:
                raise ConfigError(f"proxies.seconds: {name!r} is no proxy: {nearest_hint(name, self.columns)}")
        return self


class Published(Options):
    """Results of others on this table, printed beside one's own."""

    file: str = Field(description="CSV with a row for each method")
    method: str = Field("method", description="column with the name of the method")
    seconds: str | None = Field(None, description="column with the simulated budget")
    source: str | None = Field(None, description="column that says where the result was published")
    columns: dict[str, tuple[str, str]] = Field(description="report column: its columns of mean and deviation")


def _as_mapping(key: str, value: Any) -> Any:
    return {key: value} if isinstance(value, str) else value


def _decisions(value: Any) -> Any:
    return {"columns": value} if isinstance(value, list | tuple) else _as_mapping("column", value)


_Names = Annotated[tuple[str, ...], BeforeValidator(_texts)]


class TableDescription(Options):
    """A table: its file, and what its columns mean. Columns of nested JSON are dotted paths, ``test_acc.0``."""

    name: str = Field("table", pattern=r"^[\w.-]+$", description="name in keys of architectures and in results")
    file: str = Field(description="CSV, TSV, JSONL, JSON, NPZ or pickle, also as .gz")
    decisions: Annotated[DecisionColumns, BeforeValidator(_decisions)] = Field(description="columns of the genes")
    reward: Annotated[Reward, BeforeValidator(lambda value: _as_mapping("column", value))] = Field(
        description="what a search is told"
    )
    report: _Names = Field((), description="columns to report of the architecture chosen; by default the reward")
    cost: str | None = Field(None, description="column of the simulated seconds of an evaluation")
    known: Annotated[dict[str, str], BeforeValidator(_named)] = Field(
        {}, description="metrics known before an evaluation, and their columns"
    )
    joined: Joined | None = Field(None, description="a second file with more columns")
    missing: float | None = Field(None, description="number that stands for an unknown metric")
    valid: _Names = Field((), description="limits on metrics that a usable row meets, for example 'latency >= 0.5'")
    constraints: _Names = Field((), description="limits on metrics: rows that break one do not exist")
    context: Context | None = Field(None, description="which rows of a larger table count")
    cell: Cell | None = Field(None, description="says that the decisions are the edges of a cell")
    space: str | None = Field(None, description="space of the engine with the same decisions")
    merge_isomorphic: bool = Field(False, description="whether rows that `space` calls equal are one architecture")
    published: Published | None = Field(None, description="results of others on this table")
    proxies: ProxyColumns | None = Field(None, description="zero-cost proxies of the rows, for methods that use them")

    @model_validator(mode="after")
    def _consistent(self) -> TableDescription:
        if self.merge_isomorphic and self.space is None:
            raise ConfigError("merge_isomorphic needs the 'space' that says which rows are equal")
        leaked = {self.reward.column, *self.report} & set(self.known.values())
        if leaked:
            raise ConfigError(
                f"known names {', '.join(sorted(leaked))}, the reward or a report: no method may see results before"
            )
        if self.proxies is not None and self.cost is not None and self.proxies.columns.keys() - self.proxies.seconds:
            free = ", ".join(sorted(self.proxies.columns.keys() - self.proxies.seconds))
            raise ConfigError(f"proxies.seconds lacks {free}: where evaluations cost seconds, proxies do too")
        return self

    @property
    def limits(self) -> tuple[Constraint, ...]:
        """Those of `valid` and `constraints`.

        Raises:
            ConfigError: one is malformed.
        """
        return tuple(map(Constraint.parse, (*self.valid, *self.constraints)))

    @property
    def reported(self) -> tuple[str, ...]:
        """The report columns, or the reward where none is named."""
        return self.report or (self.reward.column,)


def built_in_tables() -> list[str]:
    """Names of the descriptions that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _BUILT_IN.iterdir() if entry.name.endswith(".yaml"))


def load_description(
    table: str, changes: Mapping[str, Any] | None = None, *, file: Path | None = None, proxies: Path | None = None
) -> TableDescription:
    """The description of a table, with the paths of its files resolved.

    Args:
        table: a built-in name, or the path of a YAML file.
        changes: settings that replace those of the description; None leaves one as it is.
        file: the table's file, where it is not found by itself.
        proxies: the file of its zero-cost proxies, likewise.

    Raises:
        ConfigError: an unknown table, a malformed description, or a file that is nowhere; a file of proxies is not
            missed before it is read.
    """
    settings, folder = _settings(table)
    for name, value in (changes or {}).items():
        if value is not None:
            # Another reward column is as good in the same direction and unit.
            keeps = name == "reward" and isinstance(settings.get(name), Mapping) and isinstance(value, str)
            settings[name] = {**settings[name], "column": value} if keeps else value
    description = checked(TableDescription, settings, "")
    return _with_proxies(
        _located(description, folder, file), proxies, file.parent if file is not None else None, folder
    )


def _settings(table: str) -> tuple[dict[str, Any], Path | None]:
    if table in built_in_tables():
        text, folder = (_BUILT_IN / f"{table}.yaml").read_text(encoding="utf-8"), None
    elif (path := Path(table).expanduser()).suffix in {".yaml", ".yml"}:
        text, folder = _read(path), path.parent
    else:
        raise ConfigError(f"unknown table {table!r}: {nearest_hint(table, built_in_tables())}, or a FILE.yaml")
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{table!r} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{table!r} must hold a mapping that describes a table, for example 'file: my.csv'")
    return {"name": Path(table).stem if folder is not None else table, **settings}, folder


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r} ({error.strerror}): name an existing YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{str(path)!r} is not valid YAML: it is not UTF-8 text") from error


def _located(description: TableDescription, folder: Path | None, file: Path | None) -> TableDescription:
    """The same description with absolute paths; published results that are nowhere are left out."""
    beside = file.parent if file is not None else None
    changes: dict[str, Any] = {"file": str(file) if file is not None else _find(description.file, folder)}
    if description.joined is not None:
        path = _find(description.joined.file, beside, folder)
        changes["joined"] = description.joined.model_copy(update={"file": path})
    if description.published is not None:
        try:
            path = _find(description.published.file, beside, folder)
            changes["published"] = description.published.model_copy(update={"file": path})
        except ConfigError:
            changes["published"] = None
    return description.model_copy(update=changes)


def _with_proxies(description: TableDescription, proxies: Path | None, *folders: Path | None) -> TableDescription:
    """The same description with the path of the proxies; their name stays as it is where the file is nowhere."""
    if description.proxies is None and proxies is None:
        return description
    if description.proxies is None:
        raise ConfigError(
            f"the description of {description.name!r} does not say what the columns of {str(proxies)!r} are: add "
            "'proxies' with 'file' and 'columns'"
        )
    path = description.proxies.file if proxies is None else str(proxies)
    with suppress(ConfigError):
        path = path if proxies is not None else _find(path, *folders)
    return description.model_copy(update={"proxies": description.proxies.model_copy(update={"file": path})})


def _find(name: str, *folders: Path | None) -> str:
    variable = os.environ.get(DATA_VARIABLE)
    looked = [folder for folder in (*folders, Path(variable) if variable else None) if folder is not None]
    for folder in looked:
        path = folder / Path(name).expanduser()
        if path.is_file():
            return str(path.absolute())
    where = " or ".join(repr(str(folder)) for folder in looked) or "no folder"
    hint = "" if variable else f"set {DATA_VARIABLE} to the folder of tables, or "
    raise ConfigError(f"table file {name!r} was looked for in {where} and not found: {hint}give it with --file")
