"""The groups of a key server as time and orders change them: their rekeys leave (RFC 6407 4), the log hears of it.

A `Group` says what has changed and what is due; here it is announced, sent, and the group's next moment noted. Log
messages in the words of reference/cisco-getvpn.md 4. Sans-IO.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from labctl.gdoi import encoding
from labctl.gdoi.events import Event, LogMessage, StateChanged
from labctl.gdoi.group import Change, Group
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.timers import Timers


def key_of(group: Group) -> bytes:
    """What a group is found by: its identity as a PULL names it (RFC 6407 3.2), the body of an ID payload."""
    return encoding.group_identity(group.configuration.identity).pack()


class ServedGroups:
    """Groups by identity. `withdraw(group)` is called where keys that were offered of it are no more."""

    def __init__(
        self, groups: Sequence[Group], tell: Callable[[Event], None], withdraw: Callable[[Group], None]
    ) -> None:
        self._groups = {key_of(group): group for group in groups}
        self._tell = tell
        self._withdraw = withdraw
        self._timers: Timers[bytes] = Timers()
        self._rekeys: list[Datagram] = []

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def find(self, identity: bytes) -> Group | None:
        """The group that a PULL names so (`key_of`), if it is served."""
        return self._groups.get(identity)

    def named(self, name: str) -> Group:
        """A group by name. Raises KeyError."""
        for group in self:
            if group.configuration.name == name:
                return group
        raise KeyError(name)

    def datagrams_to_send(self) -> list[Datagram]:
        """Rekeys that have to leave; the list is emptied."""
        rekeys, self._rekeys = self._rekeys, []
        return rekeys

    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called."""
        return self._timers.next_deadline()

    def handle_timer(self, now: float) -> None:
        """New keys and rekeys that are due."""
        while (identity := self._timers.pop_due(now)) is not None:
            group = self._groups[identity]
            self.apply(group, group.advance(now), now)

    def order(self, group: Group, order: Callable[[Group], Change], now: float) -> None:
        """Bring a group up to now, then change it as `order` does."""
        self._announce(group, group.advance(now))
        self.apply(group, order(group), now)

    def apply(self, group: Group, change: Change, now: float) -> None:
        """What has become of a group: say it, and send what is due."""
        self._announce(group, change)
        self.transmit(group, now)

    def transmit(self, group: Group, now: float) -> None:
        """Send what is due of a group's rekeys, and set its timer."""
        source = Endpoint(group.configuration.address)
        while True:
            copies, lost = group.transmit(now)
            self._rekeys += [Datagram(data, source, Endpoint(receiver)) for receiver, data in copies]
            if lost:
                self._announce(group, Change(departed=lost))
            excluded = group.exclude_departed(now)
            if excluded is None:
                break
            self._withdraw(group)
            self._announce(group, excluded)
        deadline = group.next_deadline()
        if deadline is not None:
            self._timers.set(key_of(group), deadline)

    def _announce(self, group: Group, change: Change) -> None:
        """Log and announce what time has done to a group."""
        name = group.configuration.name
        for member in change.departed:
            self._log(4, "GM_DELETE", f"GM {member.address} deleted from group {name}.")
        if change.departed and not group.members:
            self._log(6, "KS_LAST_GM", f"Re-key: Last GM {change.departed[-1].address} left the group {name}.")
        for rekey in (change.rekey, change.second):
            if rekey is None:
                continue
            kek, address = rekey.kek, group.configuration.address
            if kek.address is None:
                text = f"Sending Unicast Rekey for group {name} from address {address} with seq # {kek.sequence}"
                self._log(5, "KS_SEND_UNICAST_REKEY", text)
            else:
                text = (
                    f"Sending Multicast Rekey for group {name} from address {address} to {kek.address} "
                    f"with seq # {kek.sequence}"
                )
                self._log(5, "KS_SEND_MCAST_REKEY", text)
        if change.departed or change.new_keys:
            self._tell(StateChanged(name))

    def _log(self, severity: int, mnemonic: str, text: str) -> None:
        self._tell(LogMessage("GDOI", severity, mnemonic, text))
