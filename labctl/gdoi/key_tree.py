"""The key tree of a key server: keys for subgroups of members, so that some can be left out of a rekey.

Logical key hierarchy, LKH (RFC 2627 5.4; RFC 6407 5.6.3; reference 5). Every member has a leaf of a binary tree and is
given the key of each node from there to the root, which is the group's KEK. To exclude a member, every key that it
knows is replaced; who is below a node that it is not below reads the new ones with that node's key.

    root 1: the KEK              leaves have the numbers from 32768, from left to right. Only the smallest subtree
      |                          that holds all of them is used; its top is the root of the tree.
    (levels not in use)
      |                          Growth gives the top a parent, which becomes the top; members need not hear of it:
      .          <- top          a former top has no key until the next exclusion gives it one, and is till then
     / \\                         spoken to through its children.
    n   n'                       A node without members has no key. Whoever comes first below one is given a new key.
   / \\ / \\

A leaf is free for another member only when everything its member knew has been replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from ipaddress import IPv4Address

from labctl.configuration import Encryption
from labctl.gdoi.tree_key import HANDLE_OCTETS, TreeKey, iv_octets
from labctl.isakmp.main_mode import RandomSource

# LKH IDs have 16 bits: the lowest level of a binary tree has this number of nodes, the first with this ID.
MOST_LEAVES = 1 << 15
FIRST_LEAF = MOST_LEAVES

_HANDLES = 1 << 8 * HANDLE_OCTETS


class TreeFull(Exception):
    """Every leaf is taken."""


@dataclass(frozen=True, slots=True)
class Cover:
    """Members below one node, all of whom hold `header`: the new keys for them, from the lowest to below the root."""

    header: TreeKey
    keys: tuple[TreeKey, ...]


@dataclass(frozen=True, slots=True)
class Update:
    """What an exclusion changed. Each member that is left is below the header of exactly one cover."""

    covers: dict[int, Cover]

    def cover_of(self, leaf: int) -> Cover | None:
        """The cover with a leaf below it. None for one that had no member then."""
        return next((self.covers[node] for node in _upwards(leaf) if node in self.covers), None)

    @property
    def keys(self) -> int:
        """Keys that are sent to reach everybody, each cover's KEK included."""
        return sum(len(cover.keys) + 1 for cover in self.covers.values())


def _upwards(node: int) -> Iterator[int]:
    """A node and all above it."""
    while node:
        yield node
        node >>= 1


class KeyTree:
    """Members, their leaves, and the keys of all nodes but the root."""

    def __init__(self, encryption: Encryption, key_octets: int, random: RandomSource) -> None:
        self.encryption = encryption
        self.key_octets = key_octets
        self._random = random
        self._handle = int.from_bytes(random(HANDLE_OCTETS), "big")
        self._leaves: dict[IPv4Address, int] = {}
        # Leaves that once had a member, lowest first; all from `_next` on never had one.
        self._free: list[int] = []
        self._next = FIRST_LEAF
        self._keys: dict[int, TreeKey] = {}
        # Members below each node from leaves to top.
        self._population: dict[int, int] = {}
        self._top = FIRST_LEAF

    def __len__(self) -> int:
        return len(self._leaves)

    def __contains__(self, member: object) -> bool:
        return member in self._leaves

    @property
    def members(self) -> Iterable[IPv4Address]:
        """Who has a leaf."""
        return self._leaves.keys()

    @property
    def depth(self) -> int:
        """Levels below the root."""
        return FIRST_LEAF.bit_length() - self._top.bit_length()

    def leaf(self, member: IPv4Address) -> int:
        """The node of a member. Raises KeyError."""
        return self._leaves[member]

    def path(self, member: IPv4Address) -> tuple[TreeKey, ...]:
        """A member's keys from its leaf upwards, without the KEK. Raises KeyError."""
        return tuple(self._keys[node] for node in self._used(self._leaves[member]) if node in self._keys)

    def join(self, member: IPv4Address) -> tuple[TreeKey, ...]:
        """Give a member a leaf, if it has none, and return its path. Raises TreeFull, changing nothing."""
        if member not in self._leaves:
            leaf = self._take_leaf()
            self._leaves[member] = leaf
            for node in self._used(leaf):
                first = node not in self._population
                self._population[node] = self._population.get(node, 0) + 1
                if first and (node != self._top or node == leaf):
                    self._renew(node)
        return self.path(member)

    def exclude(self, members: Iterable[IPv4Address]) -> Update:
        """Take members out, and replace every key that they know; the KEK is the caller's to replace.

        Members that have no leaf are passed over: without any, only the KEK is new to everybody.
        """
        known: set[int] = set()
        for member in members:
            leaf = self._leaves.pop(member, None)
            if leaf is None:
                continue
            heappush(self._free, leaf)
            for node in self._used(leaf):
                known.add(node)
                self._population[node] -= 1
                if not self._population[node]:
                    del self._population[node]
                    self._keys.pop(node, None)
        covers: dict[int, Cover] = {}
        if self._top == FIRST_LEAF:
            self._cover(self._top, (), known, covers)
        else:
            self._cover(2 * self._top, (), known, covers)
            self._cover(2 * self._top + 1, (), known, covers)
        return Update(covers)

    def _cover(self, node: int, above: tuple[TreeKey, ...], known: set[int], covers: dict[int, Cover]) -> None:
        """Reach everybody below a node: by its key or, where that must be new, through its children."""
        if node not in self._population:
            return
        if node in self._keys and node not in known:
            covers[node] = Cover(self._keys[node], above)
            return
        keys = (self._renew(node), *above)
        self._cover(2 * node, keys, known, covers)
        self._cover(2 * node + 1, keys, known, covers)

    def _used(self, leaf: int) -> Iterator[int]:
        """The nodes from a leaf to the top."""
        return (node for node in _upwards(leaf) if node >= self._top)

    def _take_leaf(self) -> int:
        if self._free:
            return heappop(self._free)
        if self._next == FIRST_LEAF + MOST_LEAVES:
            raise TreeFull(f"all {MOST_LEAVES} leaves of the key tree are taken")
        leaf, self._next = self._next, self._next + 1
        while leaf >> self.depth != self._top:
            if self._top in self._population:
                self._population[self._top >> 1] = self._population[self._top]
            self._top >>= 1
        return leaf

    def _renew(self, node: int) -> TreeKey:
        self._handle = (self._handle + 1) % _HANDLES
        key = TreeKey(
            node,
            self._handle,
            self.encryption,
            self._random(iv_octets(self.encryption)),
            self._random(self.key_octets),
        )
        self._keys[node] = key
        return key
