"""The key tree against a naive model: what can be derived from every octet that was ever sent."""

from __future__ import annotations

import random
from collections.abc import Iterable
from ipaddress import IPv4Address

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from gdoi_parties import member_address
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.configuration import Encryption
from labctl.gdoi.key_path import KeyPath, NotAddressed
from labctl.gdoi.key_tree import FIRST_LEAF, MOST_LEAVES, KeyTree, TreeFull, Update
from labctl.gdoi.payloads.lkh_download import LkhDownloadArray
from labctl.gdoi.payloads.lkh_key import LKH_ARRAY_HEADER_OCTETS, LKH_KEY_HEADER_OCTETS, MAX_LKH_KEYS, LkhKey
from labctl.gdoi.payloads.lkh_update import LkhUpdateArray
from labctl.gdoi.tree_key import ROOT, TreeKey, fits_tree, update_array
from labctl.isakmp.errors import MalformedMessage
from labctl.isakmp.reader import Reader

KEY_OCTETS = 32
DATA_OCTETS = 16 + KEY_OCTETS
UPDATE_HEADER_OCTETS = LKH_ARRAY_HEADER_OCTETS + 8


class Group:
    """A key server's tree and KEK, the paths of its members, and every octet that went over the wire."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed).randbytes
        self.tree = KeyTree(Encryption.AES_CBC, KEY_OCTETS, self.random)
        self.kek = self._new_kek()
        self.paths: dict[IPv4Address, KeyPath] = {}
        self.keks: dict[IPv4Address, bytes] = {}
        # By member: what its registrations brought, in clear for it alone.
        self.downloads: dict[IPv4Address, list[bytes]] = {}
        # What everybody can record, also who is no member.
        self.updates: list[bytes] = []
        self.all_keks = {self.kek.octets}

    def _new_kek(self) -> TreeKey:
        handle = int.from_bytes(self.random(4), "big")
        return TreeKey(ROOT, handle, Encryption.AES_CBC, self.random(16), self.random(KEY_OCTETS))

    def join(self, member: IPv4Address) -> None:
        path = self.tree.join(member)
        data = LkhDownloadArray(tuple(key.in_clear() for key in (*path, self.kek))).pack()
        self.downloads.setdefault(member, []).append(data)
        array = LkhDownloadArray.parse(Reader(data), DATA_OCTETS)
        self.paths[member], self.keks[member] = KeyPath.downloaded(array, Encryption.AES_CBC)

    def exclude(self, members: Iterable[IPv4Address]) -> Update:
        members = list(members)
        for member in members:
            self.paths.pop(member, None)
            self.keks.pop(member, None)
        update = self.tree.exclude(members)
        self.kek = self._new_kek()
        self.all_keks.add(self.kek.octets)
        sent = [update_array(cover.header, (*cover.keys, self.kek)).pack() for cover in update.covers.values()]
        self.updates += sent
        arrays = [LkhUpdateArray.parse(Reader(data), DATA_OCTETS) for data in sent]
        for member, path in self.paths.items():
            self.paths[member], self.keks[member] = path.updated(arrays, Encryption.AES_CBC)
        return update

    def derivable(self, members: Iterable[IPv4Address]) -> set[bytes]:
        """Every IV | key that these can come to know together: each known key is tried on each recorded octet."""
        known = {data for member in members for download in self.downloads[member] for data in entries(download, 4)}
        grown = True
        while grown:
            grown = False
            for update in self.updates:
                first, *following = entries(update, UPDATE_HEADER_OCTETS)
                for key in list(known):
                    chain = [decrypt(key, first)]
                    for data in following:
                        chain.append(decrypt(chain[-1], data))
                    # Whoever has the right key sees it by the end: the KEK of some time. Wrong ones make noise.
                    if chain[-1] in self.all_keks and not known.issuperset(chain):
                        known.update(chain)
                        grown = True
        return known


def entries(array: bytes, header: int) -> list[bytes]:
    """The key data of an array, cut out by hand."""
    size = LKH_KEY_HEADER_OCTETS + DATA_OCTETS
    body = array[header:]
    assert len(body) % size == 0
    return [body[start + LKH_KEY_HEADER_OCTETS : start + size] for start in range(0, len(body), size)]


def decrypt(under: bytes, data: bytes) -> bytes:
    """AES-CBC by the library alone: IV | key opens IV | key."""
    context = Cipher(algorithms.AES(under[16:]), modes.CBC(under[:16])).decryptor()
    return context.update(data) + context.finalize()


A, B, C, D, E, F, G, H = (member_address(number) for number in range(8))


def test_excluding_one_of_eight_takes_the_three_messages_that_rfc_2627_counts() -> None:
    """RFC 2627 5.4: eight users, depth 3; to exclude one, the keys above it are new, and its sibling, its uncle and
    its great-uncle read them, with 1, 2 and 3 keys (the KEK last)."""
    group = Group()
    for member in (A, B, C, D, E, F, G, H):
        group.join(member)
    group.exclude([])  # the former tops get their keys
    group.join(A)
    assert group.tree.depth == 3
    before = dict(group.paths)
    update = group.exclude([C])
    leaf = FIRST_LEAF + 2
    sibling, uncle, great_uncle = leaf ^ 1, leaf >> 1 ^ 1, leaf >> 2 ^ 1
    assert {node: [key.lkh_id for key in cover.keys] for node, cover in update.covers.items()} == {
        sibling: [leaf >> 1, leaf >> 2],
        uncle: [leaf >> 2],
        great_uncle: [],
    }
    assert update.keys == 3 + 2 + 1
    # Nobody else's keys below the root have changed.
    for member in (E, F, G, H):
        assert group.paths[member] == before[member]
    assert group.paths[A].keys[:2] == before[A].keys[:2] and group.paths[A].keys[2] != before[A].keys[2]
    assert set(group.keks.values()) == {group.kek.octets}
    assert C not in group.keks


def test_a_worked_example_octet_by_octet() -> None:
    """Two members; the first is excluded: one array, opened with the second's leaf key, holds the KEK alone."""
    group = Group()
    group.join(A)
    group.join(B)
    leaf = group.paths[B].keys[0]
    group.exclude([A])
    (sent,) = group.updates
    expected_head = bytes.fromhex("01 0001 00") + (FIRST_LEAF + 1).to_bytes(2, "big") + bytes(2)
    expected_head += leaf.handle.to_bytes(4, "big")
    entry_head = bytes.fromhex("0001 03 00 00000000 00000000") + group.kek.handle.to_bytes(4, "big")
    assert sent[: len(expected_head)] == expected_head
    assert sent[len(expected_head) :][:LKH_KEY_HEADER_OCTETS] == entry_head
    assert decrypt(leaf.octets, sent[len(expected_head) + LKH_KEY_HEADER_OCTETS :]) == group.kek.octets


