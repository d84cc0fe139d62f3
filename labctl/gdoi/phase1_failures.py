"""What a router logs of a phase 1 that failed (reference/cisco-getvpn.md 4)."""

from __future__ import annotations

from labctl.gdoi.events import LogMessage
from labctl.isakmp.events import Cause, Phase1Failed


def failure_message(failure: Phase1Failed) -> LogMessage:
    """The message, either side. Of certificates the catalogue has none: mnemonic and severity are (unverified)."""
    peer, reason = failure.peer.address, failure.reason
    if failure.cause == Cause.AUTHENTICATION:
        text = f"IKE message from {peer} failed its sanity check or is malformed: {reason}"
        return LogMessage("CRYPTO", 4, "IKMP_BAD_MESSAGE", text)
    if failure.cause == Cause.CERTIFICATE:
        return LogMessage("CRYPTO", 5, "IKMP_INVAL_CERT", f"Certificate received from {peer} is bad: {reason}")
    return LogMessage("CRYPTO", 6, "IKMP_MODE_FAILURE", f"Processing of Main mode failed with peer at {peer}: {reason}")
