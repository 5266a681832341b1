"""The Python face: search, resume and export as one call each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas_engine.config import load_config
from nas_engine.context import Reporter
from nas_engine.exports import export_one
from nas_engine.job import Job, describe_best
from nas_engine.result import Best, SearchResult, finished


def search(config: str | Path | None = None, *, reporter: Reporter | None = None, **settings: Any) -> SearchResult:
    """Search, retrain the best, choose the winner, test it once and export it.

    Args:
        config: a YAML file of settings; `settings` win over it.
        reporter: shows progress; by default it goes to `logging` at INFO.
        **settings: the names of `SearchConfig`. A component is a name or a mapping, for example
            ``space={"name": "nasbench201", "channels": 16}``; an objective may also be one of `nas_engine.objectives`.

    Returns:
        The winner, all trials and the trade-off between accuracy and costs.

    Raises:
        NasEngineError: a setting, the data or the run folder cannot be used.
    """
    overrides = {name: _as_setting(value) for name, value in settings.items()}
    return Job.start(load_config(Path(config) if config is not None else None, overrides), reporter).run()


def resume(run: str | Path, *, retry_failed: bool = False, reporter: Reporter | None = None) -> SearchResult:
    """Continue an interrupted run; a finished one is returned as it is, without its data.

    Args:
        run: the run folder.
        retry_failed: train again what has failed from scratch; by default a recorded failure stands.
        reporter: shows progress; by default it goes to `logging` at INFO.

    Raises:
        StoreError: `run` is no run, or is in use.
    """
    result = finished(Path(run))
    return result if result is not None else Job.resume(Path(run), reporter).run(retry_failed=retry_failed)


def export(best: Best, format: str, path: str | Path) -> float:
    """Write a trained network to `path` and check the file against the network before returning.

    Args:
        best: a trained network, for example ``result.best``.
        format: ``onnx``, ``torch_export``, ``state_dict`` or ``python``.
        path: the file to write.

    Returns:
        The largest absolute difference of logits between the file, loaded back, and the network, on real images.

    Raises:
        ExportError: the file does not load or does not agree.
    """
    description = describe_best(SearchResult(best.run))
    return export_one(best.build(), best.example_images(), Path(path), format=format, description=description)


def _as_setting(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "component_name"):  # an objective made by nas_engine.objectives
        return {"name": value.component_name, **value.options.model_dump()}
    return value
