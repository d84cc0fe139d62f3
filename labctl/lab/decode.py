"""`decode`: a copy of a capture that Wireshark reads, with the keys of a key log."""

from __future__ import annotations

import os
from pathlib import Path

from labctl.decode import Counts, NotPcapng, RekeyKey, RekeyKeyError, decode, read_rekey_keys
from labctl.lab.errors import BadRequest
from labctl.lab.keylog import TABLES


def decode_file(source: Path, target: Path, keylog: Path) -> Counts:
    """Write `target`, mode 0600: what it shows was encrypted. Raises BadRequest; then `target` is as it was."""
    keys = _keys(keylog / TABLES["rekey"])
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with source.open("rb") as capture, os.fdopen(os.open(part, _NEW, 0o600), "wb") as copy:
            counts = decode(capture, copy, keys)
        part.replace(target)
    except NotPcapng as error:
        raise BadRequest(f"{source} is not a whole pcapng file: {error}", "'labctl capture -w' writes one") from None
    except OSError as error:
        name = target if error.filename == str(part) else error.filename
        raise BadRequest(f"{name}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return counts


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def _keys(table: Path) -> dict[bytes, RekeyKey]:
    try:
        return read_rekey_keys(table.read_text().splitlines())
    except FileNotFoundError:
        raise BadRequest(
            f"there is no key log of rekeys at {table}", "'labctl up --keylog' keeps one; --keys names its folder"
        ) from None
    except OSError as error:
        raise BadRequest(f"{table}: {error.strerror}") from None
    except RekeyKeyError as error:
        raise BadRequest(f"{table}: {error}") from None
