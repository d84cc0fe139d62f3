"""GDOI datagrams in the form that Wireshark's ISAKMP dissector reads (reference/gdoi-protocol.md 10.1).

- Rekeys (exchange 33): no key log of its own opens them. Decrypted, the flag E cleared, without their padding.
- Exchanges under phase 1, GROUPKEY-PULL first of all: it opens them only where it saw phase 1. The same with them.
- SAT: it takes ID lengths for two octets, against RFC 6407 5.4.1: they are made so, and the lengths around them fit.
- Messages 1 and 2 of Main Mode: it learns algorithms from domain of interpretation 1 alone, so 2 becomes 1; with that,
  `ikev1_decryption_table` opens the rest of phase 1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from labctl import crypto
from labctl.decode.keys import ExchangeKey, RekeyKey
from labctl.isakmp.errors import PeerError
from labctl.isakmp.header import HEADER_OCTETS, Doi, ExchangeType, Flag, Header, PayloadType

GENERIC_OCTETS = 4

# Of the first SA payload of a message, behind its generic header: DOI and situation (RFC 2408 3.4).
_DOI = slice(HEADER_OCTETS + GENERIC_OCTETS, HEADER_OCTETS + GENERIC_OCTETS + 4)
_DOI_AND_SITUATION = slice(_DOI.start, _DOI.stop + 4)
_SITUATION_IDENTITY_ONLY = (1).to_bytes(4, "big")

# Of an SA payload of GDOI: generic header, DOI, situation, type of the first nested payload, reserved (RFC 6407 5.2).
_SA_FIXED_OCTETS = 16
_SA_NEXT = 12


def readable(data: bytes, keys: Mapping[bytes, RekeyKey]) -> bytes:
    """A datagram as the dissector wants it; as it is where there is nothing to do or to be done."""
    try:
        header = Header.parse(data)
    except PeerError:
        return data
    if header.exchange == ExchangeType.MAIN_MODE and not header.flags & Flag.ENCRYPTION:
        return _with_ipsec_doi(header, data)
    if header.exchange == ExchangeType.GROUPKEY_PUSH and header.flags & Flag.ENCRYPTION and header.cookies in keys:
        key = keys[header.cookies]
        return _decrypted(header, data, key.cipher, key.key, key.iv)
    return data


# Exchanges whose last blocks are remembered, for the IV of their next message.
MAX_EXCHANGES = 4096

# In clear, or encrypted otherwise.
_NOT_UNDER_PHASE_1 = (ExchangeType.MAIN_MODE, ExchangeType.GROUPKEY_PUSH, ExchangeType.GROUPKEY_PUSH_ACK)


class Exchanges:
    """Decrypts exchanges under phase 1, in the order in which their messages were captured."""

    def __init__(self, keys: Mapping[bytes, ExchangeKey]) -> None:
        self._keys = keys
        # Of each exchange the last block of the last message that could be read, if any, and of the last one.
        self._blocks: OrderedDict[tuple[bytes, int], tuple[bytes | None, bytes]] = OrderedDict()

    def readable(self, data: bytes) -> bytes:
        """A message of GROUPKEY-PULL, or another one under phase 1; as it is where it is none, or has no key."""
        try:
            header = Header.parse(data)
        except PeerError:
            return data
        if not header.flags & Flag.ENCRYPTION or header.exchange in _NOT_UNDER_PHASE_1:
            return data
        name, key = (header.cookies, header.message_id), self._keys.get(header.cookies)
        read, last = self._blocks.pop(name, (None, None))
        changed = data
        if key is not None:
            # The messages before may be missing here, or the last one was nobody's: so either may be the one before.
            first = key.first_iv(header.message_id) if read is None else read
            for iv in (first, last):
                if changed is data and iv is not None:
                    changed = _decrypted(header, data, key.cipher, key.key, iv[-len(key.last_block) :])
        block = data[-16:]
        self._blocks[name] = (block if changed is not data else read, block)
        if len(self._blocks) > MAX_EXCHANGES:
            self._blocks.popitem(last=False)
        return changed


def is_opened(before: bytes, after: bytes) -> bool:
    """True if `readable` decrypted it."""
    return before is not after and after[18] == ExchangeType.GROUPKEY_PUSH


def _with_ipsec_doi(header: Header, data: bytes) -> bytes:
    if header.next_payload != PayloadType.SA or data[_DOI] != int(Doi.GDOI).to_bytes(4, "big"):
        return data
    changed = bytearray(data)
    changed[_DOI_AND_SITUATION] = int(Doi.IPSEC).to_bytes(4, "big") + _SITUATION_IDENTITY_ONLY
    return bytes(changed)


def _decrypted(header: Header, data: bytes, cipher: crypto.BlockCipher, key: bytes, iv: bytes) -> bytes:
    try:
        plaintext = crypto.cbc_decrypt(cipher, key, iv, data[HEADER_OCTETS:])
    except ValueError:
        return data
    chain = _chain(header.next_payload, plaintext)
    if chain is None:
        return data  # another key than its SPI says, or a message that nobody can read
    body = b""
    for place, (kind, payload) in enumerate(chain):
        following = chain[place + 1][0] if place + 1 < len(chain) else 0
        whole = _widened(payload) if kind == PayloadType.SA else payload
        body += bytes((following,)) + whole[1:]
    flags = header.flags & ~Flag.ENCRYPTION
    length = HEADER_OCTETS + len(body)
    return data[:19] + bytes((flags,)) + data[20:24] + length.to_bytes(4, "big") + body


def _chain(kind: int, data: bytes) -> list[tuple[int, bytes]] | None:
    """Payloads with their generic headers, up to the padding; None where they do not fit."""
    found, position = [], 0
    while kind:
        following, length = _generic(data, position)
        if length < GENERIC_OCTETS or position + length > len(data):
            return None
        found.append((kind, data[position : position + length]))
        kind, position = following, position + length
    return found if position and not any(data[position:]) else None


def _generic(data: bytes, position: int) -> tuple[int, int]:
    """Next payload and length of a generic header; a length of 0 where there is none."""
    if position + GENERIC_OCTETS > len(data):
        return 0, 0
    return data[position], int.from_bytes(data[position + 2 : position + 4], "big")


def _widened(sa: bytes) -> bytes:
    """An SA payload of GDOI whose SATs have ID lengths of two octets."""
    if len(sa) < _SA_FIXED_OCTETS:
        return sa
    nested = _chain(int.from_bytes(sa[_SA_NEXT : _SA_NEXT + 2], "big"), sa[_SA_FIXED_OCTETS:])
    if nested is None:
        return sa
    wide = b""
    for kind, payload in nested:
        body = _wide_lengths(payload[GENERIC_OCTETS:]) if kind == PayloadType.SAT else payload[GENERIC_OCTETS:]
        wide += payload[:2] + (GENERIC_OCTETS + len(body)).to_bytes(2, "big") + body
    return sa[:2] + (_SA_FIXED_OCTETS + len(wide)).to_bytes(2, "big") + sa[GENERIC_OCTETS:_SA_FIXED_OCTETS] + wide


def _wide_lengths(body: bytes) -> bytes:
    """Of a SAT: protocol ID, protocol, source (type, port in two octets, length, data), destination likewise."""
    source = 2 + 3
    if len(body) <= source:
        return body
    destination = source + 1 + body[source] + 3
    if len(body) <= destination:
        return body
    return b"".join((body[:source], b"\0", body[source:destination], b"\0", body[destination:]))
