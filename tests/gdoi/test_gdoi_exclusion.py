"""Members of a key tree and their key server, live: who is left out learns nothing new, and nobody else has to move."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from gdoi_parties import KS1, group_member, key_server, member_address, signing_key
from gdoi_rekeyed import GM1, GM2, GM3, LAB, Rekeyed, lab, multicast, unicast
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.configuration import Encryption, KeyServerGroup
from labctl.gdoi import GroupMember, encoding
from labctl.gdoi.key_path import KeyPath
from labctl.gdoi.member_registration import State
from labctl.gdoi.numbers import KdType, KekAttribute, LkhAttribute
from labctl.gdoi.payloads import PARSERS, GdoiSa, KeyDownload, KeyPacket, LkhUpdateArray, SaKek
from labctl.gdoi.payloads.lkh_key import MAX_LKH_KEYS, LkhKey
from labctl.gdoi.policy import GroupKeys, KeyEncryptionKey
from labctl.gdoi.push import Push, build, decrypt, open_push
from labctl.isakmp import vendor
from labctl.isakmp.attributes import Attribute
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.errors import LocalError
from labctl.isakmp.header import ExchangeType
from labctl.isakmp.payloads import parse_chain
from labctl.isakmp.reader import Reader

TREES = [unicast(key_tree=True), multicast(key_tree=True)]
transports = pytest.mark.parametrize("configuration", TREES, ids=["unicast", "multicast"])


def keys_of(member: GroupMember) -> GroupKeys:
    assert member.keys is not None
    return member.keys


def kek_of(member: GroupMember) -> KeyEncryptionKey:
    kek = keys_of(member).kek
    assert kek is not None
    return kek


def teks_of(member: GroupMember) -> set[bytes]:
    return {tek.encryption_key for tek in keys_of(member).teks.values()}


def pushes(world: Rekeyed, start: float = -1.0) -> list[Datagram]:
    return [datagram for at, datagram in world.of(ExchangeType.GROUPKEY_PUSH) if at >= start]


def test_a_registration_brings_the_path_to_the_kek_and_no_kek_packet() -> None:
    """RFC 6407 5.6.3.1: the last key of the download array is the group's KEK."""
    world = lab(unicast(key_tree=True))
    tree = world.server.group(LAB).tree
    assert tree is not None and (len(tree), tree.depth) == (3, 2)
    for member in world.members:
        assert keys_of(member).path == KeyPath(tree.path(member.membership.local_address))
        assert kek_of(member) == world.server.group(LAB).kek
    status = world.server.status(0.0)[0]
    assert (status.tree_leaves, status.tree_depth) == (3, 2)


def test_groups_have_no_tree_unless_they_ask_for_one() -> None:
    world = lab(unicast())
    assert world.server.group(LAB).tree is None
    assert all(keys_of(member).path is None for member in world.members)


@transports
@pytest.mark.parametrize("immediate", [False, True], ids=["shortened", "now"])
def test_all_but_the_evicted_go_on_under_new_keys_without_registering(
    configuration: KeyServerGroup, immediate: bool
) -> None:
    world = lab(configuration, members=5)
    out, *others = world.members
    old, known = kek_of(out), teks_of(out)
    world.run(100)
    world.server.evict(LAB, GM1, world.now, immediate=immediate)
    world.settle()
    news = {kek_of(member).key for member in others}
    assert len(news) == 1 and old.key not in news
    for member in others:
        assert member.successes == 1 and member.state is State.REGISTERED
        assert len(keys_of(member).teks) == (1 if immediate else 2)
        assert bool(teks_of(member) & known) is not immediate
    assert GM1 not in world.server.group(LAB).members
    world.run(1000)
    # The old TEK is gone, everybody sends under the new one, and nobody came back.
    assert all(not teks_of(member) & known and len(teks_of(member)) == 1 for member in others)
    assert len({frozenset(teks_of(member)) for member in others}) == 1
    assert [member.successes for member in others] == [1] * 4
    assert world.lost(GM2) == []
    # The one that is out has nothing but what it had.
    assert out.keys is None or teks_of(out) <= known


