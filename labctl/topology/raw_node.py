"""The shape of a node, and of what a router does to packets before it encrypts them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from labctl.topology.raw_shape import RawShape, is_mapping
from labctl.topology.raw_tunnel import ADJUST_MSS, RawAdjustMssForm, RawCrypto

# Six bits (RFC 2474 3).
LARGEST_DSCP = 63

KindWord: TypeAlias = Literal["host", "ce", "ks", "pe", "p", "switch"]


class RawNat(RawShape):
    """Address translation on a router (`ip nat`)."""

    inside_source: list[str] = Field(
        description="What follows 'ip nat inside source': 'static LOCAL GLOBAL', 'list PREFIX interface NAME overload' "
        "or 'list PREFIX pool FIRST [LAST] overload'.",
        examples=[["static 10.1.1.10 10.200.1.10", "list 10.1.1.0/24 interface eth0 overload"]],
    )
    inside: list[str] | None = Field(
        default=None, description="Interfaces with 'ip nat inside'; of a ce, those of its LANs where it is left out."
    )
    outside: list[str] | None = Field(
        default=None, description="Interfaces with 'ip nat outside'; of a ce, those to the provider."
    )


def _is_name(value: Any) -> str:
    return "<name>" if isinstance(value, str) else "<number>"


RawDscp: TypeAlias = Annotated[
    Annotated[int, Field(ge=0, le=LARGEST_DSCP), Tag("<number>")] | Annotated[str, Tag("<name>")],
    Discriminator(_is_name),
]


class RawMarkingRule(RawShape):
    """A class of packets and the DSCP that is set (`class-map`, `set dscp`)."""

    match: str = Field(
        description="A line of an access list: what it permits is marked, what it denies keeps its DSCP.",
        examples=["permit udp any any eq 5060"],
    )
    set_dscp: RawDscp = Field(description="ef, af31, cs3, default, ... or 0 to 63.")
    ipv6: bool = Field(default=False, description="The line is of an IPv6 access list, and matches IPv6 packets.")


class RawQos(RawShape):
    """Marking of packets that come from a LAN (`service-policy input`)."""

    rules: list[RawMarkingRule] = Field(description="The first that matches counts.")
    interfaces: list[str] | None = Field(
        default=None, description="Where packets come in; the ce's LANs where it is left out."
    )


class RawNode(RawShape):
    """A node, long form."""

    kind: KindWord = Field(description="What the node is.")
    subnet: str | None = Field(default=None, description="Switch only: the LAN's prefix, for example 10.7.0.0/24.")
    subnet6: str | None = Field(default=None, description="Switch only: the LAN's IPv6 prefix, a /64.")
    nat: RawNat | None = Field(default=None, description="Routers only: address translation, before encryption.")
    qos: RawQos | None = Field(default=None, description="ce only: marking, before encryption.")
    crypto: RawCrypto | None = Field(default=None, description="ce only: how packets fit once they are encrypted.")
    adjust_mss: RawAdjustMssForm | None = ADJUST_MSS


RawNodeForm: TypeAlias = Annotated[
    Annotated[KindWord, Tag("<short>")] | Annotated[RawNode, Tag("<long>")], Discriminator(is_mapping)
]
