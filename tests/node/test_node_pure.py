"""The agent's clock, log lines, key log lines, checksums, SAs kept across installations: no packets, no privileges."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.packet import Raw

from labctl.configuration import AccessListEntry, Action, Cipher, Integrity, Replay, ReplayMethod, TransformSet
from labctl.door import DoorError
from labctl.esp import DropPacket, DropReason
from labctl.esp.replay import CounterWindows, ReplayFailure, TimeStamps
from labctl.gdoi import GroupKeys, PolicyRule, TrafficEncryptionKey
from labctl.gdoi.pseudotime import Pseudotime
from labctl.node import keylog
from labctl.node.clock import Clock
from labctl.node.log import format_line, log_event
from labctl.node.probe.datagrams import echo_request
from labctl.node.probe.request import ProbeRequest, parse
from labctl.node.roles.drop_log import DropLog
from labctl.node.roles.keys import Associations, policy_entries
from labctl.node.sockets import IcmpError

GCM = TransformSet(Cipher.AES_GCM, 128)
CBC = TransformSet(Cipher.AES_CBC, 256, Integrity.SHA256)


def tek(spi: int, transform: TransformSet = GCM, seed: int = 0) -> TrafficEncryptionKey:
    source = random.Random(spi + seed)
    encryption = source.randbytes(20 if transform is GCM else 32)
    integrity = b"" if transform is GCM else source.randbytes(32)
    return TrafficEncryptionKey(spi, transform, encryption, integrity, 3600, 3600.0)


def keys(*teks: TrafficEncryptionKey, sender_ids: tuple[int, ...] = (5,)) -> GroupKeys:
    permit = AccessListEntry(Action.PERMIT, 0, IPv4Network("10.1.0.0/16"), IPv4Network("10.1.0.0/16"))
    deny = AccessListEntry(Action.DENY, 6, IPv4Network("0.0.0.0/0"), IPv4Network("0.0.0.0/0"), 0, 179)
    rules = (PolicyRule(deny), PolicyRule(permit, tuple(item.spi for item in teks)))
    return GroupKeys(rules, {item.spi: item for item in teks}, sender_ids=sender_ids, sender_id_bits=24)


def test_the_clock_passes_scaled_and_timers_with_it() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clock = Clock(100)
        fired: asyncio.Future[float] = loop.create_future()
        began, start = loop.time(), clock.now()
        clock.call_at(start + 10, lambda: fired.set_result(clock.now()))
        assert await fired >= start + 9.99
        assert 0.09 <= loop.time() - began < 5

    asyncio.run(main())


def test_clocks_with_one_beginning_agree_whenever_they_were_started() -> None:
    begun = time.time() - 100
    early = Clock(60, begun)
    late = Clock(60, begun)
    assert early.now() >= 6000
    assert abs(early.now() - late.now()) < 60
    assert 0 <= Clock(60, time.time() + 1000).now() < 1000


def test_a_clock_does_not_stand_still() -> None:
    for scale in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="scale"):
            Clock(scale)


def test_log_lines_are_those_of_a_router() -> None:
    assert (
        format_line(1764036020.1239, "GDOI", 5, "GM_REGS_COMPL", "Registration complete")
        == "*Nov 25 02:00:20.123: %GDOI-5-GM_REGS_COMPL: Registration complete"
    )
    assert format_line(1764900020.0, "A", 0, "B", "c").startswith("*Dec  5 02:00:20.000: ")


def test_a_peer_cannot_write_log_lines_of_its_own() -> None:
    event = log_event("CRYPTO", 6, "X", "name\n*Nov 1 00:00:00.000: %FAKE-1-LINE: \x1b[31m")
    assert event["line"].isprintable()


def test_key_log_lines_are_what_wireshark_takes() -> None:
    assert keylog.isakmp_line(bytes(7) + b"\1", b"\xab" * 4) == "0000000000000001,abababab"
    gcm = tek(0x1003)
    assert keylog.esp_line(gcm) == (
        f'"IPv4","*","*","0x00001003","AES-GCM with 16 octet ICV [RFC4106]","0x{gcm.encryption_key.hex()}","NULL",""'
    )
    assert keylog.esp_line(gcm, ipv6=True) == keylog.esp_line(gcm).replace("IPv4", "IPv6")
    cbc = tek(0x1002, CBC)
    assert keylog.esp_line(cbc) == (
        f'"IPv4","*","*","0x00001002","AES-CBC [RFC3602]","0x{cbc.encryption_key.hex()}",'
        f'"HMAC-SHA-256-128 [RFC4868]","0x{cbc.integrity_key.hex()}"'
    )


@pytest.mark.parametrize("size", [12, 13, 56, 1001, 65507])
def test_echo_requests_are_what_scapy_builds(size: int) -> None:
    payload = ProbeRequest(IPv4Address("10.0.0.1"), size=size, marker=b"needle").payload(bytes(8), 77)
    assert len(payload) == size
    assert echo_request(4711, 3, payload) == bytes(ICMP(type=8, id=4711, seq=3) / payload)
    # The kernel writes the checksum of ICMPv6, which is of addresses, too.
    assert echo_request(4711, 3, payload, ipv6=True) == bytes(ICMPv6EchoRequest(id=4711, seq=3, data=payload, cksum=0))


def test_an_association_lives_as_long_as_its_key_so_that_no_nonce_comes_twice() -> None:
    table = Associations(lambda: 0.0)
    first, fresh = table.update(keys(tek(0x1001)))
    assert [item.spi for item in fresh] == [0x1001]
    again, fresh = table.update(keys(tek(0x1001), tek(0x2002), sender_ids=(9,)))
    assert again[0x1001] is first[0x1001]
    assert [item.spi for item in fresh] == [0x2002]
    left, _ = table.update(keys(tek(0x2002)))
    assert set(left) == {0x2002}


def test_another_key_under_an_old_spi_is_another_association() -> None:
    table = Associations(lambda: 0.0)
    first, _ = table.update(keys(tek(0x1001)))
    second, fresh = table.update(keys(tek(0x1001, seed=1)))
    assert second[0x1001] is not first[0x1001]
    assert len(fresh) == 1


def test_rules_become_entries_that_accept_every_living_key_and_send_under_one() -> None:
    group = keys(tek(0x1001), tek(0x2002))
    deny, permit = policy_entries(group, (None, 0x1001))
    assert (deny.spi, deny.accepted) == (None, frozenset())
    assert (permit.spi, permit.accepted) == (0x1001, frozenset({0x1001, 0x2002}))
    expired = GroupKeys(group.rules, {0x2002: group.teks[0x2002]}, sender_ids=(5,), sender_id_bits=24)
    assert policy_entries(expired, (None, 0x2002))[1].accepted == frozenset({0x2002})


@pytest.mark.parametrize(
    ("kind", "code", "name"),
    [
        (1, 4, "refused"),
        (1, 1, "prohibited"),
        (1, 0, "unreachable"),
        (2, 0, "too-big"),
        (3, 0, "ttl-exceeded"),
        (4, 0, "icmp-error"),
    ],
)
def test_an_error_of_icmpv6_has_the_word_of_what_it_means_in_ipv4(kind: int, code: int, name: str) -> None:
    assert IcmpError(kind, code, ("2001:db8::1", 0), b"", ipv6=True).name == name


def test_a_probe_is_of_one_version_of_ip() -> None:
    assert parse({"destination": "2001:db8::1", "source": "2001:db8::2"}).ipv6
    assert not parse({"destination": "10.1.1.1"}).ipv6
    for bad in ({"destination": "2001:db8::1", "source": "10.1.1.1"}, {"destination": "2001:db8::g"}):
        with pytest.raises(DoorError, match=r"source|destination"):
            parse(bad)


def stamped(epoch: int) -> TrafficEncryptionKey:
    return replace(tek(0x1001 + epoch, CBC), replay=Replay(ReplayMethod.TIME, 5), epoch=epoch)


def test_time_stamps_go_by_the_clock_that_came_with_their_key_and_follow_it() -> None:
    table = Associations(lambda: 100.0)
    first, _ = table.update(keys(stamped(1)), {1: Pseudotime(1, 5.0)})
    again, fresh = table.update(keys(stamped(1), stamped(2)), {1: Pseudotime(1, 7.0), 2: Pseudotime(2, -100.0)})
    assert [item.spi for item in fresh] == [0x1003] and again[0x1002] is first[0x1002]
    stamps = {spi: sa.replay for spi, sa in again.items()}
    assert all(isinstance(item, TimeStamps) and item.window == 5 for item in stamps.values())
    clocks = {spi: item.clock for spi, item in stamps.items() if isinstance(item, TimeStamps)}
    assert {spi: (clock.epoch, clock.read()) for spi, clock in clocks.items()} == {0x1002: (1, 107.0), 0x1003: (2, 0.0)}


def test_counter_windows_tell_senders_apart_by_the_bits_of_their_ids() -> None:
    counted = [replace(tek(0x1001, transform), replay=Replay(ReplayMethod.COUNTER, 128)) for transform in (GCM, CBC)]
    for item, apart in zip(counted, (True, False), strict=True):
        associations, _ = Associations(lambda: 0.0).update(keys(item))
        windows = associations[0x1001].replay
        assert isinstance(windows, CounterWindows) and windows.size == 128
        windows.check(1, 1 << 40)
        if apart:
            windows.check(1, 2 << 40)
        else:
            with pytest.raises(DropPacket):
                windows.check(1, 2 << 40)


def test_a_replay_is_logged_with_both_clocks_once_in_a_while_for_each_source() -> None:
    lines: list[tuple[str, int, str, str]] = []
    now = [0.0]
    log = DropLog("eth0", lambda *line: lines.append(line), lambda: now[0])
    esp = bytes.fromhex("0000100100000007") + bytes(40)
    packets = [
        memoryview(bytes(IP(src=f"10.1.{site}.10", dst="10.1.9.10", proto=50) / Raw(esp))) for site in range(1, 30)
    ]

    def replayed(packet: memoryview) -> None:
        log.take(DropReason.REPLAY, packet)
        log.take_stamp("LAB", packet, ReplayFailure(104.258, 95.0, 5.0))

    for _ in "ab":
        replayed(packets[0])
    assert lines == [
        ("CRYPTO", 4, "PKT_REPLAY_ERR", "decrypt: replay check failed connection id=4097, sequence number=7"),
        (
            "GDOI",
            4,
            "TIMEBASED_REPLAY_FAILED",
            "An anti replay check has failed in group LAB from source ip-address 10.1.1.10. my_pseudotime is 104.26 "
            "secs, peer_pseudotime is 95.00 secs, replay_window is 5 (second)",
        ),
    ]
    for packet in packets:
        replayed(packet)
    assert len(lines) == 16, "a flood of sources fills no log"
    now[0] = 61.0
    replayed(packets[0])
    assert len(lines) == 18