def test_who_is_excluded_finds_no_array_for_itself() -> None:
    group = Group()
    for member in (A, B, C):
        group.join(member)
    path = group.paths[B]
    group.exclude([B])
    arrays = [LkhUpdateArray.parse(Reader(data), DATA_OCTETS) for data in group.updates]
    with pytest.raises(NotAddressed):
        path.updated(arrays, Encryption.AES_CBC)


def test_a_leaf_is_reused_under_new_keys() -> None:
    group = Group()
    for member in (A, B, C, D):
        group.join(member)
    old = {key.octets for key in group.paths[B].keys}
    leaf = group.tree.leaf(B)
    group.exclude([B])
    group.join(E)
    assert group.tree.leaf(E) == leaf
    assert not old & {key.octets for key in group.paths[E].keys}
    handles = {(key.lkh_id, key.handle) for key in group.paths[E].keys}
    assert len(handles) == len(group.paths[E].keys)


def test_who_registers_again_keeps_its_leaf() -> None:
    group = Group()
    group.join(A)
    group.join(B)
    before = group.paths[A]
    group.join(A)
    assert group.paths[A] == before and len(group.tree) == 2


def test_thousands_of_members_join_without_a_word_to_the_others() -> None:
    """Growth changes no path; excluding one afterwards costs one array a level, and reaches everybody else."""
    group = Group()
    members = [IPv4Address("10.0.0.0") + number for number in range(5000)]
    for member in members:
        group.join(member)
    assert group.tree.depth == 13 and not group.updates
    group.exclude([])
    update = group.exclude([members[2345]])
    assert len(update.covers) == 13
    assert update.keys == sum(range(1, 14))
    assert len(group.keks) == 4999 and set(group.keks.values()) == {group.kek.octets}
    assert all(len(path.keys) < MAX_LKH_KEYS for path in group.paths.values())


