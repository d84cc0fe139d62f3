"""How packets of one interface fit the way once they are encrypted: MTU, DF bit, fragments, path MTU. Sans-IO.

A policy comes and goes with each rekey; this stays with the interface, and so does what it remembers and counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address, ip_interface
from typing import Any

from labctl.configuration import DfBit, Fragmentation, TunnelSettings
from labctl.esp import ip
from labctl.esp.answers import Answers, Own
from labctl.esp.association import SecurityAssociation
from labctl.esp.errors import DropPacket, DropReason
from labctl.esp.fragments import fragment_ipv4, fragment_ipv6, with_df
from labctl.esp.mss import adjust_mss
from labctl.esp.path_mtu import LEAST_IPV6, PathMtus, read_too_big
from labctl.esp.reassembly import Reassembly, Whole

# What `counters` has, with what each counts.
SPLIT_BEFORE, SPLIT_AFTER, REASSEMBLED = "split-before-encryption", "split-after-encryption", "esp-reassembled"
SPLIT_INSIDE = "split-for-the-inside"
SENDERS_TOLD, PATHS_LOWERED = "senders-told-too-big", "path-mtu-lowered"
MSS_LOWERED = "mss-lowered"

DEFAULTS = TunnelSettings()


def _never() -> float:
    return 0.0


def interfaces_of(addresses: Sequence[bytes]) -> tuple[Own, ...]:
    """Addresses without their subnets."""
    return tuple(ip_interface(address) for address in addresses)


class Tunnel:
    """One interface's. `mtu` is its link's, on both sides; `own` the node's addresses, the interface's first.

    `now` gives real seconds, `lab_now` the lab's.
    """

    def __init__(
        self,
        mtu: int,
        own: Sequence[Own] = (),
        settings: TunnelSettings = DEFAULTS,
        *,
        now: Callable[[], float] = _never,
        lab_now: Callable[[], float] = _never,
    ) -> None:
        self.mtu = mtu
        self.settings = settings
        # What TCP may offer at most, where the kernel cannot see to it.
        self.mss: int | None = None
        self._now = now
        self._answers = Answers(own, now)
        self._paths = PathMtus(lab_now)
        self._reassembly = Reassembly()
        self._counts: Counter[str] = Counter()

    @property
    def df_masks(self) -> tuple[int, int]:
        """What of an inner header's flags stays in the outer one, and what is set in it."""
        return (ip.DF if self.settings.df_bit is DfBit.COPY else 0, ip.DF if self.settings.df_bit is DfBit.SET else 0)

    def take_change(self) -> bool:
        """True, once, if paths have another MTU now than when a flow's room was looked up."""
        changed, self._paths.changed = self._paths.changed, False
        return changed

    def room(self, association: SecurityAssociation, destination: bytes) -> int:
        """The longest packet to `destination` whose ESP fits the way."""
        return association.plaintext_mtu(self._paths.of(destination, self.mtu), 4 if len(destination) == 4 else 6)

    def protect(self, packet: memoryview, association: SecurityAssociation) -> Sequence[bytes]:
        """A packet as what goes out of the interface. Raises DropPacket, with what its sender is told."""
        destination = bytes(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])
        room = self.room(association, destination)
        if len(packet) <= room:
            return (self._seal(packet, association),)
        mtu = self._paths.of(destination, self.mtu)
        if packet[0] >> 4 == 6:
            return self._split_ipv6(packet, association, mtu, room)
        settings = self.settings
        if int.from_bytes(packet[6:8], "big") & ip.DF and settings.df_bit is not DfBit.CLEAR:
            self._refuse(packet, room)
        if settings.fragmentation is Fragmentation.BEFORE:
            parts = fragment_ipv4(packet, room)
            self._counts[SPLIT_BEFORE] += 1
            return tuple(self._seal(part, association) for part in parts)
        if len(packet) + association.overhead(len(packet)) > ip.MAX_PACKET:
            raise DropPacket(DropReason.TOO_BIG, "encrypted it would be no IP packet")
        self._counts[SPLIT_AFTER] += 1
        return fragment_ipv4(memoryview(self._seal(packet, association)), mtu)

    def adjust(self, packet: memoryview) -> None:
        """Lower what a SYN offers, in place."""
        if self.mss is not None and adjust_mss(packet, self.mss):
            self._counts[MSS_LOWERED] += 1

    def adjusted(self, packet: bytes | memoryview) -> bytes | memoryview:
        """The same for one that cannot be written to."""
        if self.mss is None:
            return packet
        changed = memoryview(bytearray(packet))
        self.adjust(changed)
        return changed

    def reassemble(self, packet: memoryview) -> Whole | None:
        """A fragment of ESP came; the whole, if it is complete now. Raises DropPacket."""
        whole = self._reassembly.take(packet, self._now())
        if whole is not None:
            self._counts[REASSEMBLED] += 1
        return whole

    def fit_inside(self, packet: bytes) -> Sequence[bytes]:
        """An opened packet as the inside link can carry it.

        It may be longer than the link: it came in fragments. DF does not count here, for its sender knows no way to
        send less: what it sends was split after encryption. Raises DropPacket for IPv6, which nobody splits on its way.
        """
        if len(packet) <= self.mtu:
            return (packet,)
        if packet[0] >> 4 == 6:
            raise DropPacket(DropReason.TOO_BIG, "longer than the inside link")
        self._counts[SPLIT_INSIDE] += 1
        return fragment_ipv4(memoryview(packet), self.mtu)

    def learn(self, packet: memoryview, associations: Mapping[int, SecurityAssociation]) -> bool:
        """True for an ICMP error about ESP of ours that did not fit: it is for us, not for the host it is sent to.

        Only who sees our packets can quote an SPI and a sequence number that we used.
        """
        if not self.settings.learn_path_mtu:
            return False
        told = read_too_big(packet)
        if told is None:
            return False
        association = associations.get(told.spi)
        if association is None or not 0 < told.sequence <= association.packets_out:
            return False
        if self._paths.learn(told, self.mtu):
            self._counts[PATHS_LOWERED] += 1
        return True

    def drops(self) -> Counter[str]:
        """Fragments that were held and given up, by reason."""
        self._reassembly.expire(self._now())
        return Counter({reason.value: count for reason, count in self._reassembly.drops.items()})

    def counters(self) -> dict[str, Any]:
        """Settings, what was done to packets, and what is remembered of paths."""
        return {
            "mtu": self.mtu,
            "fragmentation": self.settings.fragmentation.value,
            "df_bit": self.settings.df_bit.value,
            "counts": dict(self._counts),
            "paths": {str(ip_address(destination)): mtu for destination, mtu in self._paths.known().items()},
            "reassembling": len(self._reassembly),
        }

    def _seal(self, packet: bytes | memoryview, association: SecurityAssociation) -> bytes:
        sealed = association.encapsulate(packet)
        if packet[0] >> 4 == 6 or self.settings.df_bit is DfBit.COPY:
            return sealed
        return with_df(sealed, df=self.settings.df_bit is DfBit.SET)

    def _split_ipv6(self, packet: memoryview, association: SecurityAssociation, mtu: int, room: int) -> Sequence[bytes]:
        """No IPv6 host has to send less than 1,280 octets: up to that, the ESP is split (RFC 2473 7.1)."""
        if len(packet) > max(room, LEAST_IPV6):
            self._refuse(packet, max(room, LEAST_IPV6))
        sealed = self._seal(packet, association)
        self._counts[SPLIT_AFTER] += 1
        # Unlike any other packet's of this source, and not to be guessed without the SPI (RFC 7739).
        return fragment_ipv6(memoryview(sealed), mtu, association.spi ^ association.packets_out)

    def _refuse(self, packet: memoryview, room: int) -> None:
        back = self._answers.too_big(packet, room)
        if back is not None:
            self._counts[SENDERS_TOLD] += 1
        raise DropPacket(DropReason.TOO_BIG, f"{len(packet)} octets, {room} fit", back=back)
