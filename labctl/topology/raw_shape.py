"""What all models of a topology file have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


def _written(name: str) -> str:
    return name.replace("_", "-")


class RawShape(BaseModel):
    """Keys as they are written, each of its own type, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=_written, frozen=True)


def is_mapping(value: Any) -> str:
    """Which of two forms a user chose, for pydantic: an object, or less."""
    return "<long>" if isinstance(value, (dict, BaseModel)) else "<short>"


def is_list(value: Any) -> str:
    """Which of two forms a user chose, for pydantic: one, or a list of them."""
    return "<several>" if isinstance(value, list) else "<one>"
