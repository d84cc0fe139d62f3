"""Dataclasses to JSON values and back, driven by their type hints.

Written for the few shapes that node configurations and plans use: dataclasses, enums, tuples, dicts with string
keys, optional and union fields, octets (hex), `ipaddress` objects (text). The standard library has no such thing and
pydantic would cost every agent its import time and memory.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_ADDRESSES: dict[type, Callable[[Any], Any]] = {
    IPv4Address: ip_address,
    IPv6Address: ip_address,
    IPv4Network: ip_network,
    IPv6Network: ip_network,
    IPv4Interface: ip_interface,
    IPv6Interface: ip_interface,
}


class ConfigurationError(ValueError):
    """A JSON value does not fit its dataclass. `path` says where, for example `$.interfaces[0].mac`."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


def to_json(value: Any) -> Any:
    """Turn a dataclass tree into values that `json.dumps` takes."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_json(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, (tuple, list, frozenset)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if type(value) in _ADDRESSES:
        return str(value)
    return value


def from_json(cls: type[T], value: Any, path: str = "$") -> T:
    """Build `cls` from a value made by `to_json`. Raises ConfigurationError with the place of the first misfit."""
    result: T = _decode(cls, value, path)
    return result


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _decode(hint: Any, value: Any, path: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(hint), value, path)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigurationError(path, f"expected a list, found {type(value).__name__}")
        item_hints = get_args(hint)
        if len(item_hints) == 2 and item_hints[1] is Ellipsis:
            return tuple(_decode(item_hints[0], item, f"{path}[{index}]") for index, item in enumerate(value))
        if len(item_hints) != len(value):
            raise ConfigurationError(path, f"expected {len(item_hints)} items, found {len(value)}")
        return tuple(
            _decode(item_hint, item, f"{path}[{index}]")
            for index, (item_hint, item) in enumerate(zip(item_hints, value, strict=True))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigurationError(path, f"expected a mapping, found {type(value).__name__}")
        item_hint = get_args(hint)[1]
        return {str(key): _decode(item_hint, item, f"{path}.{key}") for key, item in value.items()}
    if hint is Any:
        return value
    if is_dataclass(hint):
        return _decode_dataclass(hint, value, path)
    return _decode_scalar(hint, value, path)


def _decode_union(members: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in members:
        return None
    problems = []
    for member in members:
        if member is type(None):
            continue
        try:
            return _decode(member, value, path)
        except ConfigurationError as error:
            problems.append(error)
    raise problems[0] if problems else ConfigurationError(path, "no value fits")


def _decode_dataclass(cls: Any, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigurationError(path, f"expected a mapping for {cls.__name__}, found {type(value).__name__}")
    hints = _hints(cls)
    known = {item.name: item for item in fields(cls)}
    for key in value:
        if key not in known:
            raise ConfigurationError(f"{path}.{key}", f"{cls.__name__} has no such field")
    arguments = {}
    for name, item in known.items():
        if name in value:
            arguments[name] = _decode(hints[name], value[name], f"{path}.{name}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ConfigurationError(f"{path}.{name}", "missing")
    return cls(**arguments)


def _decode_scalar(hint: Any, value: Any, path: str) -> Any:
    try:
        if isinstance(hint, type) and issubclass(hint, Enum):
            return hint(value)
        if hint in _ADDRESSES:
            decoded = _ADDRESSES[hint](value)
            if not isinstance(decoded, hint):
                raise ValueError(f"{value!r} is not an {hint.__name__}")
            return decoded
        if hint is bytes:
            return bytes.fromhex(value)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(path, str(error)) from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigurationError(path, f"expected {getattr(hint, '__name__', hint)}, found {type(value).__name__}")
