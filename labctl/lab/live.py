"""Changes that nodes take while they run: no packet socket, no key and no registration is lost for them.

An order that loses no packet in a migration from clear to encrypted (reference/cisco-getvpn.md 2.7): members that
begin to take both, then key servers with the rekey that tells their groups, then members that take one alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from labctl.configuration import to_json
from labctl.door import Connection, DoorError
from labctl.lab.progress import Note, Progress
from labctl.topology.plan import Plan, PlannedNode


async def reconfigure(connection: Connection, plan: Plan, names: Sequence[str], progress: Progress) -> None:
    """Give running nodes their configuration of `plan`, and send the rekeys that its key servers need then."""
    for node in sorted((plan.node(name) for name in names), key=_turn):
        answer = await connection.call("configure", plan=to_json(plan), nodes=[node.name])
        groups = answer["groups"][node.name]
        progress(Note(f"{node.name}: configured as it runs{''.join(f', rekey of group {name}' for name in groups)}"))
        for group in groups:
            await _rekey(connection, node.name, group, progress)


def _turn(node: PlannedNode) -> int:
    if node.configuration.key_server_groups:
        return 1
    return 0 if any(item.passive for item in node.configuration.memberships) else 2


async def _rekey(connection: Connection, node: str, group: str, progress: Progress) -> None:
    """`crypto gdoi ks rekey`, as an operator gives it after a change of policy."""
    try:
        await connection.call("node", name=node, op="gdoi", args={"action": "rekey", "group": group})
    except DoorError as error:
        if error.code != "bad-request":
            raise
        progress(Note(f"{node}: {error.message}; members hear of the change when they register again"))
