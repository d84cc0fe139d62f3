"""What a router logs of packets that its crypto map drops (reference/cisco-getvpn.md section 4), rate limited.

GM_FAIL_CLOSE is ours: the vendor's words for packets that fail-close stops are not known.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from labctl.esp import DropReason
from labctl.esp.replay import ReplayFailure

# Lab seconds between two lines of one kind about one source, and how many sources one kind speaks of meanwhile:
# whoever floods us must not fill our log.
INTERVAL = 60.0
MAX_SOURCES = 8

Log = Callable[[str, int, str, str], None]


class DropLog:
    """Turns dropped packets into lines."""

    def __init__(self, interface: str, log: Log, now: Callable[[], float]) -> None:
        self._interface = interface
        self._log = log
        self._now = now
        self._told: dict[str, dict[bytes, float]] = {}

    def take(self, reason: DropReason, packet: memoryview) -> None:
        """Log a dropped packet, if it is worth a line and its turn."""
        if reason in _TEXTS and len(packet) >= 20:
            self._say(*_TEXTS[reason], packet)

    def take_stamp(self, group: str, packet: memoryview, failure: ReplayFailure) -> None:
        """Log the clocks of a packet whose time stamp is outside of the window."""
        mine, theirs = f"{failure.mine:.2f}", f"{failure.theirs:.2f}"
        window = f"{failure.window:g}"
        self._say(
            "GDOI", "TIMEBASED_REPLAY_FAILED", _STAMP, packet, group=group, mine=mine, theirs=theirs, window=window
        )

    def _say(self, facility: str, mnemonic: str, text: str, packet: memoryview, **facts: object) -> None:
        source = bytes(packet[12:16] if packet[0] >> 4 == 4 else packet[8:24])
        told, now = self._told.setdefault(mnemonic, {}), self._now()
        for known in [known for known, moment in told.items() if now >= moment + INTERVAL]:
            del told[known]
        if source in told or len(told) >= MAX_SOURCES:
            return
        told[source] = now
        self._log(facility, 4, mnemonic, text.format(interface=self._interface, **facts, **_facts(packet)))


_REPLAY = (
    "CRYPTO",
    "PKT_REPLAY_ERR",
    "decrypt: replay check failed connection id={identity}, sequence number={sequence}",
)
_STAMP = (
    "An anti replay check has failed in group {group} from source ip-address {source}. my_pseudotime is {mine} secs, "
    "peer_pseudotime is {theirs} secs, replay_window is {window} (second)"
)
_TEXTS = {
    DropReason.REPLAY: _REPLAY,
    DropReason.TIME_STAMP: _REPLAY,
    DropReason.NOT_IPSEC: (
        "CRYPTO",
        "RECVD_PKT_NOT_IPSEC",
        "Rec'd packet not an IPSEC packet. (ip) vrf/dest_addr= /{destination}, src_addr= {source}, prot= {protocol}",
    ),
    DropReason.INVALID_SPI: (
        "CRYPTO",
        "RECVD_PKT_INV_SPI",
        "decaps: rec'd IPSEC packet has invalid spi for destaddr={destination}, prot=50, spi={spi:#010x}({spi}), "
        "srcaddr={source}, input interface={interface}",
    ),
    DropReason.MAC_ERROR: (
        "CRYPTO",
        "RECVD_PKT_MAC_ERR",
        "decrypt: mac verify failed for connection id={identity} spi={spi:#010x} seqno={sequence:#010x} "
        "srcaddr={source} destaddr={destination}",
    ),
    DropReason.FAIL_CLOSE: (
        "GDOI",
        "GM_FAIL_CLOSE",
        "{interface} has a group without keys and fails close: dropped a packet from {source} to {destination}, "
        "prot= {protocol}",
    ),
}


def spi_of(packet: memoryview) -> int:
    """The SPI of an ESP packet, which is the first word behind its IP header."""
    start = _payload_start(packet)
    return int.from_bytes(packet[start : start + 4], "big")


def _payload_start(packet: memoryview) -> int:
    return (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40


def _facts(packet: memoryview) -> dict[str, object]:
    if packet[0] >> 4 == 4:
        protocol = packet[9]
        ends: tuple[object, object] = IPv4Address(bytes(packet[12:16])), IPv4Address(bytes(packet[16:20]))
    else:
        protocol = packet[6]
        ends = IPv6Address(bytes(packet[8:24])), IPv6Address(bytes(packet[24:40]))
    start, spi = _payload_start(packet), spi_of(packet)
    return {
        "source": ends[0],
        "destination": ends[1],
        "protocol": protocol,
        "spi": spi,
        # A router numbers its SAs; ours are told apart by what is left of the SPI.
        "identity": spi & 0xFFFF,
        "sequence": int.from_bytes(packet[start + 4 : start + 8], "big"),
    }
