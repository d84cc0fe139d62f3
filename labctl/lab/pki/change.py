"""Changes to a lab that is up: kept in its directory, then told to its nodes."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from labctl.configuration import RsaKeyPair, Trustpoint, to_json
from labctl.door import Connection, DoorError
from labctl.lab.directory import LabDirectory
from labctl.lab.errors import BadRequest, NotReady
from labctl.lab.lock import LabLock
from labctl.lab.pki.credentials import rsa_keys_of, trustpoints_of, with_credentials
from labctl.lab.pki.state import LabPki, keep_pki, load_pki
from labctl.lab.session import opened
from labctl.lab.standing import keep_plan, node_kinds, require_node, standing_plan

# What an agent answers of: a node that is not there hears of it when it is started.
_NOT_THERE = ("node-down", "unknown-node")


@dataclass(frozen=True, slots=True)
class Told:
    """The nodes that took a change, and those that are not up: they get it when they start."""

    nodes: tuple[str, ...]
    waiting: tuple[str, ...]


def kept_pki(directory: LabDirectory) -> LabPki:
    """What the lab keeps; of a lab without any key pair, an empty one that begins now."""
    return load_pki(directory) or LabPki(float(int(time.time())))


def lab_time(pki: LabPki, scale: float) -> float:
    """What the clocks of the lab's nodes show: seconds since 1970."""
    return pki.started + max(0.0, time.time() - pki.started) * scale


@contextmanager
def changing(directory: LabDirectory, verb: str) -> Iterator[LabPki]:
    """Hold the lab while it is changed. Raises LabBusy, and NoSuchLab for a lab without a plan."""
    with LabLock(directory.lock, verb):
        standing_plan(directory)
        yield kept_pki(directory)


async def apply(directory: LabDirectory, before: LabPki, after: LabPki) -> Told:
    """Keep what changed, and tell the nodes that it concerns.

    Raises NotReady if a node that is up did not take it; it is kept nevertheless, and a node started anew has it.
    """
    plan = standing_plan(directory)
    names = [node.name for node in plan.nodes]
    certified = [name for name in names if trustpoints_of(before, name) != trustpoints_of(after, name)]
    keyed = [name for name in names if rsa_keys_of(before, name) != rsa_keys_of(after, name)]
    async with opened(directory) as connection:
        keep_pki(directory, after)
        keep_plan(directory, with_credentials(plan, after))
        orders: list[tuple[str, str, Sequence[Trustpoint | RsaKeyPair]]] = [
            *((name, "trustpoints", trustpoints_of(after, name)) for name in certified),
            *((name, "rsa-keys", rsa_keys_of(after, name)) for name in keyed),
        ]
        answers = await asyncio.gather(*(_tell(connection, *order) for order in orders))
    failed = [f"{name}: {answer}" for (name, _, _), answer in zip(orders, answers, strict=True) if answer]
    if failed:
        raise NotReady(f"not taken by {'; '.join(failed)}", "it is kept: a node that is started anew has it")
    took = [name for (name, _, _), answer in zip(orders, answers, strict=True) if answer == ""]
    waiting = [name for (name, _, _), answer in zip(orders, answers, strict=True) if answer is None]
    return Told(tuple(dict.fromkeys(took)), tuple(dict.fromkeys(waiting)))


async def _tell(connection: Connection, node: str, op: str, values: Sequence[Any]) -> str | None:
    """Empty if the node took it, None if it is not there, else why not."""
    args = {op.replace("-", "_"): to_json(values)}
    try:
        await connection.call("node", name=node, op=op, args=args)
    except DoorError as error:
        return None if error.code in _NOT_THERE else error.message
    return ""


def require_kind(directory: LabDirectory, node: str, kind: str, why: str) -> None:
    """Raises BadRequest unless the lab has a node of that name and kind."""
    require_node(directory, node)
    kinds = node_kinds(directory)
    if kinds.get(node) != kind:
        fitting = [name for name, other in kinds.items() if other == kind]
        raise BadRequest(f"{node} is a {kinds.get(node)}: {why}", f"try {', '.join(fitting)}" if fitting else "")


def close_to(word: str, known: Sequence[str]) -> str:
    """What may have been meant, or what there is."""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there is {', '.join(known)}" if known else ""
