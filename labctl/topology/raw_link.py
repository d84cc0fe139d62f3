"""The shape of a link, and of what it does to frames."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Discriminator, Field, Tag

from labctl.topology.raw_shape import RawShape, is_list, is_mapping

# RFC 791: every host takes 576 octets; below it no tunnel makes sense. Above it, what veth carries.
SMALLEST_MTU, LARGEST_MTU = 576, 9216
LARGEST_SEED = 2**32 - 1


class RawImpairment(RawShape):
    """What a link does to frames. Times are real ones, not the lab clock's."""

    sender: str | None = Field(default=None, alias="from", description="The node whose frames are meant: both ways.")
    only: str | None = Field(
        default=None, description="Frames that this capture filter takes.", examples=["udp port 848"]
    )
    packets: str | None = Field(
        default=None, description="Of those only some, counted from 1.", examples=["3", "1-5, 8"]
    )
    delay: str | None = Field(default=None, description="How much longer frames take.", examples=["20 ms"])
    jitter: str | None = Field(default=None, description="By how much the delay varies, up and down.")
    loss: str | None = Field(default=None, description="Share of frames lost.", examples=["0.5 %"])
    burst: float = Field(default=1.0, ge=1, le=1000, description="Mean number of frames lost in a row.")
    duplicate: str | None = Field(default=None, description="Share of frames that come twice.")
    reorder: str | None = Field(default=None, description="Share of frames that the next one overtakes.")
    corrupt: str | None = Field(default=None, description="Share of frames with one bit turned.")
    rate: str | None = Field(default=None, description="Bits a second.", examples=["10 Mbit/s"])
    queue: int = Field(default=1000, ge=1, le=100_000, description="Frames that may wait for the rate.")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Another number is another course of chance.")


RawImpairmentForm: TypeAlias = Annotated[
    Annotated[RawImpairment, Tag("<one>")] | Annotated[list[RawImpairment], Tag("<several>")], Discriminator(is_list)
]


class RawLink(RawShape):
    """A link, long form."""

    ends: list[str] = Field(
        min_length=2, max_length=2, description="NODE[:INTERFACE] [ADDRESS/LENGTH], twice.", examples=[["ce1", "pe1"]]
    )
    subnet: str | None = Field(default=None, description="The link's prefix; planned where it is left out.")
    subnet6: str | None = Field(default=None, description="The link's IPv6 prefix, a /64; planned where left out.")
    mtu: int = Field(default=1500, ge=SMALLEST_MTU, le=LARGEST_MTU, description="Octets of the largest IP packet.")
    impair: RawImpairmentForm = Field(
        default=[],
        description="What the link does to frames: one rule, or several, of which the first that takes a frame counts.",
        examples=[{"delay": "20 ms", "loss": "0.5 %"}],
    )


RawLinkForm: TypeAlias = Annotated[
    Annotated[str, Tag("<short>")] | Annotated[RawLink, Tag("<long>")], Discriminator(is_mapping)
]