def test_an_order_of_two_rekeys_and_no_new_tek_under_the_old_kek() -> None:
    """RFC 6407 7.4.1: first the new KEK, then, under it, the new TEKs."""
    world = lab(multicast(key_tree=True))
    old = kek_of(world.members[0])
    path = keys_of(world.members[1]).path
    assert path is not None
    world.server.evict(LAB, GM1, world.now)
    first, second = world.server.datagrams_to_send()
    told = open_push(first.data, old)
    assert told.sa is not None and told.keys is not None and told.sa.kek is not None
    assert told.sa.teks == () and told.deletes == ()
    (packet,) = told.keys.packets
    assert packet.kind == KdType.LKH and packet.spi == told.sa.kek.spi
    assert {item.kind for item in packet.attributes} == {LkhAttribute.UPDATE_ARRAY, LkhAttribute.SIG_ALGORITHM_KEY}
    management = [item for item in told.sa.kek.attributes if item.kind == KekAttribute.MANAGEMENT_ALGORITHM]
    assert [item.number for item in management] == [1]
    assert second.data[:16] == packet.spi
    new = world.server.group(LAB).kek
    assert new is not None
    under = replace(new, sequence=0)
    told = open_push(second.data, under)
    assert told.sequence == 1 and told.keys is not None and {item.kind for item in told.keys.packets} == {1, 2}


def test_a_unicast_copy_holds_the_one_array_of_its_receiver() -> None:
    world = lab(unicast(key_tree=True), members=9)
    old = kek_of(world.members[0])
    world.server.evict(LAB, GM1, world.now)
    copies = [item for item in world.server.datagrams_to_send() if item.data[:16] == old.spi]
    assert len(copies) == 8
    for copy in copies:
        told = open_push(copy.data, old)
        assert told.keys is not None
        arrays = [item for item in told.keys.packets[0].attributes if item.kind == LkhAttribute.UPDATE_ARRAY]
        assert len(arrays) == 1
    # Those below one node get the same octets: not one signature for each member.
    assert len({copy.data for copy in copies}) < 8


def plaintexts(known: list[KeyEncryptionKey], sent: list[Datagram]) -> list[bytes]:
    """What somebody with these KEKs reads of everything that was sent."""
    found = []
    for datagram in sent:
        for kek in known:
            if datagram.data[:16] == kek.spi:
                found.append(decrypt(datagram.data, kek)[1])
    return found


def everything_readable(out: GroupKeys, more: list[KeyEncryptionKey], sent: list[Datagram]) -> set[bytes]:
    """The plaintexts, and every key-sized piece of their update arrays opened with each key of the path."""
    known = [*more, *([] if out.kek is None else [out.kek])]
    texts = plaintexts(known, sent)
    path = [] if out.path is None else [(key.iv, key.key) for key in out.path.keys]
    held = path + [(kek.iv, kek.key) for kek in known]
    found = set(texts)
    for text in texts:
        for payload in parse_chain(18, Reader(text), PARSERS, padded=True):
            if not isinstance(payload.payload, KeyDownload):
                continue
            for packet in payload.payload.of(KdType.LKH):
                for item in packet.attributes:
                    if item.kind == LkhAttribute.UPDATE_ARRAY:
                        found |= opened(item.value[12:], held)
    return found


def opened(entries: bytes, held: list[tuple[bytes, bytes]]) -> set[bytes]:
    size = 16 + 48
    return {
        Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor().update(entries[start + 16 : start + size])
        for start in range(0, len(entries), size)
        for iv, key in held
    }


