"""Base of the option models: one frozen pydantic model for each component, its fields the names in YAML and CLI."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Options of one component. Every field has a default and a description; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def located(text: str) -> str:
    """The absolute path of what is at `text`, seen from here; `text` itself where nothing is.

    Settings that name files are kept so, because a run is resumed, and its ``config.yaml`` used, from anywhere.
    """
    path = Path(text).expanduser()
    return str(path.absolute()) if text and path.exists() else text
