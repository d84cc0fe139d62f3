"""GDOI's SA payload (RFC 6407 5.2): SAK, GAP and SATs nested in it, chained by its SA attribute next payload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from labctl.gdoi.payloads.group_associated_policy import GroupAssociatedPolicy
from labctl.gdoi.payloads.sa_kek import SaKek
from labctl.gdoi.payloads.sa_tek import SaTek
from labctl.isakmp.errors import MalformedMessage, NotifyType, PeerError
from labctl.isakmp.header import Doi, PayloadType
from labctl.isakmp.payloads import Payload, pack_chain
from labctl.isakmp.payloads.chain import GENERIC_OCTETS
from labctl.isakmp.reader import Reader

# 100 permit entries make 100 SATs (reference/cisco-getvpn.md 2.6); denied ones and old TEKs come on top.
MAX_SATS = 512


@dataclass(frozen=True, slots=True)
class GdoiSa:
    """At most one SAK and one GAP, any number of SATs, at least one SAK or SAT; in this order."""

    TYPE: ClassVar[int] = PayloadType.SA
    kek: SaKek | None
    gap: GroupAssociatedPolicy | None
    teks: tuple[SaTek, ...]

    @classmethod
    def parse(cls, reader: Reader) -> GdoiSa:
        doi, situation, kind, reserved = reader.u32(), reader.u32(), reader.u16(), reader.u16()
        if doi != Doi.GDOI:
            raise PeerError(f"SA of domain of interpretation {doi}", NotifyType.DOI_NOT_SUPPORTED)
        if situation != 0:
            raise PeerError(f"SA with situation {situation}", NotifyType.SITUATION_NOT_SUPPORTED)
        if reserved != 0:
            raise MalformedMessage("the second reserved field of SA is not zero")
        kek: SaKek | None = None
        gap: GroupAssociatedPolicy | None = None
        teks: list[SaTek] = []
        while kind != PayloadType.NONE:
            following, _, length = reader.generic_header()
            if length < GENERIC_OCTETS:
                raise MalformedMessage(f"a payload of {length} octets inside SA")
            body = reader.restrict_to(length - GENERIC_OCTETS)
            if kind == PayloadType.SAK and kek is None and gap is None and not teks:
                kek = SaKek.parse(body)
            elif kind == PayloadType.GAP and gap is None and not teks:
                gap = GroupAssociatedPolicy.parse(body)
            elif kind == PayloadType.SAT and len(teks) < MAX_SATS:
                teks.append(SaTek.parse(body))
            else:
                raise MalformedMessage(f"a payload of type {kind} out of place inside SA")
            body.finish("a payload inside SA")
            kind = following
        if kek is None and not teks:
            raise MalformedMessage("an SA payload without SAK and SAT")
        return cls(kek, gap, tuple(teks))

    def pack(self) -> bytes:
        nested: list[Payload] = [item for item in (self.kek, self.gap) if item is not None]
        nested.extend(self.teks)
        head = int(Doi.GDOI).to_bytes(4, "big") + bytes(4) + nested[0].TYPE.to_bytes(2, "big") + bytes(2)
        return head + pack_chain(nested)
