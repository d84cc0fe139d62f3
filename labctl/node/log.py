"""Log lines as a router writes them (reference/cisco-getvpn.md section 4)."""

from __future__ import annotations

import time
from typing import Any


def log_event(facility: str, severity: int, mnemonic: str, text: str) -> dict[str, Any]:
    """A log event for the door, with the finished line."""
    moment = time.time()
    return {
        "type": "log",
        "time": moment,
        "facility": facility,
        "severity": severity,
        "mnemonic": mnemonic,
        "text": text,
        "line": format_line(moment, facility, severity, mnemonic, text),
    }


def format_line(moment: float, facility: str, severity: int, mnemonic: str, text: str) -> str:
    """`*Mon DD HH:MM:SS.mmm: %FACILITY-SEV-MNEMONIC: text`, in UTC."""
    broken = time.gmtime(moment)
    stamp = time.strftime("%b %e %H:%M:%S", broken)
    return f"*{stamp}.{int(moment * 1000) % 1000:03d}: %{facility}-{severity}-{mnemonic}: {text}"
