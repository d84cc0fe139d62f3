"""Log messages of a node as IOS prints them (reference/cisco-getvpn.md section 4)."""

from __future__ import annotations

import time
from typing import Any


def log_event(facility: str, severity: int, mnemonic: str, text: str) -> dict[str, Any]:
    """A `log` event with its finished `line`. Its time is the real clock's, so that the logs of all nodes sort."""
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
    """`*Nov 24 02:20:20.123: %GDOI-5-GM_REGS_COMPL: ...`, UTC. Control characters are no part of a line."""
    milliseconds = int(moment * 1000)
    stamp = time.strftime("%b %e %H:%M:%S", time.gmtime(milliseconds // 1000))
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return f"*{stamp}.{milliseconds % 1000:03d}: %{facility}-{severity}-{mnemonic}: {printable}"
