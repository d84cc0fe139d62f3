"""tshark decrypts and authenticates what each transform sends, with the lines of our own key log."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from labctl.configuration import Cipher, Integrity, TransformSet
from labctl.esp import SecurityAssociation
from labctl.esp.replay import Pseudotime, TimeStamps
from labctl.gdoi.policy import TrafficEncryptionKey
from labctl.node.keylog import esp_line

TRANSFORMS = [
    TransformSet(Cipher.AES_GCM, 128),
    TransformSet(Cipher.AES_GCM, 192),
    TransformSet(Cipher.AES_GCM, 256),
    TransformSet(Cipher.AES_CBC, 128, Integrity.SHA1),
    TransformSet(Cipher.AES_CBC, 192, Integrity.SHA256),
    TransformSet(Cipher.AES_CBC, 256, Integrity.SHA384),
    TransformSet(Cipher.AES_CBC, 256, Integrity.SHA512),
    TransformSet(Cipher.TRIPLE_DES, 192, Integrity.SHA1),
    TransformSet(Cipher.NULL, 0, Integrity.SHA256),
]
INTEGRITY_OCTETS = {
    Integrity.NONE: 0,
    Integrity.SHA1: 20,
    Integrity.SHA256: 32,
    Integrity.SHA384: 48,
    Integrity.SHA512: 64,
}
FIELDS = ("esp.spi", "esp.icv_good", "esp.icv_bad", "ip.src", "ip.dst", "ip.dsfield.dscp", "icmp.seq")
STAMPED = ("esp.contained_data",)
STAMPED_SPI = 0x2000
IPV6_SPI = 0x3000
IPV6_FIELDS = ("ipv6.src", "ipv6.dst", "ipv6.tclass.dscp", "ipv6.flow", "icmpv6.echo.sequence_number")
INNER = bytes(IP(src="10.1.1.10", dst="10.1.9.10") / ICMP(seq=3) / Raw(bytes(56)))

INNER6 = bytes(
    IPv6(src="2001:db8:1::10", dst="2001:db8:2::10", tc=0xB8, fl=0x12345) / ICMPv6EchoRequest(seq=6, data=bytes(56))
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[list[str]]]:
    """What tshark reads of one capture of all transforms, two senders each, by SPI."""
    tshark = shutil.which("tshark")
    if tshark is None:
        if os.environ.get("CI") == "true":
            pytest.fail("tshark is not installed (.ci/packages installs it)")
        pytest.skip("tshark is not installed (.ci/packages installs it)")
    folder = tmp_path_factory.mktemp("esp")
    source = Random(1)
    lines, packets = [], []
    for number, transform in enumerate(TRANSFORMS):
        spi = 0x1000 + number
        key = source.randbytes(transform.key_bits // 8 + (4 if transform.uses_counter_mode else 0))
        integrity = source.randbytes(INTEGRITY_OCTETS[transform.integrity])
        lines.append(esp_line(TrafficEncryptionKey(spi, transform, key, integrity, 3600, 3600)))
        for sender in (1, 2):
            sa = SecurityAssociation(
                spi, transform, key, integrity, random=source.randbytes, sender_id=sender, sender_id_bits=24
            )
            inner = IP(src=f"10.1.{sender}.10", dst="10.1.9.10", tos=0xB8) / ICMP(seq=sender) / Raw(bytes(56))
            packets.append(Ether() / IP(sa.encapsulate(bytes(inner))))
        spi = IPV6_SPI + number
        lines.append(esp_line(TrafficEncryptionKey(spi, transform, key, integrity, 3600, 3600), ipv6=True))
        sa = SecurityAssociation(
            spi, transform, key, integrity, random=source.randbytes, sender_id=1, sender_id_bits=24
        )
        packets.append(Ether() / IPv6(sa.encapsulate(INNER6)))
        stamps = TimeStamps(Pseudotime(0xA1B2C3D4, 3723.00025, lambda: 0.0), 5.0)
        spi = STAMPED_SPI + number
        lines.append(esp_line(TrafficEncryptionKey(spi, transform, key, integrity, 3600, 3600)))
        sa = SecurityAssociation(
            spi, transform, key, integrity, random=source.randbytes, sender_id=1, sender_id_bits=24, replay=stamps
        )
        packets.append(Ether() / IP(sa.encapsulate(INNER)))
    damaged = bytearray(bytes(packets[0]))
    damaged[-1] ^= 1
    packets.append(Ether(bytes(damaged)))
    wrpcap(str(folder / "esp.pcap"), packets)
    (folder / "esp_sa").write_text("\n".join(lines) + "\n")
    return read(tshark, folder)


def read(tshark: str, folder: Path) -> dict[int, list[list[str]]]:
    settings = ("enable_encryption_decode:TRUE", "enable_authentication_check:TRUE", "do_esp_sequence_analysis:FALSE")
    options = [word for setting in settings for word in ("-o", f"esp.{setting}")]
    columns = [word for field in FIELDS + STAMPED + IPV6_FIELDS for word in ("-e", field)]
    done = subprocess.run(
        [tshark, "-r", str(folder / "esp.pcap"), *options, "-T", "fields", *columns],
        env={**os.environ, "WIRESHARK_CONFIG_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: dict[int, list[list[str]]] = {}
    for line in done.stdout.splitlines():
        spi, *rest = line.split("\t")
        found.setdefault(int(spi, 16), []).append(rest)
    return found


@pytest.mark.parametrize("number", range(len(TRANSFORMS)), ids=lambda number: str(TRANSFORMS[number]))
def test_tshark_authenticates_and_decrypts_both_senders(rows: dict[int, list[list[str]]], number: int) -> None:
    seen = rows[0x1000 + number][:2]
    for sender, (good, bad, sources, destinations, dscp, sequence, *_) in zip((1, 2), seen, strict=True):
        assert (good, bad) in {("1", "0"), ("True", "False")}
        assert sources == f"10.1.{sender}.10,10.1.{sender}.10"
        assert destinations == "10.1.9.10,10.1.9.10"
        assert (dscp, sequence) == ("46,46", str(sender))


@pytest.mark.parametrize("number", range(len(TRANSFORMS)), ids=lambda number: str(TRANSFORMS[number]))
def test_tshark_shows_a_time_stamp_and_the_packet_as_data(rows: dict[int, list[list[str]]], number: int) -> None:
    ((good, *rest),) = rows[STAMPED_SPI + number]
    data = rest[len(FIELDS) - 2]
    assert good in {"1", "True"}
    assert bytes.fromhex(data) == bytes.fromhex("04f00010a1b2c3d400000e8b000000fa") + INNER


@pytest.mark.parametrize("number", range(len(TRANSFORMS)), ids=lambda number: str(TRANSFORMS[number]))
def test_tshark_opens_ipv6_and_sees_the_header_twice(rows: dict[int, list[list[str]]], number: int) -> None:
    ((good, *rest),) = rows[IPV6_SPI + number]
    assert good in {"1", "True"}
    source, destination, dscp, flow, sequence = rest[-len(IPV6_FIELDS) :]
    assert (source, destination) == ("2001:db8:1::10,2001:db8:1::10", "2001:db8:2::10,2001:db8:2::10")
    assert (dscp, sequence) == ("46,46", "6")
    assert {int(word, 0) for word in flow.split(",")} == {0x12345} and flow.count(",") == 1


def test_tshark_sees_a_damaged_icv(rows: dict[int, list[list[str]]]) -> None:
    good, bad, *_ = rows[0x1000][2]
    assert (good, bad) in {("0", "1"), ("False", "True")}
