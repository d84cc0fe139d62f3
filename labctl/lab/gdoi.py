"""Orders to key servers and group members: the `gdoi` op of the agents. The IOS commands of the same effect are at
reference/cisco-getvpn.md 2.5."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address
from typing import Any

from labctl.door import DoorError
from labctl.lab.directory import LabDirectory
from labctl.lab.errors import BadRequest
from labctl.lab.session import opened
from labctl.lab.standing import member_addresses, require_node, served_groups, which


async def order(directory: LabDirectory, action: str, node: str, group: str | None, **arguments: Any) -> list[str]:
    """Have a node do `action` on its group (None: on all it can); returns the groups. Raises BadRequest."""
    require_node(directory, node)
    orders: list[dict[str, Any]] = [{"action": action, "group": group, **arguments}]
    if "member" in arguments:
        found = members_meant(directory, node, group, str(arguments["member"]))
        orders = [{**orders[0], "group": name, "member": str(address)} for name, address in found]
    done: list[str] = []
    async with opened(directory) as connection:
        for args in orders:
            try:
                result = await connection.call("node", name=node, op="gdoi", args=args)
            except DoorError as error:
                if error.code not in ("not-served", "bad-request"):
                    raise
                raise BadRequest(f"{node}: {error.message}", error.hint) from None
            done += [str(name) for name in result["groups"]]
    return done


async def standing(directory: LabDirectory, node: str, group: str | None = None) -> list[dict[str, Any]]:
    """A node's groups (or the one), with keys, members and rekeys, as its agent says them. Raises BadRequest."""
    require_node(directory, node)
    async with opened(directory) as connection:
        found = await connection.call("node", name=node, op="status", args={})
    groups = [dict(item) for item in found["groups"] if group in (None, item["name"])]
    if not groups and group is not None:
        known = ", ".join(item["name"] for item in found["groups"])
        raise BadRequest(f"{node}: this node has no group {group}", f"it has {known}" if known else "it has none")
    return groups


def members_meant(
    directory: LabDirectory, key_server: str, group: str | None, word: str
) -> list[tuple[str | None, IPv4Address]]:
    """A member by its node's name, or by the address it registers from, with the groups it is meant in.

    A node in several groups has an address in each. None stands for all that the key server has.
    """
    try:
        return [(group, IPv4Address(word))]
    except AddressValueError:
        pass
    known = member_addresses(directory)
    if word not in known:
        raise BadRequest(f"lab {directory.name} has no group member {word!r}", which(word, known, "members"))
    served = [name for name in served_groups(directory, key_server) if group in (None, name)]
    if not served:
        return [(group, next(iter(known[word].values())))]  # the node says what it has
    found: list[tuple[str | None, IPv4Address]] = [(name, known[word][name]) for name in served if name in known[word]]
    if not found:
        where = f"group {group}" if group is not None else f"any group of {key_server}"
        raise BadRequest(f"{word!r} is no member of {where}", f"it is in {', '.join(known[word])}")
    return found
