"""`labctl plan` as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labctl.cli.rendering import plain_table
from labctl.configuration import Action, TunnelSettings
from labctl.configuration.access_list import describe_access_list_entry

if TYPE_CHECKING:
    from rich.console import Console

    from labctl.configuration.policy import Network
    from labctl.topology.plan import Plan


def show_plan(plan: Plan, console: Console) -> None:
    """Nodes with their interfaces, links, translations and marks, groups, certificates, key pairs, checks."""
    scale = f", clock times {plan.clock_scale:g}" if plan.clock_scale != 1 else ""
    console.print(f"Lab {plan.lab} on runtime {plan.runtime}{scale}")
    for show in (_nodes, _links, _translations, _marks, _fitting, _groups, _certificates, _key_pairs, _checks):
        show(plan, console)


def _nodes(plan: Plan, console: Console) -> None:
    table = plain_table("NODE", "KIND", "INTERFACE", "ADDRESS", "MAC", "ROUTES")
    for node in plan.nodes:
        name, kind = node.name, node.kind.value
        routes = str(len(node.configuration.routes))
        for item in node.configuration.interfaces:
            addresses = " ".join(map(str, item.addresses)) or "-"
            label = f"{item.name} (crypto map)" if item.crypto_map else item.name
            table.add_row(name, kind, label, addresses, item.mac, routes)
            name = kind = routes = ""
        if not node.configuration.interfaces:
            table.add_row(name, kind, "-", "-", "-", routes)
    for switch in plan.switches:
        table.add_row(switch, "switch", "", "", "", "")
    console.print()
    console.print(table)


def _links(plan: Plan, console: Console) -> None:
    if plan.links:
        table = plain_table("LINK", "MTU")
        for link in plan.links:
            table.add_row(link.name, str(link.mtu))
        console.print()
        console.print(table)


def _translations(plan: Plan, console: Console) -> None:
    table = plain_table("NAT ON", "INSIDE", "OUTSIDE", "INSIDE LOCAL", "INSIDE GLOBAL")
    for node in plan.nodes:
        nat = node.configuration.nat
        if nat is None:
            continue
        pairs = [(str(item.inside_local), str(item.inside_global)) for item in nat.statics]
        for item in nat.overloads:
            pool = str(item.first) if item.first == item.last else f"{item.first} to {item.last}"
            pairs.append((str(item.inside_local), f"{item.interface or pool}, overload"))
        name, inside, outside = node.name, " ".join(nat.inside), " ".join(nat.outside)
        for local, translated in pairs:
            table.add_row(name, inside, outside, local, translated)
            name = inside = outside = ""
    if table.row_count:
        console.print()
        console.print(table)


def _marks(plan: Plan, console: Console) -> None:
    table = plain_table("MARKS ON", "INPUT", "MATCH", "DSCP")
    for node in plan.nodes:
        marking = node.configuration.marking
        for rule in () if marking is None else marking.rules:
            permits = rule.entry.action is Action.PERMIT
            where = " ".join(marking.interfaces) if marking is not None else ""
            line = describe_access_list_entry(rule.entry)
            if rule.entry.source.version == 6 and rule.entry.protocol:
                line += " (IPv6)"
            table.add_row(node.name, where, line, str(rule.dscp) if permits else "-")
    if table.row_count:
        console.print()
        console.print(table)


def _fitting(plan: Plan, console: Console) -> None:
    table = plain_table("FITS ON", "FRAGMENTATION", "DF BIT", "PATH MTU DISCOVERY", "ADJUST-MSS")
    for node in plan.nodes:
        tunnel, adjusted = node.configuration.tunnel, node.configuration.adjust_mss
        if tunnel == TunnelSettings() and not adjusted:
            continue
        learns = "on" if tunnel.learn_path_mtu else "off"
        sizes = ", ".join(f"{item.interface} {item.size}" for item in adjusted)
        table.add_row(node.name, tunnel.fragmentation.value, tunnel.df_bit.value, learns, sizes)
    if table.row_count:
        console.print()
        console.print(table)


def _groups(plan: Plan, console: Console) -> None:
    if not plan.groups:
        return
    table = plain_table("GROUP", "IDENTITY", "KEY SERVERS", "MEMBERS", "TRANSFORM", "REPLAY", "POLICY")
    for group in plan.groups:
        served = [
            item
            for name in group.key_servers
            for item in plan.node(name).configuration.key_server_groups
            if item.name == group.name
        ]
        every = "ipv6" if group.ipv6 else "ip"
        policy = [
            f"{entry.action.value} {entry.protocol or every} {_with_port(entry.source, entry.source_port)} "
            f"{_with_port(entry.destination, entry.destination_port)}"
            for entry in (served[0].policy if served else ())
        ]
        # What is said of an `sa ipsec` entry stands beside the first line of it.
        sas = [(sa, place) for sa in (served[0].sas if served else ()) for place, _ in enumerate(sa.policy)]
        transforms = [str(sa.transform) if place == 0 else "" for sa, place in sas]
        replays = [str(sa.replay) if place == 0 else "" for sa, place in sas]
        table.add_row(
            group.name,
            group.identity,
            " ".join(group.key_servers),
            " ".join(f"{name} (refused)" if name in group.refused else name for name in group.members),
            "\n".join(transforms),
            "\n".join(replays),
            "\n".join(policy),
        )
    console.print()
    console.print(table)


def _with_port(network: Network, port: int) -> str:
    return f"{network} eq {port}" if port else str(network)


def _certificates(plan: Plan, console: Console) -> None:
    if plan.pki.certificates:
        table = plain_table("CERTIFICATE OF", "AUTHORITY", "SUBJECT", "NAMES", "KEY", "WRONG ON PURPOSE")
        for item in plan.pki.certificates:
            key = f"{item.key_type.name} {item.key_bits}"
            wrong = [word for word, is_so in (("expired", item.expired), ("revoked", item.revoked)) if is_so]
            wrong += ["authority"] if item.authority != plan.pki.authorities[0].name else []
            wrong += ["name"] if item.identity is not None and item.identity not in item.fqdns else []
            table.add_row(item.node, item.authority, item.subject, " ".join(item.fqdns), key, " ".join(wrong) or "-")
        console.print()
        console.print(table)


def _key_pairs(plan: Plan, console: Console) -> None:
    if plan.pki.rsa_keys:
        table = plain_table("KEY PAIR", "BITS", "ON")
        for item in plan.pki.rsa_keys:
            table.add_row(item.label, str(item.bits), " ".join(item.nodes))
        console.print()
        console.print(table)


def _checks(plan: Plan, console: Console) -> None:
    if plan.checks:
        table = plain_table("CHECK", "KIND", "FROM", "TO", "ON")
        for check in plan.checks:
            where = " ".join(check.links) or (check.group or "")
            table.add_row(check.name, check.kind.value, _few(check.sources), _few(check.destinations), where)
        console.print()
        console.print(table)


def _few(names: tuple[str, ...]) -> str:
    shown = " ".join(names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
