"""The shape of `crypto:` and `adjust-mss:` of a node: how packets that grow by encryption fit the way."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from labctl.topology.raw_shape import RawShape

# `ip tcp adjust-mss`: 500 to 1460 octets.
SMALLEST_MSS, LARGEST_MSS = 500, 1460


class RawCrypto(RawShape):
    """What a group member does with packets that do not fit once they are encrypted."""

    fragmentation: Literal["before", "after"] = Field(
        default="before",
        description="Split packets before they are encrypted, or after (crypto ipsec fragmentation after-encryption).",
    )
    df_bit: Literal["copy", "clear", "set"] = Field(
        default="copy",
        description="DF of the outer header (crypto ipsec df-bit); clear splits packets that have it inside, too.",
    )
    path_mtu_discovery: bool = Field(
        default=False,
        description="Believe routers that an ESP packet was too big for them, and tell hosts. IOS does not.",
    )


RawMss: TypeAlias = Annotated[int, Field(ge=SMALLEST_MSS, le=LARGEST_MSS)]


class RawAdjustMss(RawShape):
    """The largest segment that TCP may offer through a router, long form."""

    size: RawMss = Field(description="Octets of TCP data, 500 to 1460.")
    interfaces: list[str] | None = Field(
        default=None, description="Where; the ce's LANs where it is left out.", examples=[["eth0"]]
    )


def _is_size(value: Any) -> str:
    return "<long>" if isinstance(value, (dict, RawAdjustMss)) else "<short>"


RawAdjustMssForm: TypeAlias = Annotated[
    Annotated[RawMss, Tag("<short>")] | Annotated[RawAdjustMss, Tag("<long>")], Discriminator(_is_size)
]
ADJUST_MSS: Any = Field(
    default=None,
    description="Routers only: the largest TCP segment offered through it (ip tcp adjust-mss).",
    examples=[1360, {"size": 1360, "interfaces": ["eth0"]}],
)
