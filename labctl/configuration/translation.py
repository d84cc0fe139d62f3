"""Address translation and marking on a router, in IOS's notions, and the line that says a translation.

Grammar: `static LOCAL GLOBAL`, or `list PREFIX interface NAME overload`, or `list PREFIX pool FIRST [LAST] overload`:
what follows `ip nat inside source` on IOS, with the prefix itself instead of the number of an access list, and the
addresses themselves instead of the name of a pool. Code points by name: RFC 2474, RFC 2597, RFC 3246, RFC 5865.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, summarize_address_range

from labctl.configuration.policy import AccessListEntry
from labctl.configuration.words import Words, did_you_mean

# Class selectors, assured forwarding, expedited forwarding, voice admit, as `set dscp` completes them.
DSCP_NAMES: dict[str, int] = {
    "default": 0,
    **{f"cs{number}": number * 8 for number in range(1, 8)},
    **{f"af{major}{minor}": major * 8 + minor * 2 for major in range(1, 5) for minor in range(1, 4)},
    "ef": 46,
    "voice-admit": 44,
}
LARGEST_DSCP = 63

_FORM = "'static LOCAL GLOBAL', 'list PREFIX interface NAME overload' or 'list PREFIX pool FIRST [LAST] overload'"


@dataclass(frozen=True, slots=True)
class StaticTranslation:
    """`ip nat inside source static LOCAL GLOBAL`: one address for the other, whoever begins."""

    inside_local: IPv4Address
    inside_global: IPv4Address


@dataclass(frozen=True, slots=True)
class Overload:
    """`ip nat inside source list ... overload`: many addresses behind few, told apart by ports.

    Behind `interface`'s own address, or behind those from `first` to `last`. Only who is inside can begin.
    """

    inside_local: IPv4Network
    interface: str | None = None
    first: IPv4Address | None = None
    last: IPv4Address | None = None

    @property
    def pool(self) -> tuple[IPv4Address, ...]:
        """The pool's addresses; none behind an interface."""
        if self.first is None or self.last is None:
            return ()
        return tuple(IPv4Address(number) for number in range(int(self.first), int(self.last) + 1))


@dataclass(frozen=True, slots=True)
class AddressTranslation:
    """`ip nat inside` and `ip nat outside` on interfaces, and what is translated between them; statics come first."""

    inside: tuple[str, ...]
    outside: tuple[str, ...]
    statics: tuple[StaticTranslation, ...] = ()
    overloads: tuple[Overload, ...] = ()

    def globals_of(self, local: IPv4Address, own: Mapping[str, IPv4Address]) -> tuple[IPv4Address, ...]:
        """Under which addresses packets from `local` may leave; `own` are those of the interfaces. Empty: as they are.

        Of a pool the kernel takes one.
        """
        for static in self.statics:
            if static.inside_local == local:
                return (static.inside_global,)
        for overload in self.overloads:
            if local in overload.inside_local:
                if overload.interface is not None:
                    return (own[overload.interface],)
                return overload.pool
        return ()

    def local_of(self, inside_global: IPv4Address) -> IPv4Address | None:
        """Whom a static translation gives packets to that come for `inside_global`."""
        return next((item.inside_local for item in self.statics if item.inside_global == inside_global), None)

    def prefixes(self) -> tuple[IPv4Network, ...]:
        """The inside global addresses that are no interface's: somebody must route them here."""
        found = [IPv4Network(item.inside_global) for item in self.statics]
        for item in self.overloads:
            if item.first is not None and item.last is not None:
                found += summarize_address_range(item.first, item.last)
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class MarkingRule:
    """A class and what is set: packets that `entry` permits get `dscp`; those it denies keep theirs."""

    entry: AccessListEntry
    dscp: int


@dataclass(frozen=True, slots=True)
class Marking:
    """`service-policy input` on interfaces: of the rules the first that matches counts."""

    interfaces: tuple[str, ...]
    rules: tuple[MarkingRule, ...]


def parse_translation(line: str) -> StaticTranslation | Overload:
    """What follows `ip nat inside source`. Raises WordError with the column of the first word that does not fit."""
    words = Words(line)
    kind = words.take("'static' or 'list'", _FORM).lower()
    if kind == "static":
        local = _address(words, "the inside local address")
        found: StaticTranslation | Overload = StaticTranslation(local, _address(words, "the inside global address"))
        words.finish("static translations are of whole addresses: 'static LOCAL GLOBAL'")
        return found
    if kind != "list":
        words.fail(f"{kind!r} is not 'static' or 'list'", _FORM)
    local_prefix = _prefix(words)
    behind = words.take("'interface' or 'pool'", _FORM).lower()
    if behind == "interface":
        found = Overload(local_prefix, interface=words.take("the interface's name", _FORM))
    elif behind == "pool":
        first = _address(words, "the pool's first address")
        word = words.take("'overload', or the pool's last address", _FORM)
        last = first if word.lower() == "overload" else _read_address(words, word)
        if last < first:
            words.fail(f"the pool ends with {last}, before it begins", f"did you mean 'pool {last} {first}'?")
        found = Overload(local_prefix, first=first, last=last)
        if word.lower() == "overload":
            words.finish(_FORM)
            return found
    else:
        words.fail(f"{behind!r} is not 'interface' or 'pool'", did_you_mean(behind, ("interface", "pool")))
    ending = words.take("'overload'", "without it, each address inside would need one of the pool: use 'static'")
    if ending.lower() != "overload":
        words.fail(f"{ending!r} is not 'overload'", _FORM)
    words.finish(_FORM)
    return found


def parse_dscp(text: str | int) -> int | None:
    """A code point by name or number; None if it is none."""
    word = str(text).lower()
    if word in DSCP_NAMES:
        return DSCP_NAMES[word]
    if word.isascii() and word.isdigit() and int(word) <= LARGEST_DSCP:
        return int(word)
    return None


def _address(words: Words, what: str) -> IPv4Address:
    return _read_address(words, words.take(what, _FORM))


def _read_address(words: Words, word: str) -> IPv4Address:
    if ":" in word:
        words.fail(f"{word!r} is IPv6", "what is translated is IPv4: IPv6 keeps its addresses, also in an IPv6 group")
    try:
        return IPv4Address(word)
    except ValueError:
        words.fail(f"{word!r} is not an IPv4 address", _FORM)


def _prefix(words: Words) -> IPv4Network:
    word = words.take("a prefix", _FORM)
    if ":" in word:
        words.fail(f"{word!r} is IPv6", "what is translated is IPv4: IPv6 keeps its addresses, also in an IPv6 group")
    try:
        return IPv4Network(word)
    except ValueError as error:
        words.fail(f"{word!r} is not a prefix", f"for example 10.1.1.0/24: {error}")