@transports
def test_no_octet_that_was_ever_sent_gives_the_evicted_a_new_key(configuration: KeyServerGroup) -> None:
    world = lab(configuration, members=7)
    out = world.members[2]
    held = keys_of(out)
    world.server.evict(LAB, GM3, world.now)
    world.run(10)
    world.server.evict(LAB, GM1, world.now)
    world.run(4000)
    stay = world.members[1]
    new = {tek.encryption_key for tek in keys_of(stay).teks.values()} | {kek_of(stay).key}
    seen = everything_readable(held, [], pushes(world))
    assert seen
    assert not any(key in text for key in new for text in seen)
    # And whoever is in does read it so: the search above finds what there is to find.
    mine = everything_readable(keys_of(stay), [kek_of(stay)], pushes(world))
    assert any(key in text for key in new for text in mine)


def test_an_excluded_member_that_hears_everything_installs_nothing() -> None:
    world = lab(multicast(key_tree=True))
    out = world.members[0]
    known = teks_of(out)
    world.server.evict(LAB, GM1, world.now)
    world.run(60)
    assert teks_of(out) <= known
    assert "GDOI_REKEY_FAILURE" in world.logs(GM1)
    # It finds out that others have keys that it lacks, asks, and is refused.
    assert world.logs(KS1).count("KS_GM_REVOKED") >= 1
    assert "GM_RE_REGISTER" in world.logs(GM1)
    assert [member.successes for member in world.members] == [1, 1, 1]


def test_who_is_let_in_again_has_a_leaf_under_new_keys() -> None:
    world = lab(unicast(key_tree=True))
    before = keys_of(world.members[0]).path
    world.server.evict(LAB, GM1, world.now)
    world.run(200)
    world.server.allow(LAB, GM1)
    world.members[0].clear(world.now)
    world.run(260)
    after = keys_of(world.members[0]).path
    assert before is not None and after is not None
    assert not {key.key for key in before.keys} & {key.key for key in after.keys}
    assert world.same_keys()


@transports
def test_members_left_in_come_through_one_eviction_after_the_other(configuration: KeyServerGroup) -> None:
    """Eight orders within a second: no rekey is counted as missed that nobody had the time to answer."""
    world = lab(configuration, members=10)
    for number in range(8):
        world.server.evict(LAB, member_address(number), world.now)
        world.run(world.now + 0.1)
    world.run(world.now + 400)
    left = world.members[8:]
    assert [member.successes for member in left] == [1, 1]
    assert len({kek_of(member).key for member in left}) == 1
    assert len({frozenset(teks_of(member)) for member in left}) == 1
    assert set(world.server.group(LAB).members) == {member_address(8), member_address(9)}


@transports
def test_copies_in_the_wrong_order_are_put_in_order(configuration: KeyServerGroup) -> None:
    """The TEKs arrive before the KEK that they are under, and before any second copy."""
    world = lab(configuration)
    world.server.evict(LAB, GM1, world.now)
    world.server.evict(LAB, GM2, world.now)
    waiting = world.server.datagrams_to_send()
    stay = world.members[2]
    for datagram in reversed(waiting):
        if datagram.destination.address in (GM3, kek_of(stay).address):
            stay.receive_datagram(datagram, world.now)
    assert kek_of(stay).key == kek_after(world).key
    assert len(keys_of(stay).teks) > 1
    world.run(120)
    assert stay.successes == 1


@transports
def test_who_misses_the_update_finds_out_by_what_follows_and_registers(configuration: KeyServerGroup) -> None:
    """Every copy of the new KEK is lost: rekeys under a KEK that it does not know tell the member so."""
    world = lab(configuration)
    old = kek_of(world.members[1]).spi
    carry = world.network

    def lossy(datagram: Datagram) -> list[Datagram]:
        if datagram.data[:16] == old and datagram.destination.address in (GM2, kek_of(world.members[2]).address):
            if datagram.destination.address == GM2:
                return []
            world.cut.add(GM2)
            carried = carry(datagram)
            world.cut.discard(GM2)
            return carried
        return carry(datagram)

    world.network = lossy
    world.server.evict(LAB, GM1, world.now)
    world.settle()
    assert kek_of(world.members[1]).spi == old
    world.run(60)
    assert world.members[1].successes == 2 and world.members[2].successes == 1
    assert world.members[1].keys is not None and kek_of(world.members[1]).key == kek_of(world.members[2]).key
    # All of it before the old TEK that the others left ends: 5 % of its life, here 180 s.
    assert teks_of(world.members[1]) & teks_of(world.members[2])


