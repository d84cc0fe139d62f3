"""IGMP and PIM: octets that scapy makes and reads, and octets that nobody should have sent."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.node.multicast import igmp, pim
from labctl.node.multicast.checksum import checksum

GROUP = IPv4Address("239.192.0.1")


def sealed(body: bytes) -> bytes:
    """With the checksum both protocols have at the same place."""
    return body[:2] + checksum(body[:2] + b"\0\0" + body[4:]).to_bytes(2, "big") + body[4:]


def report(*records: tuple[int, str, int]) -> bytes:
    """A version 3 report: type, group, number of sources of each record."""
    body = bytes((igmp.V3_REPORT, 0, 0, 0, 0, 0)) + len(records).to_bytes(2, "big")
    for kind, group, sources in records:
        body += bytes((kind, 0)) + sources.to_bytes(2, "big") + IPv4Address(group).packed + bytes(4 * sources)
    return sealed(body)


def test_queries_are_what_scapy_reads() -> None:
    from scapy.contrib.igmpv3 import IGMPv3, IGMPv3mq

    for group, address in ((None, "0.0.0.0"), (GROUP, str(GROUP))):
        octets = igmp.query(group, 2.0, 30, 2)
        read = IGMPv3(octets)
        assert (read.type, read.mrcode) == (0x11, 20)
        assert (read[IGMPv3mq].gaddr, read[IGMPv3mq].qrv, read[IGMPv3mq].qqic) == (address, 2, 30)
        assert checksum(octets) == 0
        assert igmp.parse(octets) == igmp.Query(group, 2.0)


@pytest.mark.parametrize(
    ("octets", "found"),
    [
        (report((4, "239.1.1.1", 0)), [igmp.Membership(IPv4Address("239.1.1.1"))]),
        (report((3, "239.1.1.1", 0)), [igmp.Membership(IPv4Address("239.1.1.1"), leaves=True)]),
        (report((1, "239.1.1.1", 2)), [igmp.Membership(IPv4Address("239.1.1.1"))]),
        (report((1, "239.1.1.1", 0)), []),
        (report((2, "224.0.0.251", 0), (2, "239.1.1.2", 0)), [igmp.Membership(IPv4Address("239.1.1.2"))]),
        (report((2, "10.0.0.1", 0)), []),
        (sealed(bytes((0x16, 0, 0, 0)) + GROUP.packed), [igmp.Membership(GROUP)]),
        (sealed(bytes((0x12, 0, 0, 0)) + GROUP.packed), [igmp.Membership(GROUP)]),
        (sealed(bytes((0x17, 0, 0, 0)) + GROUP.packed), [igmp.Membership(GROUP, leaves=True)]),
        (sealed(bytes((0x11, 0, 0, 0, 0, 0, 0, 0))), igmp.Query(None, 10.0)),
        (sealed(bytes((0x11, 0x8F, 0, 0, 0, 0, 0, 0, 8, 30, 0, 0))), igmp.Query(None, 24.8, suppress=True)),
        (report((4, "239.1.1.1", 0))[:-1], None),
        (b"\x16\0\0\0", None),
        (sealed(bytes((0x77, 0, 0, 0)) + GROUP.packed), None),
        (bytes((0x16, 0, 1, 1)) + GROUP.packed, None),
    ],
)
def test_reports_of_every_version_are_read(octets: bytes, found: object) -> None:
    assert igmp.parse(octets) == found


def test_a_report_that_announces_more_than_it_has_gives_what_it_has() -> None:
    whole = report((4, "239.1.1.1", 0))
    more = sealed(whole[:6] + b"\xff\xff" + whole[8:])
    assert igmp.parse(more) == [igmp.Membership(IPv4Address("239.1.1.1"))]
    many = report(*[(4, "239.1.1.1", 0)] * (igmp.MAX_RECORDS + 1))
    assert igmp.parse(many) is None


def test_hellos_and_asserts_are_what_scapy_reads() -> None:
    from scapy.contrib.pim import PIMv2Hdr, PIMv2HelloGenerationID, PIMv2HelloHoldtime

    octets = pim.hello(pim.Hello(35, 0xDEADBEEF, 1))
    read = PIMv2Hdr(octets)
    assert (read.version, read.type) == (2, 0)
    assert read[PIMv2HelloHoldtime].holdtime == 35
    assert read[PIMv2HelloGenerationID].generation_id == 0xDEADBEEF
    assert pim.parse(octets) == pim.Hello(35, 0xDEADBEEF, 1)
    claim = pim.Assert(IPv4Address("10.1.1.1"), GROUP, 1, 20)
    assert PIMv2Hdr(pim.assertion(claim)).type == 5
    assert pim.parse(pim.assertion(claim)) == claim


def test_a_hello_of_somebody_else_counts_as_the_core_and_has_the_holdtime_of_the_rfc() -> None:
    assert pim.parse(sealed(bytes((0x20, 0, 0, 0)))) == pim.Hello(105, 0, 0)


@given(st.binary(max_size=200))
def test_no_octets_break_a_parser(octets: bytes) -> None:
    for parse in (igmp.parse, pim.parse):
        parse(octets)
        if len(octets) >= 8:
            parse(sealed(octets))
            parse(sealed(bytes((0x20, 0)) + octets[2:]))
            parse(sealed(bytes((igmp.V3_REPORT, 0)) + octets[2:]))
            parse(sealed(bytes((0x25, 0)) + octets[2:]))
