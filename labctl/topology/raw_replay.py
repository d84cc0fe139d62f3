"""The shape of `replay`: what members do against packets that come again."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Discriminator, Field, Tag

from labctl.configuration.replay import LONGEST_TIME_WINDOW
from labctl.topology.raw_shape import RawShape


class RawTimeWindow(RawShape):
    """Time-based anti-replay (`replay time window-size`)."""

    window: int = Field(
        ge=1,
        le=LONGEST_TIME_WINDOW,
        description="Lab seconds that a packet may be older or newer than a member's own clock.",
    )


class RawCounterWindow(RawShape):
    """Counter-based anti-replay (`replay counter window-size`)."""

    window: Literal[64, 128, 256, 512, 1024] = Field(default=64, description="Sequence numbers.")


class RawReplay(RawShape):
    """One of the two methods."""

    time: RawTimeWindow | None = Field(default=None, description="By time stamps: any number of members.")
    counter: RawCounterWindow | None = Field(
        default=None,
        description="By sequence numbers: with esp-gcm and esp-gmac each member has a window of its own, under other "
        "ciphers all share one, which is sane with two members.",
    )


def _is_mapping(value: Any) -> str:
    return "<long>" if isinstance(value, (dict, BaseModel)) else "<short>"


RawReplayForm: TypeAlias = Annotated[
    Annotated[Literal["none"], Tag("<short>")] | Annotated[RawReplay, Tag("<long>")], Discriminator(_is_mapping)
]
REPLAY = (
    "Anti-replay: none, {time: {window: 5}} or {counter: {window: 64}}. Left out: counter 64, as on IOS, with esp-gcm "
    "and esp-gmac; none under other ciphers, where members would share one window."
)
