"""Base of the option models: one frozen pydantic model for each component, its fields the names in YAML and CLI."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Options of one component. Every field has a default and a description; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