def test_a_full_tree_says_so_and_frees_leaves_again() -> None:
    tree = KeyTree(Encryption.TRIPLE_DES, 24, random.Random(1).randbytes)
    members = [IPv4Address("10.0.0.0") + number for number in range(MOST_LEAVES)]
    for member in members:
        tree.join(member)
    assert tree.depth == 15
    with pytest.raises(TreeFull):
        tree.join(A)
    assert A not in tree and len(tree) == MOST_LEAVES
    tree.exclude([members[7]])
    tree.join(A)
    assert tree.leaf(A) == FIRST_LEAF + 7


def test_keys_that_are_no_whole_blocks_fit_no_tree() -> None:
    assert fits_tree(Encryption.AES_CBC, 128) and fits_tree(Encryption.AES_CBC, 256)
    assert not fits_tree(Encryption.AES_CBC, 192)
    assert fits_tree(Encryption.TRIPLE_DES, 192)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.lists(st.integers(0, 20), min_size=1, max_size=5)),
        st.tuples(st.just("exclude"), st.lists(st.integers(0, 20), max_size=3)),
    ),
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(0, 5))
def test_who_is_in_has_the_kek_and_who_is_out_cannot_derive_a_current_key(
    orders: list[tuple[str, list[int]]], seed: int
) -> None:
    """Everybody who is out works together, with all that was ever given to any of them before they left."""
    group = Group(seed)
    inside: set[IPv4Address] = set()
    for kind, numbers in orders:
        members = {member_address(number) for number in numbers}
        if kind == "join":
            for member in members:
                group.join(member)
            inside |= members
        else:
            group.exclude(members)
            inside -= members
        # Who is in, and nobody else, has a leaf, and the KEK of the moment.
        assert set(group.tree.members) == inside == set(group.keks)
        assert all(octets == group.kek.octets for octets in group.keks.values())
        for member in inside:
            assert group.paths[member].keys[0] == group.tree.path(member)[0]
            missing = set(group.tree.path(member)) - set(group.paths[member].keys)
            assert not missing, "a key that the tree counts on is not held"
    outside = set(group.downloads) - inside
    current = {group.kek.octets} | {key.octets for member in inside for key in group.tree.path(member)}
    # One who came back was out before: what it held then is its own again.
    gone = group.derivable(outside)
    if inside:
        assert not gone & current
        assert current <= group.derivable(inside)


@given(st.binary(max_size=400), st.sampled_from([0, 32, 48]))
def test_arrays_of_any_octets_are_read_or_refused(data: bytes, size: int) -> None:
    for parse in (LkhDownloadArray.parse, LkhUpdateArray.parse):
        try:
            array = parse(Reader(data), size)
        except MalformedMessage:
            continue
        assert array.pack() == data
        assert 1 <= len(array.keys) <= MAX_LKH_KEYS


def key(lkh_id: int, octets: bytes = bytes(DATA_OCTETS)) -> LkhKey:
    return LkhKey(lkh_id, 3, 7, octets)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (LkhDownloadArray(()).pack(), "0 keys"),
        (LkhDownloadArray(tuple(key(number) for number in range(1, MAX_LKH_KEYS + 2))).pack(), "17 keys"),
        (LkhDownloadArray((key(2), key(2))).pack(), "two keys for one node"),
        (b"\x02" + LkhDownloadArray((key(2),)).pack()[1:], "version 2"),
        (LkhDownloadArray((key(2),)).pack()[:-1], "wanted"),
        (LkhDownloadArray((key(2),)).pack() + b"\x00", "too many"),
    ],
)
def test_hostile_downloads_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(MalformedMessage, match=words):
        LkhDownloadArray.parse(Reader(data), DATA_OCTETS)


def test_an_update_cannot_encrypt_a_node_under_itself() -> None:
    data = LkhUpdateArray(5, 1, (key(2), key(5))).pack()
    with pytest.raises(MalformedMessage, match="under itself"):
        LkhUpdateArray.parse(Reader(data), DATA_OCTETS)


def test_an_update_makes_no_path_longer_than_a_tree_is_deep() -> None:
    """A foreign key server may number nodes as it likes; it cannot make a member keep more and more keys."""
    chance = random.Random(3)
    keys = [TreeKey(100 + n, n, Encryption.AES_CBC, chance.randbytes(16), chance.randbytes(32)) for n in range(40)]
    path = KeyPath(tuple(keys[:15]))
    array = update_array(keys[14], keys[20:23])
    with pytest.raises(MalformedMessage, match="too long"):
        path.updated([array], Encryption.AES_CBC)
    looped = update_array(keys[3], (keys[0], keys[22]))
    with pytest.raises(MalformedMessage, match="twice"):
        path.updated([looped], Encryption.AES_CBC)
