"""The captures of an independent GDOI implementation (their README lists where it strays from the RFC)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("LABCTL_VECTORS", ROOT.parent / "shared" / "vectors")) / "gdoid"

NAMES = (
    "registration-psk",
    "registration-psk-nokek",
    "registration-psk-ah",
    "registration-psk-gcm-sid",
    "rekey-psk-aes-g5",
    "rekey-psk-3des-md5-g1-2tek-gap",
    "rekey-psk-aes-sha256-g14",
)


def load(name: str) -> dict[str, Any]:
    """A capture. Without the folder: a failure in CI, a skip elsewhere."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        message = f"no captures in {FOLDER}: set LABCTL_VECTORS"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def octets(text: str) -> bytes:
    return bytes.fromhex(text)


def message(capture: dict[str, Any], name: str) -> bytes:
    """The datagram of a message."""
    return next(octets(item["datagram"]) for item in capture["messages"] if item["name"] == name)
