"""What stands in the place of an argument: how a word is read, how a value is written, and what `?` says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Interface
from typing import Any, Protocol


class Refused(ValueError):
    """A word is not what an argument takes."""


class Argument(Protocol):
    """One kind of argument. `rest` takes everything to the end of the line, as it stands."""

    @property
    def metavar(self) -> str:
        """What `?` shows: `<1-10>`, `WORD`, `A.B.C.D`."""

    @property
    def help(self) -> str:
        """One line beside it."""

    @property
    def rest(self) -> bool:
        """True for a line of text."""

    def read(self, word: str) -> Any:
        """The value. Raises Refused."""

    def write(self, value: Any) -> str:
        """The word, such that `read` gives the value again."""


def _number(word: str, low: int, high: int) -> int:
    """Decimal digits that say a number of the range. Raises Refused."""
    if not (word.isascii() and word.isdigit()) or len(word) > 12 or not low <= int(word) <= high:
        raise Refused(word)
    return int(word)


@dataclass(frozen=True, slots=True)
class Integer:
    """A number from `low` to `high`."""

    low: int
    high: int
    help: str = ""
    rest: bool = False

    @property
    def metavar(self) -> str:
        """The range."""
        return f"<{self.low}-{self.high}>"

    def read(self, word: str) -> int:
        """Decimal digits, within the range."""
        return _number(word, self.low, self.high)

    def write(self, value: Any) -> str:
        """Decimal."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Word:
    """Any word; `form` is what it must look like."""

    help: str = ""
    metavar: str = "WORD"
    form: str = r"\S+"
    rest: bool = False

    def read(self, word: str) -> str:
        """The word."""
        if not re.fullmatch(self.form, word):
            raise Refused(word)
        return word

    def write(self, value: Any) -> str:
        """The word."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Text:
    """The rest of the line."""

    help: str = ""
    metavar: str = "LINE"
    rest: bool = True

    def read(self, word: str) -> str:
        """Without the blanks at its ends."""
        if not word.strip():
            raise Refused(word)
        return word.strip()

    def write(self, value: Any) -> str:
        """As it is."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 address."""

    help: str = ""
    metavar: str = "A.B.C.D"
    rest: bool = False

    def read(self, word: str) -> IPv4Address:
        """Dotted."""
        try:
            return IPv4Address(word)
        except ValueError:
            raise Refused(word) from None

    def write(self, value: Any) -> str:
        """Dotted."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Mask:
    """A subnet mask; the value is a prefix length."""

    help: str = "IP subnet mask"
    metavar: str = "A.B.C.D"
    rest: bool = False

    def read(self, word: str) -> int:
        """Ones on the left."""
        try:
            inverse = int(IPv4Address(word)) ^ 0xFFFFFFFF
        except ValueError:
            raise Refused(word) from None
        if inverse & (inverse + 1):
            raise Refused(word)
        return 32 - inverse.bit_length()

    def write(self, value: Any) -> str:
        """Dotted."""
        return str(IPv4Address((0xFFFFFFFF << (32 - value)) & 0xFFFFFFFF))


@dataclass(frozen=True, slots=True)
class Ipv6Address:
    """An IPv6 address."""

    help: str = ""
    metavar: str = "X:X:X:X::X"
    rest: bool = False

    def read(self, word: str) -> IPv6Address:
        """Hexadecimal, with or without `::`."""
        try:
            return IPv6Address(word)
        except ValueError:
            raise Refused(word) from None

    def write(self, value: Any) -> str:
        """The canonical form (RFC 5952), in the upper case that IOS shows."""
        return str(value).upper()


@dataclass(frozen=True, slots=True)
class Ipv6Prefix:
    """An IPv6 prefix, or, with `host_bits`, an address with the length of its prefix."""

    help: str = ""
    metavar: str = "X:X:X:X::X/<0-128>"
    host_bits: bool = False
    rest: bool = False

    def read(self, word: str) -> IPv6Interface:
        """`2001:DB8::/32`."""
        try:
            found = IPv6Interface(word)
        except ValueError:
            raise Refused(word) from None
        if "/" not in word or (not self.host_bits and found.network.network_address != found.ip):
            raise Refused(word)
        return found

    def write(self, value: Any) -> str:
        """As it is read."""
        return str(value).upper()


@dataclass(frozen=True, slots=True)
class Named:
    """A number that has names, `eq bgp` or `eq 179`: one from `low` to `high`, written by its first name.

    `?` shows the names as keywords.
    """

    names: Mapping[str, int]
    low: int
    high: int
    help: str = ""
    rest: bool = False
    _words: dict[int, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, number in self.names.items():
            self._words.setdefault(number, name)

    @property
    def metavar(self) -> str:
        """The range."""
        return f"<{self.low}-{self.high}>"

    def read(self, word: str) -> int:
        """A name, whole, or digits."""
        number = self.names.get(word.lower())
        return _number(word, self.low, self.high) if number is None else number

    def write(self, value: Any) -> str:
        """The name, where there is one."""
        return self._words.get(value, str(value))


# IOS's kinds of interface, by what nodes of a lab call them.
_INTERFACES = (("GigabitEthernet", "eth"), ("Loopback", "lo"))
_INTERFACE = re.compile(r"([A-Za-z]+)\s*(?:0/)?(\d{1,3})")


@dataclass(frozen=True, slots=True)
class InterfaceName:
    """`GigabitEthernet0/1`, `gi0/1`, `Gig 0/1` or the node's own `eth1`; the value is the node's."""

    help: str = "Interface"
    metavar: str = "INTERFACE"
    rest: bool = False

    def read(self, word: str) -> str:
        """Any abbreviation that says one kind."""
        found = _INTERFACE.fullmatch(word)
        if found is None:
            raise Refused(word)
        kind, number = found.group(1).lower(), int(found.group(2))
        kinds = {own for name, own in _INTERFACES if name.lower().startswith(kind) or own == kind}
        if len(kinds) != 1:
            raise Refused(word)
        return f"{kinds.pop()}{number}"

    def write(self, value: Any) -> str:
        """`GigabitEthernet0/1`."""
        return ios_interface(str(value))


def ios_interface(name: str) -> str:
    """What IOS would call an interface of a node: `eth1` is `GigabitEthernet0/1`."""
    for ios, own in _INTERFACES:
        if name.startswith(own) and name[len(own) :].isdigit():
            return f"{ios}{'0/' if own == 'eth' else ''}{name[len(own) :]}"
    return name
