"""The established phase-1 SAs of an endpoint: by cookies, by the peer's address, oldest first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import TypeVar

from labctl.isakmp.sa import Phase1Sa

K = TypeVar("K")


class Associations:
    """Finding one takes the same time among ten as among ten thousand."""

    def __init__(self) -> None:
        self._by_cookies: OrderedDict[bytes, Phase1Sa] = OrderedDict()
        self._by_address: dict[IPv4Address, dict[bytes, Phase1Sa]] = {}
        self._by_identity: dict[tuple[int, bytes], dict[bytes, Phase1Sa]] = {}

    def __len__(self) -> int:
        return len(self._by_cookies)

    def __iter__(self) -> Iterator[Phase1Sa]:
        return iter(self._by_cookies.values())

    def get(self, cookies: bytes) -> Phase1Sa | None:
        """The SA with these cookies."""
        return self._by_cookies.get(cookies)

    def of(self, address: IPv4Address) -> list[Phase1Sa]:
        """Those whose peer has this address, oldest first."""
        return list(self._by_address.get(address, {}).values())

    def of_identity(self, sa: Phase1Sa) -> list[Phase1Sa]:
        """Those whose peer calls itself as that of `sa` does, oldest first."""
        return list(self._by_identity.get(_identity(sa), {}).values())

    def add(self, sa: Phase1Sa) -> None:
        """Another one."""
        self._by_cookies[sa.cookies] = sa
        self._by_address.setdefault(sa.peer.address, {})[sa.cookies] = sa
        self._by_identity.setdefault(_identity(sa), {})[sa.cookies] = sa

    def remove(self, sa: Phase1Sa) -> bool:
        """It is over. False where it was before."""
        if self._by_cookies.pop(sa.cookies, None) is None:
            return False
        _take(self._by_address, sa.peer.address, sa.cookies)
        _take(self._by_identity, _identity(sa), sa.cookies)
        return True


def _identity(sa: Phase1Sa) -> tuple[int, bytes]:
    return sa.peer_identity.kind, sa.peer_identity.data


def _take(index: dict[K, dict[bytes, Phase1Sa]], key: K, cookies: bytes) -> None:
    """Remove from an index, and the key with the last of its SAs."""
    found = index[key]
    del found[cookies]
    if not found:
        del index[key]
