"""A capture is copied block by block: GDOI becomes readable, everything else stays as it was."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from decode_rekey import GM, KS, rekey
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import PcapNgReader

from labctl import crypto
from labctl.configuration import Encryption
from labctl.decode import Counts, KeyLineError, NotPcapng, RekeyKey, decode, read_rekey_keys
from labctl.decode.isakmp import readable
from labctl.lab.decode import decode_file
from labctl.lab.errors import BadRequest
from labctl.lab.pcapng import PcapngWriter


def datagram(data: bytes, port: int = 848) -> Packet:
    return Ether() / IP(src=str(KS), dst=str(GM)) / UDP(sport=port, dport=port) / Raw(data)


def capture(*packets: Packet) -> bytes:
    stream = io.BytesIO()
    writer = PcapngWriter(stream, "test")
    interface = writer.interface("ks1:eth0")
    for number, packet in enumerate(packets):
        writer.packet(interface, number, len(bytes(packet)), bytes(packet))
    writer.statistics(interface, 9, len(packets), 0)
    return stream.getvalue()


def decoded(tmp_path: Path, content: bytes, *keys: RekeyKey) -> tuple[list[Packet], Counts]:
    """What scapy reads of the copy, every length and checksum included."""
    target = io.BytesIO()
    counts = decode(io.BytesIO(content), target, {key.spi: key for key in keys})
    path = tmp_path / "clear.pcapng"
    path.write_bytes(target.getvalue())
    with PcapNgReader(str(path)) as reader:
        return list(reader), counts


@pytest.mark.parametrize(
    ("encryption", "key_bits"), [(Encryption.AES_CBC, 128), (Encryption.AES_CBC, 192), (Encryption.TRIPLE_DES, 192)]
)
def test_a_rekey_is_decrypted_whatever_its_cipher_and_its_packet_is_whole(
    encryption: Encryption, key_bits: int, tmp_path: Path
) -> None:
    sealed, key = rekey(encryption, key_bits)
    (packet,), counts = decoded(tmp_path, capture(datagram(sealed)), key)
    assert counts == Counts(1, 1, 0, 0)
    data = bytes(packet[UDP].payload)
    assert data[:19] == sealed[:19] and data[19] == 0, "the header without the flag E"
    assert int.from_bytes(data[24:28], "big") == len(data) == packet[UDP].len - 8 == packet[IP].len - 28
    checksum, packet[IP].chksum = packet[IP].chksum, None
    assert IP(bytes(packet[IP])).chksum == checksum
    # SEQ comes first, and its number is where RFC 6407 5.7 puts it.
    assert data[28:36] == struct.pack("!BBHI", 1, 0, 8, 7)


def test_what_is_not_ours_to_open_stays_as_it_was(tmp_path: Path) -> None:
    sealed, key = rekey()
    forged = sealed[:-16] + bytes(16)
    packets = [
        Ether() / IP(src=str(KS), dst=str(GM)) / ICMP() / Raw(b"ping"),
        datagram(sealed, port=500),
        datagram(sealed[:40]),
        Ether() / IP(src=str(KS), dst=str(GM), flags="MF") / UDP(sport=848, dport=848) / Raw(sealed),
        Ether(bytes(datagram(sealed))[:60]),
        datagram(forged[:28] + bytes(len(forged) - 28)),
    ]
    content = capture(*packets)
    target = io.BytesIO()
    counts = decode(io.BytesIO(content), target, {key.spi: key})
    assert target.getvalue() == content and counts.opened == 0
    found, counts = decoded(tmp_path, capture(datagram(sealed)), RekeyKey(bytes(16), key.iv, key.key))
    assert counts == Counts(1, 0, 1, 0) and bytes(found[0][UDP].payload) == sealed


def test_copies_of_a_registration_are_left_out_and_copies_of_a_rekey_are_not(tmp_path: Path) -> None:
    sealed, key = rekey()
    first = bytes(16) + bytes((1, 0x10, 2, 0)) + bytes(4) + (28 + 12).to_bytes(4, "big")
    main_mode = b"cookie12" + first[8:] + struct.pack("!BBHII", 0, 0, 12, 2, 0)
    found, counts = decoded(tmp_path, capture(*[datagram(main_mode)] * 3, *[datagram(sealed)] * 2), key)
    assert counts == Counts(3, 2, 0, 2)
    assert bytes(found[0][UDP].payload)[32:40] == struct.pack("!II", 1, 1), "tshark learns from DOI 1 alone"


@given(st.binary(max_size=400))
def test_no_plaintext_confuses_it(noise: bytes) -> None:
    key = RekeyKey(bytes(range(16)), bytes(16), bytes(32))
    body = noise + bytes(-len(noise) % 16)
    sealed = crypto.cbc_encrypt(crypto.BlockCipher.AES, key.key, key.iv, body)
    header = key.spi + bytes((1, 0x10, 33, 1)) + bytes(4) + (28 + len(sealed)).to_bytes(4, "big")
    changed = readable(header + sealed, {key.spi: key})
    assert changed == header + sealed or changed[19] == 0


@given(st.binary(max_size=200))
def test_a_file_that_is_no_capture_is_refused(content: bytes) -> None:
    for broken in (content, capture(datagram(b"x"))[: len(content)], capture()[:8] + content):
        try:
            decode(io.BytesIO(broken), io.BytesIO(), {})
        except NotPcapng:
            continue
        assert len(broken) == 0 or broken == capture(datagram(b"x"))[: len(broken)]


def test_keys_that_are_none_are_told_by_their_line() -> None:
    line = f"{'ab' * 16},{'cd' * 16},{'ef' * 32}"
    assert read_rekey_keys(["", line])[b"\xab" * 16] == RekeyKey(b"\xab" * 16, b"\xcd" * 16, b"\xef" * 32)
    for broken in ("ab", f"{line},", line[2:], line.replace("ef", "eg"), f"{'ab' * 16},{'cd' * 15},{'ef' * 32}"):
        with pytest.raises(KeyLineError, match="line 2"):
            read_rekey_keys([line, broken])


def test_a_bad_request_says_which_file_and_leaves_nothing(tmp_path: Path) -> None:
    wire, clear, keylog = tmp_path / "wire.pcapng", tmp_path / "clear.pcapng", tmp_path / "keylog"
    with pytest.raises(BadRequest, match="no key log of GDOI"):
        decode_file(wire, clear, keylog)
    keylog.mkdir()
    for table in ("gdoi_kek", "gdoi_exchange"):
        (keylog / table).write_text("")
    with pytest.raises(BadRequest, match=r"wire.pcapng: No such file"):
        decode_file(wire, clear, keylog)
    wire.write_bytes(b"no capture")
    with pytest.raises(BadRequest, match="not a whole pcapng file"):
        decode_file(wire, clear, keylog)
    wire.write_bytes(capture(datagram(b"x")))
    with pytest.raises(BadRequest, match="nowhere"):
        decode_file(wire, tmp_path / "nowhere" / "clear.pcapng", keylog)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keylog", "wire.pcapng"]
    assert decode_file(wire, clear, keylog).packets == 1
    assert clear.stat().st_mode & 0o777 == 0o600
