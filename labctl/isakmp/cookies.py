"""Responder cookies that an exchange can be made anew from (RFC 2408 2.5.3: ours alone, of one peer, without state).

A flood of first messages, each under another peer's address, pushes half-open exchanges out of their table. Message 3
brings our cookie back but not the offer, which both sides hash (RFC 2409 5). So a cookie is a place in a small table of
offers, and a code over that offer, the peer, its cookie and the time, under a secret of ours: what it fits to is what
we answered, and the exchange goes on as if it had never been dropped.

    cookie = place (2 octets) | HMAC-SHA-256(secret, period | addresses | initiator's cookie | offer)[:6]
"""

from __future__ import annotations

from collections import OrderedDict

from labctl import crypto
from labctl.configuration import Hash
from labctl.isakmp.datagram import Endpoint
from labctl.isakmp.main_mode import RandomSource

COOKIE_OCTETS = 8
PLACE_OCTETS = 2

# Members of one design send one and the same offer: the table holds few. Offers of peers that authenticated have places
# of their own, which no flood of other offers takes from them.
KNOWN_OFFERS = 256
STRANGE_OFFERS = 1024
# Longer first messages have cookies as well, but cannot be made anew.
MAX_OFFER_OCTETS = 2048


class Cookies:
    """Makes cookies, and finds the offer that a cookie of the present or the last `period` (seconds) answered."""

    def __init__(self, random: RandomSource, period: float) -> None:
        self._secret = random(32)
        self._period = period
        self._known = _Places(0, KNOWN_OFFERS)
        self._strange = _Places(KNOWN_OFFERS, STRANGE_OFFERS)

    def make(self, local: Endpoint, peer: Endpoint, initiator_cookie: bytes, offer: bytes, now: float) -> bytes:
        """Our cookie in answer to a first message; `offer` is all of it behind the header."""
        place = self._known.find(offer)
        if place is None:
            place = self._strange.put(offer[: MAX_OFFER_OCTETS + 1])
        return self._code(place, local, peer, initiator_cookie, offer, self._number(now))

    def recall(
        self, cookie: bytes, local: Endpoint, peer: Endpoint, initiator_cookie: bytes, now: float
    ) -> bytes | None:
        """The offer that was answered with a cookie; None where it is none of ours, too old, or the offer is gone."""
        place = int.from_bytes(cookie[:PLACE_OCTETS], "big")
        offer = self._known.at(place) or self._strange.at(place)
        if offer is None or len(offer) > MAX_OFFER_OCTETS:
            return None
        number = self._number(now)
        for period in (number, number - 1):
            if crypto.equal(cookie, self._code(place, local, peer, initiator_cookie, offer, period)):
                return offer
        return None

    def authenticated(self, cookie: bytes) -> None:
        """The exchange with this cookie came to its end: its offer is one of those worth keeping."""
        offer = self._strange.at(int.from_bytes(cookie[:PLACE_OCTETS], "big"))
        if offer is not None and len(offer) <= MAX_OFFER_OCTETS:
            self._known.put(offer)

    def _number(self, now: float) -> int:
        return int(now // self._period)

    def _code(
        self, place: int, local: Endpoint, peer: Endpoint, initiator_cookie: bytes, offer: bytes, period: int
    ) -> bytes:
        where = b"".join(item.address.packed + item.port.to_bytes(2, "big") for item in (local, peer))
        number = (period & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")
        code = crypto.hmac(Hash.SHA256, self._secret, number, where, initiator_cookie, offer)
        return place.to_bytes(PLACE_OCTETS, "big") + code[: COOKIE_OCTETS - PLACE_OCTETS]


class _Places:
    """Numbered places from `first` on; a new offer takes the place that was used last the longest time ago."""

    def __init__(self, first: int, size: int) -> None:
        self._first = first
        self._size = size
        self._by_offer: OrderedDict[bytes, int] = OrderedDict()
        self._by_place: dict[int, bytes] = {}

    def find(self, offer: bytes) -> int | None:
        """The place of an offer, now used again."""
        place = self._by_offer.get(offer)
        if place is not None:
            self._by_offer.move_to_end(offer)
        return place

    def put(self, offer: bytes) -> int:
        """The place of an offer, from now on."""
        place = self.find(offer)
        if place is None:
            if len(self._by_offer) < self._size:
                place = self._first + len(self._by_offer)
            else:
                _, place = self._by_offer.popitem(last=False)
            self._by_offer[offer] = place
            self._by_place[place] = offer
        return place

    def at(self, place: int) -> bytes | None:
        """The offer in a place."""
        return self._by_place.get(place)
