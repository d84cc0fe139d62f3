"""`decode`: a copy of a capture that Wireshark reads, with the keys of a key log."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from labctl.decode import Counts, KeyLineError, NotPcapng, decode, read_exchange_keys, read_rekey_keys
from labctl.lab.errors import BadRequest
from labctl.lab.keylog import TABLES


def decode_file(source: Path, target: Path, keylog: Path) -> Counts:
    """Write `target`, mode 0600: what it shows was encrypted. Raises BadRequest; then `target` is as it was."""
    keys = _keys(keylog / TABLES["rekey"], read_rekey_keys)
    exchanges = _keys(keylog / TABLES["exchange"], read_exchange_keys)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with source.open("rb") as capture, os.fdopen(os.open(part, _NEW, 0o600), "wb") as copy:
            counts = decode(capture, copy, keys, exchanges)
        part.replace(target)
    except NotPcapng as error:
        raise BadRequest(f"{source} is not a whole pcapng file: {error}", "'labctl capture -w' writes one") from None
    except OSError as error:
        name = target if error.filename == str(part) else error.filename
        raise BadRequest(f"{name}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return counts


K = TypeVar("K")

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def _keys(table: Path, read: Callable[[Iterable[str]], dict[bytes, K]]) -> dict[bytes, K]:
    try:
        return read(table.read_text().splitlines())
    except FileNotFoundError:
        raise BadRequest(
            f"there is no key log of GDOI at {table}", "'labctl up --keylog' keeps one; --keys names its folder"
        ) from None
    except OSError as error:
        raise BadRequest(f"{table}: {error.strerror}") from None
    except KeyLineError as error:
        raise BadRequest(f"{table}: {error}") from None
