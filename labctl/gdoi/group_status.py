"""A key server's group as `status` shows it: its members, and the life left in its keys. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from labctl.configuration import NO_REPLAY, RekeyTransport, Replay, TransformSet
from labctl.gdoi.group import Group
from labctl.gdoi.members import Member


@dataclass(frozen=True, slots=True)
class TekStatus:
    """A TEK as `status` shows it: of which `sa ipsec` entry, and the seconds left of its life."""

    spi: int
    number: int
    transform: TransformSet
    left: float
    replay: Replay = NO_REPLAY


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A group as `status` shows it."""

    name: str
    identity: str
    members: tuple[Member, ...]
    teks: tuple[TekStatus, ...]
    kek_left: float | None
    # "unicast", or the multicast group, or None where no rekeys are sent.
    rekey_transport: str | None = None
    sequence: int = 0
    rekeys_sent: int = 0
    # Members that the present rekeys still wait for.
    waiting: int = 0
    # Members in the key tree, and its levels; None where the group has none.
    tree_leaves: int | None = None
    tree_depth: int | None = None
    # As configured: members follow with the next rekey.
    receive_only: bool = False
    # Its policy is IPv6.
    ipv6: bool = False
    # The clock of time-based anti-replay: what it shows (seconds), and which one it is.
    pseudotime: float | None = None
    epoch: int | None = None


def status_of(group: Group, now: float) -> GroupStatus:
    """A group with the life that is left in its keys (seconds)."""
    return GroupStatus(
        group.configuration.name,
        str(group.configuration.identity),
        tuple(group.members.values()),
        tuple(
            TekStatus(tek.spi, item.sa.number, tek.transform, tek.expires - now, tek.replay)
            for item in group.generations
            for tek in item.teks.values()
        ),
        None if group.kek is None else group.kek.expires - now,
        _transport(group),
        0 if group.kek is None else group.kek.sequence,
        group.rekeys_begun,
        sum(len(rekey.waiting) for rekey in group.rekeys if rekey.acknowledgement is not None),
        None if group.tree is None else len(group.tree),
        None if group.tree is None else group.tree.depth,
        group.configuration.receive_only,
        group.configuration.ipv6,
        None if group.pseudotime is None else group.pseudotime.at(now),
        None if group.pseudotime is None else group.pseudotime.epoch,
    )


def _transport(group: Group) -> str | None:
    if not group.sends_rekeys:
        return None
    rekey = group.configuration.rekey
    return "unicast" if rekey.transport is RekeyTransport.UNICAST else f"multicast {rekey.address}"
