"""Orders to key servers and group members: the `gdoi` op of the agents. The IOS commands of the same effect are at
reference/cisco-getvpn.md 2.5."""

from __future__ import annotations

import difflib
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from labctl.door import DoorError
from labctl.lab.directory import LabDirectory
from labctl.lab.errors import BadRequest
from labctl.lab.session import opened
from labctl.lab.standing import member_addresses, require_node


async def order(directory: LabDirectory, action: str, node: str, group: str | None, **arguments: Any) -> list[str]:
    """Have a node do `action` on its group (None: on all it can); returns the groups. Raises BadRequest."""
    require_node(directory, node)
    if "member" in arguments:
        arguments["member"] = str(_member(directory, str(arguments["member"])))
    args = {"action": action, "group": group, **arguments}
    async with opened(directory) as connection:
        try:
            result = await connection.call("node", name=node, op="gdoi", args=args)
        except DoorError as error:
            if error.code not in ("not-served", "bad-request"):
                raise
            raise BadRequest(f"{node}: {error.message}", error.hint) from None
    return [str(name) for name in result["groups"]]


async def standing(directory: LabDirectory, node: str) -> list[dict[str, Any]]:
    """A node's groups with their keys, members and rekeys, as its agent says them. Raises BadRequest."""
    require_node(directory, node)
    async with opened(directory) as connection:
        found = await connection.call("node", name=node, op="status", args={})
    return [dict(group) for group in found["groups"]]


def _member(directory: LabDirectory, word: str) -> IPv4Address:
    """A member by its node's name, or by the address it registers from."""
    try:
        return IPv4Address(word)
    except AddressValueError:
        pass
    known = member_addresses(directory)
    if word not in known:
        close = difflib.get_close_matches(word, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"its members are {', '.join(known)}"
        raise BadRequest(f"lab {directory.name} has no group member {word!r}", hint)
    return known[word]
