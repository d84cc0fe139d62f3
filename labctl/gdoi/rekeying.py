"""One rekey on its way: who is to have it, who has answered, what is sent next (reference 4.7-4.8, cisco 2.2, 2.4).

Copies of a rekey are the same octets, so that members drop what they have seen. Unicast copies go out in batches,
so that ten thousand members do not answer at once; those who acknowledged get no more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address

from labctl.configuration import Acknowledgement, RekeyPolicy, RekeyTransport
from labctl.gdoi.ack import AckType
from labctl.gdoi.policy import KeyEncryptionKey
from labctl.gdoi.timing import Timing

ACK_TYPES = {
    Acknowledgement.SHA256: AckType.KEK_SHA256,
    Acknowledgement.SHA512: AckType.KEK_SHA512,
    Acknowledgement.NONE: None,
}


def ack_type(policy: RekeyPolicy) -> AckType | None:
    """What members are asked to answer with: nothing where rekeys go to everybody at once."""
    return ACK_TYPES[policy.acknowledgement] if policy.transport is RekeyTransport.UNICAST else None


class Rekey:
    """A rekey with sequence number `kek.sequence` under `kek`; `datagram_for` gives the octets for a receiver.

    After the last copy and one more interval it is `finished`; who is still `waiting` by then has missed it.
    """

    def __init__(
        self,
        kek: KeyEncryptionKey,
        datagram_for: Callable[[IPv4Address], bytes],
        receivers: Iterable[IPv4Address],
        policy: RekeyPolicy,
        timing: Timing,
        now: float,
    ) -> None:
        self.kek = kek
        self.acknowledgement = ack_type(policy)
        self.started = now
        self.finished = False
        # Its place among the rekeys of its group.
        self.number = 0
        # In the order in which they are served; a dictionary, to leave in one step.
        self.waiting: dict[IPv4Address, None] = dict.fromkeys(receivers)
        self._datagram_for = datagram_for
        self._policy = policy
        self._timing = timing
        self._round = 0
        self._round_started = now
        self._queue: deque[IPv4Address] = deque(self.waiting)
        self._next: float | None = now

    def next_deadline(self) -> float | None:
        """When `due` has something to do."""
        return self._next

    def due(self, now: float) -> list[tuple[IPv4Address, bytes]]:
        """What has to leave now: receivers and octets."""
        out: list[tuple[IPv4Address, bytes]] = []
        if self._next is None or now < self._next:
            return out
        if not self._queue and not self._begin_round(now):
            return out
        while self._queue and len(out) < self._timing.rekey_batch:
            receiver = self._queue.popleft()
            if receiver in self.waiting:
                out.append((receiver, self._datagram_for(receiver)))
        if self._queue:
            self._next = now + self._timing.rekey_batch_gap
        else:
            # A round of many batches may take longer than the interval: it runs from the last copy then.
            self._next = max(self._round_started + self._policy.retransmit_interval, now + self._timing.rekey_batch_gap)
        return out

    def _begin_round(self, now: float) -> bool:
        if not self.waiting or self._round >= self._policy.retransmit_count:
            self._next = None
            self.finished = True
            return False
        self._round += 1
        self._round_started = now
        self._queue = deque(self.waiting)
        return True

    def add(self, receiver: IPv4Address, now: float) -> None:
        """Somebody who was given the keys of before while this rekey was under way."""
        if self.finished or receiver in self.waiting:
            return
        self.waiting[receiver] = None
        self._queue.append(receiver)
        self._next = now

    def discard(self, receiver: IPv4Address) -> bool:
        """It has the rekey, or needs it no more. True if it was waited for."""
        if receiver not in self.waiting:
            return False
        del self.waiting[receiver]
        if not self.waiting:
            self._queue.clear()
            self._next = None
            self.finished = True
        return True