def test_strangers_cannot_make_a_member_register_again_and_again() -> None:
    world = lab(unicast(key_tree=True))
    near, far = world.members[1:]
    chance = random.Random(7)
    for second in range(0, 3000, 5):
        world.run(float(second))
        for member, source in ((near, KS1), (far, GM1)):
            datagram = Datagram(forged_rekey(chance), Endpoint(source), Endpoint(member.membership.local_address))
            member.receive_datagram(datagram, world.now)
    # Once in five minutes and the wait, at the most.
    assert 1 < near.successes <= 1 + 3000 / 325 + 1
    # From elsewhere than the key server nothing is taken for a sign.
    assert far.successes == 1


def forged_rekey(chance: random.Random) -> bytes:
    """A GROUPKEY-PUSH under a KEK that nobody has."""
    body = bytes(64)
    return chance.randbytes(16) + bytes((18, 0x10, 33, 1)) + bytes(4) + (28 + len(body)).to_bytes(4, "big") + body


def test_a_member_that_misses_three_rekeys_is_excluded_from_the_tree() -> None:
    world = lab(unicast(key_tree=True), members=4)
    silent = world.members[1]
    known = keys_of(silent)
    world.cut.add(GM2)
    for moment in (100.0, 200.0, 300.0):
        world.run(moment)
        world.server.rekey(LAB, world.now)
        world.settle()
    world.run(400)
    assert GM2 not in world.server.group(LAB).members
    tree = world.server.group(LAB).tree
    assert tree is not None and GM2 not in tree and len(tree) == 3
    stay = [world.members[0], world.members[2], world.members[3]]
    assert [member.successes for member in stay] == [1, 1, 1]
    assert known.kek is not None and kek_of(stay[0]).key != known.kek.key
    new = {kek_of(stay[0]).key}
    assert not any(key in text for key in new for text in everything_readable(known, [], pushes(world)))


def test_clear_members_plants_a_new_tree() -> None:
    world = lab(unicast(key_tree=True))
    before = keys_of(world.members[0]).path
    world.server.clear_members(LAB, world.now)
    world.settle()
    assert len(world.server.group(LAB).tree or ()) == 0
    world.run(200)
    assert [member.successes for member in world.members] == [2, 2, 2]
    after = keys_of(world.members[0]).path
    assert before is not None and after is not None and not set(before.keys) & set(after.keys)


def test_evicting_whom_nobody_knows_changes_no_key() -> None:
    world = lab(unicast(key_tree=True))
    before = world.server.group(LAB).kek
    world.server.evict(LAB, member_address(77), world.now)
    assert world.server.group(LAB).kek == before and not world.server.datagrams_to_send()


def test_the_kek_goes_over_to_another_in_the_usual_way_and_the_tree_stays() -> None:
    world = lab(unicast(key_tree=True, lifetime=7200))
    paths = [keys_of(member).path for member in world.members]
    first = kek_of(world.members[0]).spi
    world.run(20000)
    assert kek_of(world.members[0]).spi != first
    assert [member.successes for member in world.members] == [1, 1, 1]
    assert [keys_of(member).path for member in world.members] == paths
    world.server.evict(LAB, GM1, world.now)
    world.run(world.now + 60)
    assert [member.successes for member in world.members[1:]] == [1, 1]
    assert kek_of(world.members[1]).key == kek_of(world.members[2]).key


