"""tshark dissects our group policy and key download field by field, in a copy in clear.

It reads the ID lengths of SAT as two octets, against RFC 6407 and the reference implementation (reference 10.1): the
copy has them widened, and the lengths around them mended.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from random import Random

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from labctl import crypto
from labctl.configuration import AccessListEntry, Action, Cipher, GroupIdentity, KeyServerGroup, SaIpsec, TransformSet
from labctl.gdoi.encoding import sid_packet
from labctl.gdoi.group import Group
from labctl.gdoi.payloads import GdoiSa, KeyDownload
from labctl.gdoi.timing import Timing
from labctl.isakmp.header import HEADER_OCTETS, ExchangeType, Header, PayloadType
from labctl.isakmp.payloads import Payload, pack_chain

PERMIT = AccessListEntry(Action.PERMIT, 6, IPv4Network("10.1.0.0/16"), IPv4Network("10.2.0.0/16"), 0, 443)


def widened(sa: bytes) -> bytes:
    """An SA payload, generic header included, whose SATs have ID lengths of two octets."""
    kind, position, nested = int.from_bytes(sa[12:14], "big"), 16, b""
    while kind:
        following, length = sa[position], int.from_bytes(sa[position + 2 : position + 4], "big")
        body = sa[position + 4 : position + length]
        if kind == PayloadType.SAT:
            source = 5 + body[5]
            destination = source + 4 + body[source + 4]
            body = (
                body[:5]
                + b"\0"
                + body[5 : source + 4]
                + b"\0"
                + body[source + 4 : destination + 1]
                + body[destination + 1 :]
            )
        nested += bytes((following, 0)) + (len(body) + 4).to_bytes(2, "big") + body
        kind, position = following, position + length
    return sa[:2] + (16 + len(nested)).to_bytes(2, "big") + sa[4:16] + nested


def test_tshark_reads_every_field_of_policy_and_keys(tmp_path: Path) -> None:
    tshark = shutil.which("tshark")
    if tshark is None:
        if os.environ.get("CI") == "true":
            pytest.fail("tshark is not installed (.ci/packages installs it)")
        pytest.skip("tshark is not installed (.ci/packages installs it)")
    address = IPv4Address("10.0.0.1")
    configuration = KeyServerGroup(
        "G", GroupIdentity(1234), address, (SaIpsec((PERMIT,), TransformSet(Cipher.AES_GCM, 256)),), key_server_id=1
    )
    group = Group(configuration, Random(3).randbytes, crypto.generate_rsa_key(), Timing())
    group.renew(0)
    offered = group.sa_payload(0, private=False)
    keys = KeyDownload((*group.key_packets(), sid_packet(24, (1 << 16,))))
    chain: list[Payload] = [offered, keys]
    packed = pack_chain(chain)
    sa_octets = int.from_bytes(packed[2:4], "big")
    body = widened(packed[:sa_octets]) + packed[sa_octets:]
    header = Header(b"initiato", b"responde", GdoiSa.TYPE, ExchangeType.GROUPKEY_PULL, 0, 7, HEADER_OCTETS + len(body))
    packet = Ether() / IP(src=str(address), dst="10.0.0.2") / UDP(sport=848, dport=848) / Raw(header.pack() + body)
    wrpcap(str(tmp_path / "policy.pcap"), [packet])
    fields = {
        "isakmp.sa.doi": "2",
        "isakmp.sak.spi": offered.kek.spi.hex() if offered.kek else "",
        "isakmp.sak.src_id_data": "0a000001",
        "isakmp.sak.src_id_port": "848",
        "isakmp.sat.protocol": "6",
        "isakmp.sat.src_id_data": "0a010000ffff0000",
        "isakmp.sat.dst_id_data": "0a020000ffff0000",
        "isakmp.sat.dst_id_port": "443",
        "isakmp.sat.transform_id": "20",
        "isakmp.sat.spi": offered.teks[0].spi.hex(),
        "isakmp.ipsec.attr.addr_preservation": "4",
        "isakmp.ipsec.attr.sa_direction": "3",
        "isakmp.kd.num_pkt": "3",
        "isakmp.kd.payload.type": "2,1,4",
        "_ws.malformed": "",
    }
    columns = [word for field in fields for word in ("-e", field)]
    done = subprocess.run(
        [tshark, "-r", str(tmp_path / "policy.pcap"), "-d", "udp.port==848,isakmp", "-T", "fields", *columns],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    read = dict(zip(fields, done.stdout.rstrip("\n").split("\t"), strict=True))
    seen = {name: value.replace(":", "").removeprefix("0x") for name, value in read.items()}
    assert seen == fields
