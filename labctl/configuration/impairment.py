"""What a link does to the frames on it, one rule at a time: the words that topologies, `labctl impair` and the fabric
share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Impairment:
    """One rule of a link. The first rule that takes a frame is the one that counts for it.

    `sender` is the node whose frames are meant, None both ways. `only` is a capture filter (pcap-filter(7)) and
    `program` the same compiled, as classic BPF instructions (code, jt, jf, k). `numbers` are ranges (first, last) of
    the frames that came to this rule, counted from 1: (3, 3) is the third alone; empty is all.

    Times are in seconds of the machine, not of the lab's clock: a wire is as slow as it is. Shares are 0 to 1. `burst`
    is the mean number of frames lost in a row. `rate` is in bits a second; `queue` the frames that may wait for it.
    """

    sender: str | None = None
    only: str = ""
    program: tuple[tuple[int, int, int, int], ...] = ()
    numbers: tuple[tuple[int, int], ...] = ()
    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    burst: float = 1.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    rate: float | None = None
    queue: int = 1000
    seed: int = 0

    @property
    def does_something(self) -> bool:
        """False for a rule that leaves its frames alone."""
        return bool(
            self.delay
            or self.jitter
            or self.loss
            or self.duplicate
            or self.reorder
            or self.corrupt
            or self.rate is not None
        )
