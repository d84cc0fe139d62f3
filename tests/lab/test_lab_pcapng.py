"""Captures open in tshark, with names, nanoseconds and losses; and a line a packet says who talks to whom."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.lab.pcapng import PcapngWriter
from labctl.lab.summary import summarize

ETHERNET = bytes.fromhex("020000000002 020000000001 0800")


def ipv6(following: int, payload: bytes) -> bytes:
    head = bytes.fromhex("60000000") + struct.pack("!HBB", len(payload), following, 64)
    ends = bytes.fromhex("20010db8000000000000000000000001 20010db8000000000000000000000002")
    return ETHERNET[:12] + b"\x86\xdd" + head + ends + payload


def ipv4(protocol: int, payload: bytes, source: str = "10.1.1.2", destination: str = "10.1.2.2") -> bytes:
    """An Ethernet frame with an IPv4 packet."""
    addresses = b"".join(bytes(map(int, address.split("."))) for address in (source, destination))
    return ETHERNET + struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + addresses + payload


ESP = ipv4(50, struct.pack("!II", 0xABCD0123, 7) + bytes(40))
PING = ipv4(1, struct.pack("!BBHHH", 8, 0, 0, 1, 1) + bytes(56))


@pytest.fixture
def tshark() -> str:
    found = shutil.which("tshark")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("tshark is not installed")
    if found is None:
        pytest.skip("tshark is not installed")
    return found


def read(tshark: str, path: Path) -> list[dict[str, Any]]:
    """What tshark makes of a file."""
    done = subprocess.run([tshark, "-r", str(path), "-T", "json"], capture_output=True, text=True, check=True)
    layers = [packet["_source"]["layers"] for packet in json.loads(done.stdout)]
    assert isinstance(layers, list)
    return layers


def test_tshark_reads_what_was_written(tshark: str, tmp_path: Path) -> None:
    path = tmp_path / "capture.pcapng"
    with path.open("wb") as stream:
        writer = PcapngWriter(stream, "labctl test")
        first = writer.interface("pe1:eth0", "eth0 of node pe1", 65535)
        second = writer.interface("ce1:eth1")
        writer.packet(first, 1_700_000_000_123_456_789, len(ESP), ESP)
        writer.packet(second, 1_700_000_001_000_000_001, 1500, PING[:60])
        writer.statistics(first, 1_700_000_002_000_000_000, 3, 2)
    esp, ping = read(tshark, path)
    assert esp["frame"]["frame.interface_id_tree"]["frame.interface_name"] == "pe1:eth0"
    assert esp["frame"]["frame.interface_id_tree"]["frame.interface_description"] == "eth0 of node pe1"
    assert esp["frame"]["frame.time_epoch"].endswith("123456789") or "23.123456789" in esp["frame"]["frame.time_epoch"]
    assert esp["esp"]["esp.spi"] == "0xabcd0123"
    assert esp["esp"]["esp.sequence"] == "7"
    assert ping["frame"]["frame.len"] == "1500"
    assert ping["frame"]["frame.cap_len"] == "60"


def test_capinfos_finds_nothing_wrong_and_knows_the_losses(tshark: str, tmp_path: Path) -> None:
    path = tmp_path / "capture.pcapng"
    with path.open("wb") as stream:
        writer = PcapngWriter(stream, "labctl test")
        writer.interface("a:eth0")
        for number in range(5):  # lengths that need every padding
            writer.packet(0, number, 60 + number, bytes(60 + number))
        writer.statistics(0, 9, 8, 3)
    capinfos = shutil.which("capinfos")
    assert capinfos is not None, "capinfos comes with tshark"
    said = subprocess.run([capinfos, str(path)], capture_output=True, text=True, check=True).stdout
    assert "Number of packets:   5" in said
    assert "labctl test" in said
    assert "nanoseconds" in said


def test_a_reader_of_a_pipe_has_the_header_before_any_packet() -> None:
    stream = io.BytesIO()
    PcapngWriter(stream, "x").interface("a:eth0")
    assert stream.getvalue()[:4] == b"\x0a\x0d\x0d\x0a"
    assert len(stream.getvalue()) % 4 == 0


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (ESP, "10.1.1.2 > 10.1.2.2 ESP spi 0xabcd0123 seq 7, length 68"),
        (PING, "10.1.1.2 > 10.1.2.2 ICMP echo request, length 84"),
        (
            ipv4(17, struct.pack("!HHHH", 848, 848, 8, 0)),
            "10.1.1.2 > 10.1.2.2 UDP 848 > 848 GDOI, length 28",
        ),
        (
            ETHERNET[:12] + b"\x88\x47" + struct.pack("!II", 16 << 12 | 64, 17 << 12 | 0x100 | 64) + PING[14:],
            "mpls 16/17 10.1.1.2 > 10.1.2.2 ICMP echo request, length 84",
        ),
        (
            ETHERNET[:12] + bytes.fromhex("0806 0001 0800 06 04 0001 020000000001 0a010102 000000000000 0a010101"),
            "ARP who has 10.1.1.1? tell 10.1.1.2",
        ),
        (
            ipv6(50, struct.pack("!II", 0xABCD0123, 7) + bytes(40)),
            "2001:db8::1 > 2001:db8::2 ESP spi 0xabcd0123 seq 7, length 88",
        ),
        (
            ipv6(0, bytes.fromhex("3a00050200000100 8f00")),
            "2001:db8::1 > 2001:db8::2 ICMPv6 listener report, length 50",
        ),
        (
            ipv6(44, bytes.fromhex("3c00000100000009 1100010400000000 0350 0350")),
            "2001:db8::1 > 2001:db8::2 UDP 848 > 848 GDOI in fragments, length 60",
        ),
        (ipv6(44, bytes.fromhex("1100058000000009 aabb")), "2001:db8::1 > 2001:db8::2 fragment at 1408, length 50"),
        (ipv6(60, bytes.fromhex("1101")), "a frame of 56 octets, cut short"),
        (b"\x00" * 5, "a frame of 5 octets, cut short"),
    ],
)
def test_a_line_says_who_talks_to_whom(frame: bytes, text: str) -> None:
    assert summarize(frame) == text


@given(st.binary(max_size=200))
def test_no_frame_is_too_odd_for_a_line(frame: bytes) -> None:
    for ethertype in (b"", b"\x08\x00", b"\x86\xdd", b"\x88\x47", b"\x08\x06", b"\x81\x00"):
        assert "\n" not in summarize(ETHERNET[:12] + ethertype + frame)
