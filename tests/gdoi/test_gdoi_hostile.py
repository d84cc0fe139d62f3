"""Ten thousand changed datagrams at a key server and a member that are at work: they go on, and keep little of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from gdoi_parties import DENY, KS1, PERMIT, World, group, group_member, key_server, member_address, signing_key

from labctl.gdoi import GroupMember, KeyServer, ack, push
from labctl.gdoi.member_registration import State
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.header import ExchangeType
from labctl.isakmp.payloads import Delete, Identification, Payload
from labctl.isakmp.sa import Phase1Sa

LAB = "GETVPN_LAB"
DATAGRAMS = 10_000
STRANGER = Endpoint(member_address(2))


def registered() -> tuple[World, KeyServer, GroupMember, list[Datagram]]:
    """A member that has just registered, and every datagram that it took."""
    sent: list[Datagram] = []

    def recording(datagram: Datagram) -> list[Datagram]:
        sent.append(datagram)
        return [datagram]

    server, member = key_server(group()), group_member()
    world = World({KS1: server}, [member], recording)
    member.start(0)
    world.settle()
    assert member.state is State.REGISTERED
    return world, server, member, sent


def rekeys(server: KeyServer) -> list[Datagram]:
    """A true rekey, which would take the member's keys, and its acknowledgement, for which nobody waits."""
    kek = server.group(LAB).kek
    assert kek is not None
    told = push.Push(1, (Delete(2, 1, 4, (bytes(4),)),))
    answer = ack.Acknowledgement(kek.spi, 1, Identification.ipv4(member_address(0)))
    here, there = Endpoint(KS1), Endpoint(member_address(0))
    return [
        Datagram(push.build(told, kek, signing_key()), here, there),
        Datagram(ack.build(ack.AckType.KEK_SHA256, kek.key, answer), there, here),
    ]


def changed(data: bytes, source: random.Random) -> bytes:
    """One of the ways in which a datagram can be wrong."""
    out = bytearray(data)
    way = source.randrange(6)
    if way == 0:
        out = out[: source.randrange(len(out))]
    elif way == 1:
        out += source.randbytes(source.randrange(1, 40))
    elif way == 2:
        out[source.randrange(28)] = source.randrange(256)
    elif way == 3:
        for _ in range(source.randrange(1, 8)):
            out[source.randrange(len(out))] ^= 1 << source.randrange(8)
    elif way == 4:
        start = source.randrange(len(out))
        out[start:] = source.randbytes(len(out) - start)
    else:
        out[18] = source.choice([int(kind) for kind in ExchangeType])
        out[20:24] = source.randbytes(4)
    if source.random() < 0.7:
        # With a true length the header is accepted, and what stands behind it is looked at.
        out[24:28] = len(out).to_bytes(4, "big")
    return bytes(out)


@pytest.mark.parametrize("seed", [1, 2])
def test_ten_thousand_changed_datagrams_leave_both_sides_at_work(seed: int) -> None:
    source = random.Random(seed)
    world, server, member, sent = registered()
    keys = member.keys
    material = sent + rekeys(server)
    for number in range(DATAGRAMS):
        datagram = source.choice(material)
        peer = datagram.source if source.random() < 0.8 else STRANGER
        bad = Datagram(changed(datagram.data, source), peer, datagram.destination)
        if bad.data == datagram.data:
            continue  # a true rekey would be heeded
        party = server if datagram.destination.address == KS1 else member
        now = 1 + number / 100
        party.receive_datagram(bad, now)
        party.datagrams_to_send()
        party.handle_timer(now)
        while party.next_event() is not None:
            pass
    assert member.state is State.REGISTERED and member.keys == keys and member.attempts == 1
    assert list(server.group(LAB).members) == [member_address(0)] and server.group(LAB).sender_ids_given == 1
    limits = server.isakmp.limits
    for endpoint in (server.isakmp, member.isakmp):
        assert endpoint.half_open_count <= limits.half_open_per_peer * 3
        assert endpoint.kept_replies <= limits.replies and len(endpoint.associations) <= 1
    assert server.open_pulls <= 16
    other = group_member(1)
    world = World({KS1: server}, [member, other])
    world.now = 200
    other.start(200)
    world.run(3599)
    assert other.registered and member.registered and member.successes >= 2


def bent(payload: Payload, source: random.Random) -> Payload:
    """A payload with a few octets of its body changed, cut or doubled."""
    body = bytearray(payload.pack())
    for _ in range(source.choice((1, 1, 1, 2, 5))):
        at = source.randrange(len(body))
        way = source.randrange(4)
        if way == 0:
            body[at] ^= 1 << source.randrange(8)
        elif way == 1:
            body[at] = source.choice((0, 1, 127, 128, 255))
        elif way == 2 and len(body) > 8:
            del body[at : at + source.randrange(1, 5)]
        else:
            body[at:at] = body[at : at + 4] or b"\0"
    changed_payload: Payload = type("Bent", (), {"TYPE": payload.TYPE, "pack": lambda _: bytes(body)})()
    return changed_payload


def test_a_hostile_key_server_that_is_authenticated_gets_nothing_but_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """SA, KD and SEQ with changed octets under true hashes."""
    source = random.Random(17)
    server, member = key_server(group(policy=[DENY, PERMIT])), group_member()
    world = World({KS1: server}, [member])
    true = Phase1Sa.protect

    def hostile(sa: Phase1Sa, exchange: int, message_id: int, payloads: Sequence[Payload], *prefix: bytes) -> bytes:
        if exchange == ExchangeType.GROUPKEY_PULL and not sa.initiator:
            payloads = [*payloads[:-1], bent(payloads[-1], source)]
        return true(sa, exchange, message_id, payloads, *prefix)

    monkeypatch.setattr(Phase1Sa, "protect", hostile)
    reasons = set()
    for number in range(600):
        world.now = number * 100.0
        member.start(world.now)
        world.settle()
        reasons.add(member.reason)
        member.stop(world.now)
        world.settle()
    monkeypatch.undo()
    assert len(reasons) > 20, "many different refusals were reached"
    world.now = 70_000
    member.start(70_000)
    world.settle()
    assert member.registered


def test_a_true_rekey_is_heeded_by_members_alone_and_an_acknowledgement_that_nobody_waits_for_by_nobody() -> None:
    _, server, member, _ = registered()
    told, answer = rekeys(server)
    for party, datagram in ((server, told), (server, answer), (member, answer)):
        party.receive_datagram(datagram, 1)
        assert party.datagrams_to_send() == []
    assert member.registered and list(server.group(LAB).members) == [member_address(0)]
    member.receive_datagram(told, 1)
    assert not member.registered