@transports
def test_members_that_announce_no_key_trees_get_a_plain_kek_and_come_back_after_an_eviction(
    configuration: KeyServerGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setattr(vendor, "PRIVATE_PROPOSALS", bytes(16))
        server = key_server(configuration, 4)
        plain = group_member(3)
        world = Rekeyed(server, [plain])
    assert keys_of(plain).path is None
    tree_members = [group_member(number) for number in range(3)]
    for member in tree_members:
        world.parties[member.membership.local_address] = member
        world.events[member.membership.local_address] = []
        member.start(world.now)
    world.members = [*tree_members, plain]
    world.settle()
    group = world.server.group(LAB)
    assert group.tree is not None and set(group.tree.members) == {GM1, GM2, GM3}
    world.server.evict(LAB, GM1, world.now)
    world.run(world.now + 170)
    assert [member.successes for member in world.members] == [1, 1, 1, 2]
    assert teks_of(plain) == teks_of(tree_members[1]) and "GM_RECV_DELETE" in world.logs(member_address(3))


def test_a_tree_planted_later_takes_members_as_they_register() -> None:
    configuration = unicast()
    world = lab(configuration)
    world.server.reconfigure(replace(configuration, rekey=replace(configuration.rekey, key_tree=True)))
    world.server.clear_members(LAB, world.now)
    world.run(200)
    assert len(world.server.group(LAB).tree or ()) == 3
    world.server.evict(LAB, GM1, world.now)
    world.run(300)
    assert [member.successes for member in world.members[1:]] == [2, 2]


def test_keys_of_another_size_need_another_tree() -> None:
    """The KEK's algorithm changes: old paths are worth nothing, and an eviction has members come back for new ones."""
    configuration = unicast(key_tree=True)
    world = lab(configuration)
    world.server.reconfigure(replace(configuration, rekey=replace(configuration.rekey, key_bits=128)))
    world.server.rekey(LAB, world.now)
    world.run(200)
    assert [len(kek_of(member).key) for member in world.members] == [16] * 3
    assert [member.successes for member in world.members] == [1, 1, 1]
    world.server.evict(LAB, GM1, world.now)
    world.run(400)
    assert [member.successes for member in world.members[1:]] == [2, 2]
    assert len(world.server.group(LAB).tree or ()) == 2
    world.server.evict(LAB, GM2, world.now)
    world.run(600)
    assert world.members[2].successes == 2


def test_no_tree_for_a_key_size_that_cannot_be_wrapped() -> None:
    with pytest.raises(LocalError, match="192 bits"):
        lab(unicast(key_tree=True, key_bits=192))


def test_3des_keks_have_trees_too() -> None:
    world = lab(unicast(key_tree=True, encryption=Encryption.TRIPLE_DES))
    world.server.evict(LAB, GM1, world.now)
    world.run(20)
    assert [member.successes for member in world.members[1:]] == [1, 1]
    assert kek_of(world.members[1]).key == kek_of(world.members[2]).key != b""


def test_a_registration_that_an_eviction_overtakes_is_asked_to_begin_anew() -> None:
    late = group_member(3)
    server = key_server(unicast(key_tree=True), 4)
    world = Rekeyed(server, [group_member(number) for number in range(3)])
    world.parties[member_address(3)] = late
    world.events[member_address(3)] = []
    held: list[Datagram] = []
    carry = world.network

    def hold_message_3(datagram: Datagram) -> list[Datagram]:
        if datagram.source.address == member_address(3) and datagram.data[18] == ExchangeType.GROUPKEY_PULL:
            held.append(datagram)
            if len(held) == 2:
                return []
        return carry(datagram)

    world.network = hold_message_3
    late.start(world.now)
    world.settle()
    server.evict(LAB, GM1, world.now)
    world.settle()
    server.receive_datagram(held[1], world.now)
    world.run(30)
    assert late.successes == 1 and kek_of(late).key == kek_of(world.members[1]).key
    assert keys_of(late).path is not None


steps = st.lists(
    st.tuples(st.sampled_from(["evict", "evict-now", "allow", "rekey", "wait"]), st.integers(0, 5)), max_size=10
)


@settings(max_examples=15, deadline=None)
@given(steps, st.sampled_from(TREES))
def test_whatever_the_orders_members_inside_share_keys_and_those_outside_get_none(
    orders: list[tuple[str, int]], configuration: KeyServerGroup
) -> None:
    world = lab(configuration, members=6)
    out: dict[int, set[bytes]] = {}
    allowed: set[int] = set()
    for kind, number in orders:
        if kind.startswith("evict") and number not in out:
            keys = world.members[number].keys
            out[number] = set() if keys is None else {tek.encryption_key for tek in keys.teks.values()}
            # What is on its way to it already, it may still read.
            world.server.evict(LAB, member_address(number), world.now, immediate=kind == "evict-now")
        elif kind == "allow" and number in out:
            del out[number]
            allowed.add(number)
            world.server.allow(LAB, member_address(number))
            world.members[number].clear(world.now)
        elif kind == "rekey" and world.server.group(LAB).members:
            world.server.rekey(LAB, world.now)
        world.run(world.now + 7.0 * (number + 1))
        for evicted, known in out.items():
            keys = world.members[evicted].keys
            assert keys is None or {tek.encryption_key for tek in keys.teks.values()} <= known
    world.run(world.now + 200)
    inside = [member for number, member in enumerate(world.members) if number not in out]
    assert len({kek_of(member).key for member in inside}) <= 1
    assert len({frozenset(teks_of(member)) for member in inside}) <= 1
    for number, member in enumerate(world.members):
        if number not in out and number not in allowed:
            assert member.successes == 1, "an eviction made somebody else register"


def test_octets_of_an_update_that_were_changed_change_nothing() -> None:
    world = lab(multicast(key_tree=True))
    world.server.evict(LAB, GM1, world.now)
    first, _ = world.server.datagrams_to_send()
    member = world.members[1]
    before = member.keys
    chance = random.Random(1)
    for _ in range(300):
        data = bytearray(first.data)
        data[chance.randrange(28, len(data))] ^= 1 << chance.randrange(8)
        member.receive_datagram(replace(first, data=bytes(data)), world.now)
        assert member.keys == before
    member.receive_datagram(first, world.now)
    assert member.keys != before


def test_tshark_reads_the_keys_of_a_tree(tmp_path: Path) -> None:
    """An LKH packet in KD, named as such by a dissector that we did not write."""
    world = lab(multicast(key_tree=True))
    old = kek_of(world.members[1])
    world.server.evict(LAB, GM1, world.now)
    first, _ = world.server.datagrams_to_send()
    header, plaintext = decrypt(first.data, old)
    # The dissector reads payloads in clear: the same message without its encryption flag.
    clear = bytearray(header.with_length(28 + len(plaintext)).pack())
    clear[19] = 0
    shown = dissect(tmp_path, bytes(clear) + plaintext)
    assert "Type: LKH (3)" in shown
    # SAK and the key packet name the same new KEK; the arrays are for the left half (its leaf, then two keys) and C.
    assert shown.count(f"SPI: {kek_after(world).spi.hex()}") == 2
    lengths = [int(found) for found in re.findall(r"\(t=2,l=(\d+)\)", shown.split("Payload: Key Download")[1])]
    head, entry = 12, 16 + 48
    assert lengths == [head + 2 * entry, head + entry]


def kek_after(world: Rekeyed) -> KeyEncryptionKey:
    """The key server's, at this moment."""
    kek = world.server.group(LAB).kek
    assert kek is not None
    return kek


def dissect(folder: Path, datagram: bytes) -> str:
    assert shutil.which("tshark"), "tshark is an oracle of the tests"
    from scapy.all import IP, UDP, Ether, wrpcap

    capture = folder / "lkh.pcap"
    packet = Ether() / IP(src="10.255.0.11", dst="239.192.1.1") / UDP(sport=848, dport=848) / datagram
    wrpcap(str(capture), [packet])
    done = subprocess.run(
        ["tshark", "-r", str(capture), "-V", "-d", "udp.port==848,isakmp"], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_first_rekey_brings_no_policy_of_traffic_and_takes_none() -> None:
    world = lab(unicast(key_tree=True))
    member = world.members[1]
    before = keys_of(member)
    world.server.evict(LAB, GM1, world.now)
    first = next(item for item in world.server.datagrams_to_send() if item.destination.address == GM2)
    member.receive_datagram(first, world.now)
    after = keys_of(member)
    assert (after.rules, after.teks, after.sender_ids) == (before.rules, before.teks, before.sender_ids)
    assert after.kek is not None and after.kek != before.kek and after.path != before.path


def signed(world: Rekeyed, sak: SaKek, attributes: tuple[Attribute, ...]) -> bytes:
    """A rekey that the key server might send, with an LKH packet of any content: authenticated, whatever it says."""
    packet = KeyPacket(KdType.LKH, sak.spi, attributes)
    told = Push(1, (), GdoiSa(sak, None, ()), KeyDownload((packet,)))
    return build(told, replace(kek_after(world), sequence=1), signing_key())


def sak_of(world: Rekeyed, **changes: int) -> SaKek:
    """SAK of a new KEK in the tree, some attributes changed by name."""
    kek = replace(kek_after(world), spi=bytes(range(16)))
    sak = encoding.sa_kek(kek, KS1, 2048, world.now, in_tree=True)
    wanted = {int(KekAttribute[name]): value for name, value in changes.items()}
    kept = tuple(Attribute.tv(item.kind, wanted[item.kind]) if item.kind in wanted else item for item in sak.attributes)
    return replace(sak, attributes=kept)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.binary(max_size=120), st.booleans(), st.integers(0, 3)), min_size=1, max_size=4
    ),
    st.sampled_from([128, 192, 256]),
)
def test_a_key_server_that_says_nonsense_of_the_tree_changes_nothing(
    arrays: list[tuple[int, bytes, bool, int]], bits: int
) -> None:
    """Signed octets of every kind, half of them under the header of a key that the member holds."""
    world = lab(multicast(key_tree=True), members=2)
    member = world.members[1]
    before = keys_of(member)
    assert before.path is not None
    leaf = before.path.keys[0]
    attributes = []
    for kind, octets, plausible, count in arrays:
        size = 16 + 16 + bits // 8
        body = bytes((1,)) + count.to_bytes(2, "big") + bytes(1)
        body += leaf.lkh_id.to_bytes(2, "big") + bytes(2) + leaf.handle.to_bytes(4, "big")
        body += b"".join(
            bytes((0, number + 1, 3, 0)) + octets.ljust(size, b"\x07")[: size - 4] for number in range(count)
        )
        attributes.append(Attribute.tlv(kind, body if plausible else octets))
    data = signed(world, sak_of(world, KEY_LENGTH=bits), tuple(attributes))
    datagram = Datagram(data, Endpoint(KS1), Endpoint(member.membership.local_address))
    member.receive_datagram(datagram, world.now)
    after = keys_of(member)
    assert after.teks == before.teks
    assert after.path is not None and len(after.path.keys) < MAX_LKH_KEYS


def test_a_key_size_that_is_no_whole_blocks_is_refused_in_an_update() -> None:
    world = lab(multicast(key_tree=True), members=2)
    member = world.members[1]
    path = keys_of(member).path
    assert path is not None
    leaf = path.keys[0]
    entry = LkhKey(1, 3, 5, bytes(16 + 24))
    array = Attribute.tlv(LkhAttribute.UPDATE_ARRAY, LkhUpdateArray(leaf.lkh_id, leaf.handle, (entry,)).pack())
    public = Attribute.tlv(LkhAttribute.SIG_ALGORITHM_KEY, signing_key().public.der)
    data = signed(world, sak_of(world, KEY_LENGTH=192), (array, public))
    before = member.keys
    member.receive_datagram(Datagram(data, Endpoint(KS1), Endpoint(member.membership.local_address)), world.now)
    world.settle()
    assert member.keys == before
    assert "not whole blocks" in world.texts(GM2, "GDOI_REKEY_FAILURE")[-1]
