"""The shape of a check in a topology file (raw.py has the rest)."""

from __future__ import annotations

from typing import TypeAlias

from pydantic import ConfigDict, Field

from labctl.topology.raw_shape import RawShape

RawFlow: TypeAlias = str

_STATEMENTS = ("reachable", "blocked", "registered", "refused", "encrypted", "no-plain-text", "latency", "loss")


class RawCheck(RawShape):
    """One statement about the running lab, and how it is tested."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [statement]} for statement in _STATEMENTS]},
    )

    reachable: RawFlow | None = Field(
        default=None, description="Every echo is answered: 'any', 'h1 -> h2', 'h1, h2 <-> h3'."
    )
    blocked: RawFlow | None = Field(default=None, description="No echo is answered.")
    registered: str | None = Field(default=None, description="Every member of this group is registered.")
    refused: str | None = Field(default=None, description="No 'refused' member of this group has keys.")
    encrypted: RawFlow | None = Field(
        default=None, description="The flow is seen as ESP, with its own addresses and DSCP."
    )
    no_plain_text: RawFlow | None = Field(default=None, description="No payload of the flow is ever seen on the links.")
    latency: RawFlow | None = Field(
        default=None, description="Round trips of the flow are at most `at-most` milliseconds."
    )
    loss: RawFlow | None = Field(default=None, description="At most `at-most` per cent of the echoes are lost.")
    name: str | None = Field(default=None, description="What the report calls it.")
    links: list[str] | None = Field(
        default=None, description="Links 'a -- b' to watch; the provider's where it is left out."
    )
    at_most: float | None = Field(
        default=None, ge=0, description="The bound: milliseconds of latency, per cent of loss."
    )
    count: int | None = Field(default=None, ge=1, le=1000, description="How many echoes are sent along each pair.")
    dscp: int | None = Field(default=None, ge=0, le=63, description="DSCP of the packets sent.")
    ipv6: bool = Field(default=False, description="The packets sent are IPv6.")
