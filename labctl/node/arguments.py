"""Arguments of requests, checked: whatever the other side of the door sends, the answer is a clear error."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Any

from labctl.door import DoorError


def bad_argument(op: str, name: str, problem: str, hint: str = "") -> DoorError:
    """The error for an argument that cannot be used."""
    return DoorError("bad-argument", f"{op}: {name}: {problem}", hint)


class Arguments:
    """The arguments of one request, by type. Every getter raises DoorError `bad-argument`; None counts as absent."""

    def __init__(self, op: str, values: Mapping[str, Any]) -> None:
        if not isinstance(values, Mapping):
            raise bad_argument(op, "args", "expected an object")
        self._op = op
        self._values = {name: value for name, value in values.items() if value is not None}

    def known(self, *names: str) -> Arguments:
        """Refuse any argument that is not named here: a misspelt one must not be ignored."""
        for name in self._values:
            if name not in names:
                raise self.error(name, "there is no such argument", f"known are {', '.join(names)}")
        return self

    def error(self, name: str, problem: str, hint: str = "") -> DoorError:
        """For what only the caller can judge."""
        return bad_argument(self._op, name, problem, hint)

    def text(self, name: str, default: str | None = None) -> str:
        """A string."""
        return str(self._typed(name, str, default))

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        return bool(self._typed(name, bool, default))

    def integer(self, name: str, default: int | None, low: int, high: int) -> int:
        """A whole number of a range."""
        value = self._typed(name, int, default)
        if isinstance(value, bool) or not low <= value <= high:
            raise self.error(name, f"{value!r} is not in {low}..{high}")
        return int(value)

    def seconds(self, name: str, default: float, low: float, high: float) -> float:
        """A time."""
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.error(name, f"{value!r} is not in {low:g}..{high:g} seconds")
        return float(value)

    def address(self, name: str) -> IPv4Address | None:
        """An IPv4 address, or None where there is none."""
        if name not in self._values:
            return None
        try:
            return IPv4Address(self.text(name))
        except AddressValueError as error:
            raise self.error(name, f"not an IPv4 address: {error}") from None

    def any_address(self, name: str) -> IPv4Address | IPv6Address | None:
        """An address of either family, or None where there is none."""
        if name not in self._values:
            return None
        try:
            return ip_address(self.text(name))
        except ValueError as error:
            raise self.error(name, f"not an IP address: {error}") from None

    def octets(self, name: str) -> bytes:
        """Octets in base64; none by default."""
        try:
            return base64.b64decode(self.text(name, ""), validate=True)
        except binascii.Error as error:
            raise self.error(name, f"not base64: {error}") from None

    def strings(self, name: str) -> list[str]:
        """A list of strings with at least one."""
        value = self._typed(name, list, None)
        if not value or not all(isinstance(item, str) and "\0" not in item for item in value):
            raise self.error(name, "expected a list of strings that is not empty")
        return list(value)

    def mapping(self, name: str) -> dict[str, str]:
        """Strings by name; none by default."""
        value = self._typed(name, dict, {})
        for key, item in value.items():
            if not isinstance(item, str) or "\0" in item or "\0" in key or "=" in key or not key:
                raise self.error(name, f"{key!r}: expected a string under a name without '='")
        return dict(value)

    def value(self, name: str) -> Any:
        """Whatever is there."""
        if name not in self._values:
            raise self.error(name, "missing")
        return self._values[name]

    def _typed(self, name: str, kind: type, default: Any) -> Any:
        value = self._values.get(name, default)
        if value is None:
            raise self.error(name, "missing")
        if not isinstance(value, kind):
            raise self.error(name, f"expected {kind.__name__}, found {type(value).__name__}")
        return value
