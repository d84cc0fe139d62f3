"""IPv6 through a policy: ports behind extension headers, fragments, what stays on a link; every legal packet whole."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLDMultAddrRec,
    ICMPv6MLQuery,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    RouterAlert,
)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.ipsec import SecurityAssociation as ScapySa
from scapy.packet import Raw
from test_esp_packets import EVERY, KEY, SPI, TRANSFORMS, association

from labctl.configuration import AccessListEntry, Action, Cipher, TransformSet
from labctl.esp import CryptoPolicy, DropReason, PolicyEntry
from labctl.esp.policy import EXEMPT, NO_MATCH, VerdictAction
from labctl.esp.selectors import read_flow

LAN = IPv6Network("2001:db8:1::/48")
ANY = IPv6Network("::/0")
ONE, OTHER = "2001:db8:1:1::10", "2001:db8:1:2::10"
OWN = IPv6Address("2001:db8:2:1::2")
GCM = TransformSet(Cipher.AES_GCM, 128)
CLEAR, PROTECTED, DROP = VerdictAction.CLEAR, VerdictAction.ESP, VerdictAction.DROP

OPTIONS = PadN(optdata=bytes(4))
# What may stand between the IPv6 header and a protocol (RFC 8200 4.1).
CHAINS: dict[str, Any] = {
    "nothing": None,
    "hop-by-hop": IPv6ExtHdrHopByHop(options=[OPTIONS]),
    "routing": IPv6ExtHdrRouting(addresses=["2001:db8:1:3::1", "2001:db8:1:4::1"]),
    "destination": IPv6ExtHdrDestOpt(options=[OPTIONS]),
    "atomic fragment": IPv6ExtHdrFragment(m=0, offset=0, id=9),
    "first fragment": IPv6ExtHdrFragment(m=1, offset=0, id=9),
    "all": IPv6ExtHdrHopByHop(options=[OPTIONS])
    / IPv6ExtHdrDestOpt(options=[OPTIONS])
    / IPv6ExtHdrRouting(addresses=["2001:db8:1:3::1"])
    / IPv6ExtHdrFragment(m=1, offset=0, id=9)
    / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(20))]),
}


def entry(action: Action, protocol: int = 0, source: IPv6Network = LAN, to: IPv6Network = LAN, port: int = 0) -> Any:
    said = AccessListEntry(action, protocol, source, to, 0, port)
    return PolicyEntry(said, SPI, frozenset((SPI,))) if action is Action.PERMIT else PolicyEntry(said)


def policy(*entries: PolicyEntry, transform: TransformSet = GCM, **more: Any) -> CryptoPolicy:
    found = entries or (entry(Action.PERMIT, source=ANY, to=ANY),)
    return CryptoPolicy(found, {SPI: association(transform)}, own=[OWN.packed], **more)


def packet(chain: Any, inner: Any, **fields: Any) -> bytes:
    head = IPv6(src=ONE, dst=OTHER, **fields)
    return bytes(head / inner if chain is None else head / chain / inner)


@pytest.mark.parametrize("chain", list(CHAINS))
def test_protocol_and_ports_are_those_behind_the_extension_headers(chain: str) -> None:
    flow = read_flow(memoryview(packet(CHAINS[chain], TCP(sport=1024, dport=179) / Raw(bytes(30)))))
    assert (flow.protocol, flow.source_port, flow.destination_port, flow.has_ports) == (6, 1024, 179, True)
    selective = policy(entry(Action.DENY, 6, port=179), entry(Action.PERMIT, 17), entry(Action.DENY))
    for inner, expected in (
        (TCP(dport=179), CLEAR),
        (TCP(dport=180), CLEAR),
        (UDP(dport=179), PROTECTED),
    ):
        # Twice: the second time what was decided may be remembered.
        for _ in range(2):
            assert selective.outbound(packet(CHAINS[chain], inner / Raw(bytes(8)))).action is expected
    assert selective.hits == [2, 2, 2, 0]


def test_the_length_of_an_authentication_header_is_in_words_of_four_octets() -> None:
    header = AH(nh=6, spi=7, seq=1, payloadlen=4, icv=bytes(12))
    flow = read_flow(memoryview(packet(header, TCP(sport=1024, dport=179))))
    assert (flow.protocol, flow.destination_port) == (6, 179)


def test_a_fragment_that_is_not_the_first_has_a_protocol_and_no_ports() -> None:
    later = IPv6ExtHdrFragment(m=0, offset=2, id=9, nh=6)
    flow = read_flow(memoryview(packet(later, Raw(bytes(range(16))))))
    assert (flow.protocol, flow.has_ports, flow.source_port) == (6, False, 0)
    # Which header the part begins with, its first fragment says; what is behind that one nobody knows.
    assert read_flow(memoryview(packet(IPv6ExtHdrFragment(offset=2, nh=60), Raw(bytes(16))))).protocol == 60
    deny = policy(entry(Action.DENY, 6, port=179), entry(Action.PERMIT))
    assert deny.outbound(packet(later, Raw(b"\0\0\0\xb3" * 4))).action is PROTECTED
    # What is permitted by its ports is so with all of its fragments, also those that do not say what they are.
    permit = policy(entry(Action.PERMIT, 6, port=179))
    for following, expected in ((6, PROTECTED), (60, PROTECTED), (51, PROTECTED), (17, CLEAR), (58, CLEAR)):
        part = packet(IPv6ExtHdrFragment(m=0, offset=2, id=9, nh=following), Raw(bytes(16)))
        assert permit.outbound(part).action is expected
    assert (
        policy(entry(Action.DENY, 6), entry(Action.PERMIT))
        .outbound(packet(IPv6ExtHdrFragment(m=0, offset=2, id=9, nh=60), Raw(bytes(16))))
        .action
        is PROTECTED
    )


def test_entries_of_ipv4_mean_no_ipv6_packet_and_the_other_way_round() -> None:
    everything = IPv4Network("0.0.0.0/0")
    ipv4 = PolicyEntry(AccessListEntry(Action.PERMIT, 0, everything, everything), SPI, frozenset((SPI,)))
    both = policy(ipv4, entry(Action.PERMIT))
    both.outbound(bytes(IP(src="10.1.1.10", dst="10.1.2.10") / UDP()))
    both.outbound(packet(None, UDP()))
    assert both.hits == [1, 1, 0]
    assert policy(ipv4).outbound(packet(None, UDP())).action is CLEAR
    assert policy().outbound(bytes(IP(src="10.1.1.10", dst="10.1.2.10") / UDP())).action is CLEAR


TRUNCATED = {
    "no header at all": b"",
    "seven octets of one": bytes((6, 0, 1, 4, 0, 0, 0)),
    "longer than the packet": bytes((6, 9)) + bytes(14),
    "another one behind the last octet": bytes((60, 0, 1, 4, 0, 0, 0, 0)),
}


@pytest.mark.parametrize("what", list(TRUNCATED))
@pytest.mark.parametrize("kind", [0, 43, 51, 60])
def test_headers_without_an_end_are_dropped_both_ways(what: str, kind: int) -> None:
    """RFC 7112 5: a packet has all its headers, or its first fragment has."""
    broken = packet(None, Raw(TRUNCATED[what]), nh=kind)
    for verdict in (policy().outbound(broken), policy().inbound(broken)):
        assert (verdict.action, verdict.reason) == (DROP, DropReason.MALFORMED)


def mac_of(group: str) -> str:
    return f"ff02::1:ff{group}"


ROUTER, NEIGHBOUR = "fe80::1", "fe80::2"
REPORT = IPv6ExtHdrHopByHop(options=[RouterAlert(value=0)]) / ICMPv6MLReport2(
    records=[ICMPv6MLDMultAddrRec(dst="ff05::7")]
)
STAYS = {
    "solicitation": IPv6(src=ONE, dst=mac_of("00:10"), hlim=255) / ICMPv6ND_NS(tgt=OTHER),
    "solicitation of a duplicate": IPv6(src="::", dst=mac_of("00:10"), hlim=255) / ICMPv6ND_NS(tgt=OTHER),
    "advertisement": IPv6(src=ONE, dst=OTHER, hlim=255) / ICMPv6ND_NA(tgt=ONE),
    "router solicitation": IPv6(src=ROUTER, dst="ff02::2", hlim=255) / ICMPv6ND_RS(),
    "router advertisement": IPv6(src=ROUTER, dst="ff02::1", hlim=255) / ICMPv6ND_RA(),
    "redirect": IPv6(src=ROUTER, dst=OTHER, hlim=255) / ICMPv6ND_Redirect(),
    "listener report": IPv6(src=ROUTER, dst="ff02::16", hlim=1) / REPORT,
    "listener report without an address": IPv6(src="::", dst="ff02::16", hlim=1) / REPORT,
    "listener report of version 1": IPv6(src=ROUTER, dst="ff05::7", hlim=1)
    / IPv6ExtHdrHopByHop(options=[RouterAlert()])
    / ICMPv6MLReport(mladdr="ff05::7"),
    "listener query": IPv6(src=ROUTER, dst="ff02::1", hlim=1) / ICMPv6MLQuery(),
    "OSPFv3": IPv6(src=ROUTER, dst="ff02::5", hlim=1, nh=89) / Raw(bytes(44)),
    "OSPFv3 to a neighbour": IPv6(src=ROUTER, dst=NEIGHBOUR, hlim=1, nh=89) / Raw(bytes(44)),
    "EIGRP": IPv6(src=ROUTER, dst="ff02::a", hlim=2, nh=88) / Raw(bytes(40)),
    "PIM": IPv6(src=ROUTER, dst="ff02::d", hlim=1, nh=103) / Raw(bytes(40)),
    "RIPng": IPv6(src=ROUTER, dst="ff02::9", hlim=255) / UDP(sport=521, dport=521),
}
GOES = {
    "an advertisement that crossed a router": IPv6(src=ONE, dst=OTHER, hlim=254) / ICMPv6ND_NA(tgt=ONE),
    "an echo": IPv6(src=ONE, dst=OTHER, hlim=255) / ICMPv6EchoRequest(),
    "a part of an advertisement": IPv6(src=ONE, dst=OTHER, hlim=255) / IPv6ExtHdrFragment(m=1) / ICMPv6ND_NA(tgt=ONE),
    "a report of a host behind": IPv6(src=ONE, dst="ff05::7", hlim=1) / REPORT,
    "a report that goes far": IPv6(src="::", dst="ff05::7", hlim=2) / REPORT,
    "OSPFv3 of a virtual link": IPv6(src=ONE, dst=OTHER, hlim=64, nh=89) / Raw(bytes(44)),
    "a host to link-local multicast": IPv6(src=ONE, dst="ff02::5", hlim=1, nh=89) / Raw(bytes(44)),
    "site-local multicast": IPv6(src=ROUTER, dst="ff05::5", hlim=9, nh=89) / Raw(bytes(44)),
    "UDP 848": IPv6(src=ONE, dst=OTHER) / UDP(sport=848, dport=848),
}


@pytest.mark.parametrize("what", list(STAYS))
def test_what_stays_on_the_link_passes_whatever_the_policy_says(what: str) -> None:
    data = bytes(STAYS[what])
    for strict in (policy(), policy(closed=(6,)), policy(entry(Action.PERMIT), closed=(4, 6))):
        for _ in range(2):
            assert strict.decide(memoryview(data)) == EXEMPT
            verdict = strict.outbound(data)
            assert (verdict.action, bytes(verdict.packets[0])) == (CLEAR, data)
            assert strict.inbound(data).action is CLEAR


@pytest.mark.parametrize("what", list(GOES))
def test_nothing_of_a_host_passes_as_a_neighbours(what: str) -> None:
    data = bytes(GOES[what])
    strict = policy()
    assert strict.outbound(data).action is PROTECTED
    assert (strict.inbound(data).action, strict.inbound(data).reason) == (DROP, DropReason.NOT_IPSEC)
    # Nor behind one that does: what is remembered of one must not speak for the other.
    for other in STAYS.values():
        strict.outbound(bytes(other))
        assert strict.outbound(data).action is PROTECTED


def test_fail_close_is_of_one_family() -> None:
    ipv4, ipv6 = bytes(IP(src="10.9.1.10", dst="10.9.2.10") / UDP()), bytes(IPv6(src="fd00::1", dst="fd00::2") / UDP())
    for closed, data, expected in (
        ((4,), ipv4, DROP),
        ((4,), ipv6, CLEAR),
        ((6,), ipv4, CLEAR),
        ((6,), ipv6, DROP),
    ):
        strict = policy(entry(Action.DENY, port=0), closed=closed)
        assert strict.decide(memoryview(data)) == NO_MATCH
        assert strict.outbound(data).action is expected
        assert strict.inbound(data).action is expected


@pytest.mark.parametrize("chain", list(CHAINS))
def test_a_packet_that_does_not_fit_is_never_split_and_its_sender_is_told_what_would(chain: str) -> None:
    strict = policy()
    room = association(GCM).plaintext_mtu(1500, 6)
    assert room == 1426  # 1500 - 40 (IPv6) - 8 (SPI, number) - 8 (IV) - 16 (ICV), whole words, 2 of trailer
    data = packet(CHAINS[chain], UDP())
    verdict = strict.outbound(packet(CHAINS[chain], UDP() / Raw(bytes(room - len(data)))))
    assert verdict.action is PROTECTED and len(verdict.packets) == 1 and len(verdict.packets[0]) <= 1500
    verdict = strict.outbound(packet(CHAINS[chain], UDP() / Raw(bytes(room + 1 - len(data)))))
    assert (verdict.action, verdict.reason) == (DROP, DropReason.TOO_BIG)
    assert verdict.back is not None
    answer = IPv6(verdict.back)
    assert (answer.src, answer.dst) == (str(OWN), ONE)
    assert answer[ICMPv6PacketTooBig].mtu == room and len(verdict.back) <= 1280
    check = answer[ICMPv6PacketTooBig].cksum
    del answer[ICMPv6PacketTooBig].cksum
    assert IPv6(bytes(answer))[ICMPv6PacketTooBig].cksum == check


@pytest.mark.parametrize("chain", list(CHAINS))
def test_nobody_is_told_about_an_error_whatever_stands_before_it(chain: str) -> None:
    error = packet(CHAINS[chain], ICMPv6PacketTooBig() / Raw(bytes(1440)))
    verdict = policy().outbound(error)
    assert (verdict.reason, verdict.back) == (DropReason.TOO_BIG, None)


def scapy_association(transform: TransformSet) -> ScapySa:
    cipher, integrity = TRANSFORMS[transform]
    octets = transform.key_bits // 8 + (4 if transform.uses_counter_mode else 0)
    mac = {None: 0, "HMAC-SHA1-96": 20, "SHA2-256-128": 32, "SHA2-384-192": 48, "SHA2-512-256": 64}[integrity]
    return ScapySa(
        ESP,
        spi=SPI,
        crypt_algo=cipher,
        crypt_key=KEY[:octets] or None,
        auth_algo=integrity,
        auth_key=KEY[:mac] or None,
        tunnel_header=IPv6(src=ONE, dst=OTHER),
    )


@EVERY
@pytest.mark.parametrize("chain", ["nothing", "destination", "atomic fragment", "all"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 1280])
def test_scapy_opens_what_we_send_and_builds_what_we_open(transform: TransformSet, chain: str, size: int) -> None:
    data = packet(CHAINS[chain], UDP(sport=1024, dport=53) / Raw(bytes(size)))
    assert bytes(scapy_association(transform).decrypt(IPv6(association(transform).encapsulate(data)))) == data
    sealed = bytes(scapy_association(transform).encrypt(IPv6(data)))
    verdict = policy(transform=transform).inbound(sealed)
    assert (verdict.action, verdict.reason) == (CLEAR, None) and verdict.packets[0] == data


def test_esp_behind_headers_of_its_own_is_found_and_a_fragment_of_it_is_not_opened() -> None:
    data = packet(None, UDP() / Raw(bytes(30)))
    sealed = association(GCM).encapsulate(data)
    for chain, expected in (("hop-by-hop", None), ("destination", None), ("all", DropReason.MALFORMED)):
        outer = IPv6(src=ONE, dst=OTHER) / CHAINS[chain] / Raw(sealed[40:])
        last = outer.lastlayer().underlayer
        assert last is not None
        last.nh = 50
        verdict = policy().inbound(bytes(outer))
        assert verdict.reason is expected, chain
        assert expected is not None or bytes(verdict.packets[0]) == data


@st.composite
def options(draw: st.DrawFn) -> bytes:
    """A header of options without the octet that says what follows: its length, and padding in whole (RFC 8200 4.2)."""
    words = draw(st.integers(0, 4))
    size = words * 8 + 6
    return bytes((words, 1, size - 2)) + bytes(size - 2)


@st.composite
def legal_packets(draw: st.DrawFn) -> bytes:
    """Any packet that RFC 8200 allows, its headers in any order and number; a later fragment ends them."""
    parts: list[tuple[int, bytes]] = []
    for kind in draw(st.lists(st.sampled_from((0, 43, 44, 51, 60)), max_size=5)):
        if kind in (0, 60):
            parts.append((kind, draw(options())))
        elif kind == 43:
            hops = draw(st.integers(0, 3))
            addresses = draw(st.binary(min_size=16 * hops, max_size=16 * hops))
            parts.append((kind, bytes((2 * hops, 0, hops)) + bytes(4) + addresses))
        elif kind == 51:
            parts.append((kind, bytes((4, 0, 0)) + draw(st.binary(min_size=20, max_size=20))))
        else:
            offset = draw(st.integers(0, 100))
            word = offset << 3 | draw(st.integers(0, 1))
            identification = draw(st.binary(min_size=4, max_size=4))
            parts.append((kind, b"\0" + word.to_bytes(2, "big") + identification))
            if offset:
                break
    following = draw(st.sampled_from((6, 17, 58, 59, 4, 41, 89, 132, 135, 200)))
    kinds = [kind for kind, _ in parts[1:]] + [following] if parts else []
    payload = b"".join(bytes((kind,)) + body for kind, (_, body) in zip(kinds, parts, strict=True))
    payload += draw(st.binary(max_size=200))
    head = draw(st.integers(0, 2**28 - 1)) | 6 << 28
    first = parts[0][0] if parts else following
    return (
        head.to_bytes(4, "big")
        + len(payload).to_bytes(2, "big")
        + bytes((first, draw(st.integers(0, 255))))
        + IPv6Address(ONE).packed
        + IPv6Address(OTHER).packed
        + payload
    )


@given(legal_packets(), st.sampled_from(list(TRANSFORMS)), st.integers(0, 2**32))
def test_any_legal_packet_comes_out_as_it_went_in(data: bytes, transform: TransformSet, seed: int) -> None:
    """Byte for byte. What passes in clear as a neighbour's is ICMPv6, and no packet of this test."""
    sender, receiver = policy(transform=transform), policy(transform=transform)
    if sender.decide(memoryview(data)) == EXEMPT:
        assert 58 in data and data[7] in (1, 255)
        return
    verdict = sender.outbound(data)
    assert (verdict.action, len(verdict.packets)) == (PROTECTED, 1)
    outer = bytes(verdict.packets[0])
    # Traffic class and flow label, hop limit and addresses are the inner ones; behind them there is ESP alone.
    assert outer[:4] == data[:4] and outer[7:40] == data[7:40] and outer[6] == 50
    assert int.from_bytes(outer[4:6], "big") == len(outer) - 40
    opened = receiver.inbound(outer)
    assert (opened.action, bytes(opened.packets[0])) == (CLEAR, data)
    # And nobody on the way could have changed it.
    damaged = bytearray(outer)
    damaged[40 + seed % (len(outer) - 40)] ^= 1 << seed % 8
    assert receiver.inbound(bytes(damaged)).action is DROP


@given(legal_packets(), st.integers(0, 3))
def test_a_congestion_mark_reaches_the_inner_header_of_a_capable_flow_and_nothing_else(data: bytes, mark: int) -> None:
    outer = bytearray(association(GCM).encapsulate(data))
    outer[1] = outer[1] & 0xCF | mark << 4
    inner = data[1] >> 4 & 3
    expected = bytearray(data)
    if mark == 3 and inner:
        expected[1] |= 0x30
    assert association(GCM).decapsulate(bytes(outer)) == expected


@given(st.binary(max_size=120), st.sampled_from((0, 6, 43, 44, 50, 51, 58, 60)), st.integers(0, 255))
def test_no_octets_behind_an_ipv6_header_break_a_policy(payload: bytes, following: int, hop_limit: int) -> None:
    source = Random(len(payload))
    head = b"\x60" + source.randbytes(3) + len(payload).to_bytes(2, "big") + bytes((following, hop_limit))
    data = head + IPv6Address(ONE).packed + IPv6Address(OTHER).packed + payload
    for strict in (policy(), policy(entry(Action.PERMIT, 6, port=443), closed=(6,))):
        assert strict.outbound(data).action in VerdictAction
        assert strict.inbound(data).action in VerdictAction
