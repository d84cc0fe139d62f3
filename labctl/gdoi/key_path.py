"""A member's part of a key tree: its keys from leaf to below the root, and what an update makes of them.

RFC 6407 5.6.3; reference 5. Only arrays that name a key held here are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labctl.configuration import Encryption
from labctl.gdoi.payloads.lkh_download import LkhDownloadArray
from labctl.gdoi.payloads.lkh_key import MAX_LKH_KEYS
from labctl.gdoi.payloads.lkh_update import LkhUpdateArray
from labctl.gdoi.tree_key import TreeKey, read_key
from labctl.isakmp.errors import MalformedMessage, NotifyType, PeerError


class NotAddressed(PeerError):
    """No array of an update is for us: we are excluded, or have missed an update before."""

    notify = NotifyType.INVALID_KEY_INFORMATION


@dataclass(frozen=True, slots=True)
class KeyPath:
    """The keys of a member but the KEK, its leaf first."""

    keys: tuple[TreeKey, ...]

    @classmethod
    def downloaded(cls, array: LkhDownloadArray, encryption: Encryption) -> tuple[KeyPath, bytes]:
        """The path of a registration, and the KEK's IV | key. Raises MalformedMessage."""
        *path, kek = (read_key(entry, encryption) for entry in array.keys)
        return cls(tuple(path)), kek.octets

    def updated(self, arrays: Sequence[LkhUpdateArray], encryption: Encryption) -> tuple[KeyPath, bytes]:
        """The path after an update, and the new KEK's IV | key. Raises PeerError, NotAddressed among them.

        Keys above the one that opens an array are replaced by those in it.
        """
        for array in arrays:
            for place, held in enumerate(self.keys):
                if (held.lkh_id, held.handle) == (array.lkh_id, array.handle):
                    return self._follow(place, array, encryption)
        raise NotAddressed("no key of ours opens an array of it")

    def _follow(self, place: int, array: LkhUpdateArray, encryption: Encryption) -> tuple[KeyPath, bytes]:
        below = self.keys[: place + 1]
        under, found = self.keys[place], []
        for entry in array.keys:
            under = read_key(entry, encryption, under)
            found.append(under)
        path = below + tuple(found[:-1])
        if len(path) >= MAX_LKH_KEYS or len({key.lkh_id for key in path}) != len(path):
            raise MalformedMessage("an LKH update that makes a path too long, or one with a node twice")
        return KeyPath(path), found[-1].octets
