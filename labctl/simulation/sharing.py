"""Work that many members of a run would do alike is done once: the same rekey, opened under the same KEK.

A thousand members get the same octets, and each would decrypt, parse and verify them to the same end. `RekeyOpener` is
what a member takes in the place of `gdoi.push.open_push` (the same code), and remembers what it found. A test runs
without it and sees the same month.
"""

from __future__ import annotations

from collections import OrderedDict

from labctl.gdoi.policy import KeyEncryptionKey
from labctl.gdoi.push import Push, open_push

# Rekeys that are remembered: copies of one come within minutes.
REMEMBERED = 64

_Key = tuple[bytes, bytes, bytes, bytes, bytes, int]


class RekeyOpener:
    """Opens rekeys, each once for all who hold the same KEK and have seen the same sequence number."""

    def __init__(self) -> None:
        self._opened: OrderedDict[_Key, Push] = OrderedDict()

    def __call__(self, data: bytes, kek: KeyEncryptionKey) -> Push:
        """As `open_push`. Raises PeerError: what is refused is refused to each anew."""
        key = (data, kek.spi, kek.iv, kek.key, kek.signature_key, kek.sequence)
        found = self._opened.get(key)
        if found is None:
            found = self._opened[key] = open_push(data, kek)
            if len(self._opened) > REMEMBERED:
                self._opened.popitem(last=False)
        return found
