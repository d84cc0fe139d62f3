"""TCP that is cut for the wire and joined for the kernel: nothing else comes of it, and nothing wrong becomes right."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from dataplane_batches import MACS, MTU
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from labctl.dataplane.joining import SHORTEST_RUN, JoiningTransmitter
from labctl.dataplane.packet_socket import PacketSocket
from labctl.dataplane.segmentation import Segmenter
from labctl.dataplane.transmit import Message, Vector
from labctl.kernel.vnet import (
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    NEEDS_CHECKSUM,
    VNET,
    VnetHeader,
    finish_checksum,
    read_vnet,
)

OPTIONS = [[], [("NOP", None), ("NOP", None), ("Timestamp", (123456, 654321))], [("SAckOK", b""), ("NOP", None)] * 3]
ETHER = Ether(dst=MACS[:6], src=MACS[6:])


def as_from_the_kernel(packet: Any, segment: int) -> bytes:
    """A frame as the kernel hands it to who does checksums and segmentation: before it, what is to do."""
    frame = bytearray(bytes(packet))
    start = len(packet) - len(packet[TCP])
    # In the checksum's place, the sum of the pseudo header, not inverted.
    version = 6 if IPv6 in packet else 4
    inner = packet[IPv6] if version == 6 else packet[IP]
    addresses = bytes(inner)[8:40] if version == 6 else bytes(inner)[12:20]
    length = len(packet[TCP])
    pseudo = (int.from_bytes(addresses, "big") + 6 + length) % 0xFFFF
    frame[start + 16 : start + 18] = pseudo.to_bytes(2, "big")
    header = start + (frame[start + 12] >> 4) * 4
    kind = GSO_TCPV6 if version == 6 else GSO_TCPV4
    return VNET.pack(NEEDS_CHECKSUM, kind, header, segment, start, 16) + bytes(frame)


@st.composite
def streams(draw: st.DrawFn, *, only_version_4: bool = False, quiet: bool = False) -> tuple[Any, int]:
    """TCP of several segments, and the data of each. `quiet`: as it may be joined from what it is cut into."""
    segment = draw(st.one_of(st.integers(100, 1400), st.just(1388)))
    count = draw(st.integers(2, 46))
    size = min(segment * (count - 1) + draw(st.integers(1, segment)), 65_400)
    flags = draw(st.sampled_from(["A", "PA"] if quiet else ["A", "PA", "FA", "FPA", "CA", "ECPA"]))
    tcp = TCP(
        sport=draw(st.integers(1, 65535)),
        dport=5201,
        seq=draw(st.one_of(st.integers(0, 2**32 - 1), st.just(2**32 - 500))),
        ack=draw(st.integers(0, 2**32 - 1)),
        window=draw(st.integers(0, 65535)),
        flags=flags,
        options=draw(st.sampled_from(OPTIONS)),
    )
    seed = draw(st.integers(0, 255))
    data = Raw(bytes((seed + n * n) & 255 for n in range(size)))
    if only_version_4 or draw(st.booleans()):
        ip = IP(
            src="10.1.1.10",
            dst=draw(st.sampled_from(["10.1.2.20", "10.255.255.255"])),
            tos=draw(st.sampled_from([0, 0xB8, 2])),
            ttl=draw(st.integers(1, 255)),
            id=draw(st.one_of(st.integers(0, 65535), st.just(65530))),
            flags=draw(st.sampled_from(["DF", ""])),
        )
    else:
        ip = IPv6(src="2001:db8::1", dst="2001:db8::2", tc=3, fl=77, hlim=draw(st.integers(1, 255)))
    ether = ETHER if only_version_4 or draw(st.booleans()) else ETHER / Dot1Q(vlan=7)
    return type(ether)(bytes(ether / ip / tcp / data)), segment


def cut(packet: Any, segment: int, *, at_a_time: int = 100) -> list[bytes]:
    whole = as_from_the_kernel(packet, segment)
    segmenter = Segmenter(MTU)
    segmenter.frame[: len(whole)] = whole
    assert segmenter.begin(len(whole) - VNET.size)
    segments = []
    while segmenter.pending:
        segments += [bytes(segmenter.buffer[at : at + size]) for at, size in segmenter.take(at_a_time)]
    return segments


@given(streams(), st.integers(1, 100))
@settings(max_examples=25, deadline=None)
def test_segments_are_what_the_kernel_would_have_cut(stream: tuple[Any, int], at_a_time: int) -> None:
    packet, segment = stream
    data, flags = bytes(packet[TCP].payload), str(packet[TCP].flags)
    segments = [Ether(item) for item in cut(packet, segment, at_a_time=at_a_time)]
    assert [bytes(item[TCP].payload) for item in segments] == [
        data[begin : begin + segment] for begin in range(0, len(data), segment)
    ]
    for number, item in enumerate(segments):
        expected = packet.copy()
        expected[TCP].seq = (packet[TCP].seq + number * segment) % 2**32
        expected[TCP].remove_payload()
        expected[TCP].add_payload(Raw(data[number * segment : (number + 1) * segment]))
        gone = "C" if number else ""
        if number < len(segments) - 1:
            gone += "FP"
        expected[TCP].flags = "".join(flag for flag in flags if flag not in gone)
        del expected[TCP].chksum
        if IP in expected:
            expected[IP].id = (packet[IP].id + number) % 65536
            del expected[IP].len, expected[IP].chksum
        else:
            del expected[IPv6].plen
        assert bytes(item) == bytes(expected), (number, item)


class Recorder(JoiningTransmitter):
    """Keeps what the kernel would have got, by the vectors of each message."""

    def __init__(self, capacity: int = 64) -> None:
        socket = PacketSocket.__new__(PacketSocket)
        socket.vnet = True
        super().__init__(socket, MTU, capacity)
        self.sent: list[tuple[VnetHeader, bytes]] = []

    def _send_messages(self, count: int) -> int:
        for number in range(count):
            message = Message.from_buffer_copy(self._messages, number * ctypes.sizeof(Message))
            vectors = (Vector * message.vector_count).from_address(message.vectors)
            octets = b"".join(ctypes.string_at(vector.base, vector.length) for vector in vectors)
            self.sent.append((read_vnet(memoryview(octets), 0), octets[VNET.size :]))
        return 0

    def give(self, frames: list[bytes]) -> list[tuple[VnetHeader, bytes]]:
        """Send frames as one batch, in memory that is not clean."""
        for number, frame in enumerate(frames):
            place = self.places[number]
            self.buffer[place : place + self.room] = b"\xa5" * self.room
            assert self.put(number, frame)
        self.sent = []
        assert self.send(len(frames)) == 0
        return self.sent


def as_sent(packet: Any, segment: int) -> tuple[VnetHeader, bytes]:
    whole = as_from_the_kernel(packet, segment)
    return read_vnet(memoryview(whole), 0), whole[VNET.size :]


ALONE = VnetHeader(0, GSO_NONE, 0, 0, 0, 0)


@given(streams(only_version_4=True, quiet=True))
@settings(max_examples=25, deadline=None)
def test_what_was_cut_is_joined_to_what_it_was(stream: tuple[Any, int]) -> None:
    packet, segment = stream
    segments = cut(packet, segment)
    recorder = Recorder()
    for _ in range(2):  # the second time, in vectors that were joined before
        sent = recorder.give(segments)
        if len(segments) < SHORTEST_RUN or segment < 200:
            continue
        assert sent == [as_sent(packet, segment)]
    assert recorder.give(segments[:2]) == [(ALONE, item) for item in segments[:2]]


def unfolded(sent: list[tuple[VnetHeader, bytes]]) -> list[bytes]:
    """Frames that the kernel will see in the end."""
    frames: list[bytes] = []
    for vnet, frame in sent:
        if vnet.kind == GSO_NONE:
            assert vnet == ALONE
            frames.append(frame)
            continue
        segmenter = Segmenter(MTU)
        whole = VNET.pack(*vnet) + frame
        segmenter.frame[: len(whole)] = whole
        assert segmenter.begin(len(frame))
        frames += [bytes(item) for item in segmenter.all()]
    return frames


OTHERS = st.sampled_from(
    [
        bytes(ETHER / IP(src="10.1.1.10", dst="10.1.2.20") / UDP() / Raw(bytes(900))),
        bytes(ETHER / IP(src="10.1.1.10", dst="10.1.2.20") / TCP(flags="A")),
        bytes(ETHER / IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(flags="A") / Raw(bytes(900))),
        bytes(ETHER / Raw(b"short")),
    ]
)


@given(st.lists(streams(only_version_4=True), min_size=1, max_size=3), st.lists(OTHERS, max_size=3), st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_comes_in_a_batch_reaches_the_kernel_as_it_came(
    given_streams: list[tuple[Any, int]], others: list[bytes], data: st.DataObject
) -> None:
    frames = [
        frame for packet, segment in given_streams for frame in cut(packet, segment)[: data.draw(st.integers(1, 20))]
    ]
    for frame in others:
        frames.insert(data.draw(st.integers(0, len(frames))), frame)
    for _ in range(data.draw(st.integers(0, 2))):
        one, other = (data.draw(st.integers(0, len(frames) - 1)) for _ in "ab")
        frames[one], frames[other] = frames[other], frames[one]
    for _ in range(data.draw(st.integers(0, 3))):
        number = data.draw(st.integers(0, len(frames) - 1))
        changed = bytearray(frames[number])
        changed[data.draw(st.integers(12, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
        frames[number] = bytes(changed)
    sent = Recorder().give(frames[:64])
    # A wrong checksum that had been joined would come out right.
    assert unfolded(sent) == frames[:64]


@pytest.mark.parametrize("place", ["data", "checksum", "ip"])
def test_a_corrupted_segment_stays_alone_and_corrupted(place: str) -> None:
    packet = Ether(bytes(ETHER / IP(src="10.1.1.10", dst="10.1.2.20", id=7) / TCP(flags="A") / Raw(b"ab" * 5000)))
    segments = cut(packet, 1000)
    broken = bytearray(segments[4])
    at = {"data": 700, "checksum": 51, "ip": 24}[place]
    broken[at] ^= 1
    sent = Recorder().give([*segments[:4], bytes(broken), *segments[5:]])
    assert [(vnet.kind, len(frame)) for vnet, frame in sent] == [
        (GSO_TCPV4, 54 + 4000),
        (GSO_NONE, 1054),
        (GSO_TCPV4, 54 + 5000),
    ]
    assert sent[1] == (ALONE, bytes(broken))


@given(st.binary(max_size=1400), st.sampled_from([UDP, TCP]))
@settings(max_examples=25, deadline=None)
def test_a_checksum_that_the_kernel_left_open_is_filled_in(data: bytes, protocol: Any) -> None:
    right = bytes(ETHER / IP(src="10.1.1.10", dst="10.1.2.20") / protocol() / Raw(data))
    offset = 6 if protocol is UDP else 16
    frame = bytearray(right)
    number = 17 if protocol is UDP else 6
    pseudo = (int.from_bytes(right[26:34], "big") + number + len(right) - 34) % 0xFFFF
    frame[34 + offset : 36 + offset] = pseudo.to_bytes(2, "big")
    buffer = memoryview(b"before" + frame + b"behind").tobytes()
    memory = memoryview(bytearray(buffer))
    finish_checksum(memory, 6, len(frame), VnetHeader(NEEDS_CHECKSUM, GSO_NONE, 0, 0, 34, offset))
    assert bytes(memory) == b"before" + right + b"behind"


@pytest.mark.parametrize(
    ("vnet", "frame"),
    [
        ((1, 5, 42, 1000, 34, 6), bytes(ETHER / IP() / UDP() / Raw(bytes(3000)))),
        ((1, GSO_TCPV4, 54, 0, 34, 16), bytes(ETHER / IP() / TCP() / Raw(bytes(3000)))),
        ((1, GSO_TCPV4, 54, 9000, 34, 16), bytes(ETHER / IP() / TCP() / Raw(bytes(20000)))),
        ((1, GSO_TCPV4, 54, 1000, 34, 16), bytes(ETHER / IP() / TCP())),
        ((0, GSO_NONE, 0, 0, 0, 0), bytes(ETHER / IP() / TCP() / Raw(bytes(3000)))),
    ],
    ids=["udp", "no size", "too large for the link", "no data", "not to be cut"],
)
def test_what_cannot_be_cut_is_refused(vnet: tuple[int, ...], frame: bytes) -> None:
    segmenter = Segmenter(MTU)
    segmenter.frame[: VNET.size + len(frame)] = VNET.pack(*vnet) + frame
    assert not segmenter.begin(len(frame))
    assert not segmenter.pending
