"""What all models of a topology file have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


def _written(name: str) -> str:
    return name.replace("_", "-")


class RawShape(BaseModel):
    """Keys as they are written, each of its own type, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=_written, frozen=True)
