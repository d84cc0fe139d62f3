"""What came of a probe."""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

# Errors that the kernel reports when we send, in the words of the report.
ERRNO_WORDS = {
    "ENETUNREACH": "unreachable",
    "EHOSTUNREACH": "unreachable",
    "ENETDOWN": "unreachable",
    "EHOSTDOWN": "unreachable",
    "ECONNREFUSED": "refused",
    "ECONNRESET": "reset",
    "EPIPE": "reset",
    "EMSGSIZE": "too-big",
    "EACCES": "prohibited",
    "EPERM": "prohibited",
    "ETIMEDOUT": "timeout",
}


def error_word(error: OSError) -> str:
    """The report's word for an error of the kernel's."""
    return ERRNO_WORDS.get(errno.errorcode.get(error.errno or 0, ""), "send-failed")


@dataclass(slots=True)
class Report:
    """`errors` counts, by word, every echo that did not come back whole."""

    sent: int = 0
    rtts_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def result(self) -> dict[str, Any]:
        """The result of docs/internals.md."""
        return {
            "sent": self.sent,
            "received": len(self.rtts_ms),
            "rtts_ms": self.rtts_ms,
            "errors": dict(self.errors),
        }
