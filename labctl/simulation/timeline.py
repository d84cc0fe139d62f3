"""What happened in a run, for people: log messages of the parties, faults and orders, each with its time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from labctl.gdoi.events import LogMessage

# What every member says at every rekey and registration: counted, shown only on request.
ROUTINE = frozenset(
    {
        "GM_REGSTER",
        "GM_REGS_COMPL",
        "GM_INSTALL_POLICIES_SUCCESS",
        "GM_RECV_REKEY",
        "SA_TEK_UPDATED",
        "SA_KEK_UPDATED",
        "GDOI_ON_OFF",
        "KS_SEND_UNICAST_REKEY",
        "KS_SEND_MCAST_REKEY",
    }
)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened, seconds after the start."""

    at: float
    party: str
    text: str

    def __str__(self) -> str:
        return f"{stamp(self.at)}  {self.party:8} {self.text}"


@dataclass(slots=True)
class Timeline:
    """Keeps at most `limit` lines, and counts everything. `routine` keeps what every party says all the time, too."""

    limit: int
    routine: bool = False
    lines: list[Line] = field(default_factory=list)
    left_out: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    # What each party said last, and how often it has said so since.
    _last: dict[str, tuple[str, int]] = field(default_factory=dict)

    def say(self, now: float, party: str, text: str) -> None:
        """A fault, an order, a violation."""
        if len(self.lines) < self.limit:
            self.lines.append(Line(now, party, text))
        else:
            self.left_out += 1

    def log(self, now: float, party: str, message: LogMessage) -> None:
        """What a party logs."""
        self.messages[message.mnemonic] += 1
        if not self.routine and message.mnemonic in ROUTINE:
            return
        text = f"%{message.facility}-{message.severity}-{message.mnemonic}: {message.text}"
        last, times = self._last.get(party, ("", 0))
        if text == last:
            self._last[party] = (text, times + 1)
            return
        if times:
            self.say(now, party, f"(said that {times} more times)")
        self._last[party] = (text, 0)
        self.say(now, party, text)


def stamp(seconds: float) -> str:
    """`12d 03:04:05.678`."""
    whole, rest = divmod(max(0, round(seconds * 1000)), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days:3}d {hour:02}:{minute:02}:{second:02}.{rest:03}"
