"""Address translation and marking of a node, which its kernel does: an nftables ruleset, loaded with nft(8).

The kernel stands between a node's LAN and its crypto map (design: the kernel routes, the agent encrypts), so what is
translated or marked here is translated or marked before it is encrypted, and decrypted before it is translated back.

Order of the hooks: nft(8), "Standard priority names". Linux remembers connections where IOS has a translation table;
where that would show, the rules do as IOS does: whoever began, what leaves from a translated address is translated.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator

from labctl.configuration import Action, AddressTranslation, MarkingRule, NodeConfiguration
from labctl.configuration.policy import AccessListEntry

TABLE = "labctl"
PROGRAM = "nft"
PACKAGE = "nftables"
# Where an administrator's programs are, which an ordinary user's PATH may lack.
_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
# Loading takes milliseconds.
_TIMEOUT = 20.0


class RulesetFailure(Exception):
    """A ruleset could not be loaded; the text is for the user."""


def ruleset(configuration: NodeConfiguration) -> str:
    """What nft(8) reads, or nothing where the node neither translates nor marks."""
    chains: dict[str, list[str]] = {"ip": [], "ip6": []}
    if configuration.marking is not None:
        for family, version in (("ip", 4), ("ip6", 6)):
            rules = [rule for rule in configuration.marking.rules if rule.entry.source.version == version]
            if rules:
                chains[family] += _marking(configuration.marking.interfaces, rules, family)
    if configuration.nat is not None:
        chains["ip"] += _translation(configuration.nat)
    tables = [line for family, found in chains.items() if found for line in (f"table {family} {TABLE} {{", *found, "}")]
    return "\n".join((*tables, "")) if tables else ""


def load_ruleset(text: str, what: str = "translation or marking") -> None:
    """Give the kernel, in this process's network namespace, a ruleset, for `what`. Raises RulesetFailure."""
    if not text:
        return
    environment = {**os.environ, "PATH": _PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [PROGRAM, "-f", "-"],
            input=text,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise RulesetFailure(f"{what} needs the program {PROGRAM!r}: sudo apt-get install {PACKAGE}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RulesetFailure(f"{PROGRAM} could not be run: {error}") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise RulesetFailure(f"the kernel takes no {what}: {said[0] if said else 'nft said nothing'}")


def _marking(interfaces: Iterable[str], rules: Iterable[MarkingRule], family: str) -> Iterator[str]:
    yield from _opening("marking", "filter", "prerouting", "mangle")
    where = f"iifname {_set(interfaces)}"
    for rule in rules:
        does = f"{family} dscp set {rule.dscp} accept" if rule.entry.action is Action.PERMIT else "accept"
        yield " ".join((f"\t\t{where}", *_match(rule.entry, family), does))
    yield "\t}"


def _match(entry: AccessListEntry, family: str) -> Iterator[str]:
    if entry.protocol:
        # Of IPv6, what is behind the extension headers.
        yield f"ip protocol {entry.protocol}" if family == "ip" else f"meta l4proto {entry.protocol}"
    for word, network in (("saddr", entry.source), ("daddr", entry.destination)):
        if network.prefixlen:
            yield f"{family} {word} {network}"
    for word, port in (("sport", entry.source_port), ("dport", entry.destination_port)):
        if port:
            yield f"th {word} {port}"


def _translation(nat: AddressTranslation) -> Iterator[str]:
    into, out = f"iifname {_set(nat.outside)}", f"oifname {_set(nat.outside)}"
    to_global = ", ".join(f"{item.inside_local} : {item.inside_global}" for item in nat.statics)
    to_local = ", ".join(f"{item.inside_global} : {item.inside_local}" for item in nat.statics)
    overloaded = [str(item.inside_local) for item in nat.overloads]
    hidden = [*(str(item.inside_local) for item in nat.statics), *overloaded]
    # A packet that comes to an inside local address begins no connection, so that its answer is translated too.
    yield from _opening("untranslated", "filter", "prerouting", "raw")
    for prefix in hidden:
        yield f"\t\t{into} ip daddr {prefix} notrack"
    yield "\t}"
    if to_local:
        yield from _opening("inward", "nat", "prerouting", "dstnat")
        yield f"\t\t{into} dnat to ip daddr map {{ {to_local} }}"
        yield "\t}"
    yield from _opening("outward", "nat", "postrouting", "srcnat")
    if to_global:
        yield f"\t\t{out} snat to ip saddr map {{ {to_global} }}"
    for item in nat.overloads:
        if item.interface is not None:
            yield f'\t\toifname "{item.interface}" ip saddr {item.inside_local} masquerade'
        else:
            pool = f"{item.first}" if item.first == item.last else f"{item.first}-{item.last}"
            yield f"\t\t{out} ip saddr {item.inside_local} snat to {pool}"
    yield "\t}"
    # What belongs to no connection (an answer to a packet that came untranslated) passes no chain of kind nat.
    yield from _opening("unconnected", "filter", "postrouting", "srcnat")
    if to_global:
        yield f"\t\t{out} ct state invalid ip saddr set ip saddr map {{ {to_global} }} accept"
    for prefix in overloaded:
        yield f"\t\t{out} ct state invalid ip saddr {prefix} drop"
    yield "\t}"


def _opening(name: str, kind: str, hook: str, priority: str) -> Iterator[str]:
    yield f"\tchain {name} {{"
    yield f"\t\ttype {kind} hook {hook} priority {priority}; policy accept;"


def _set(names: Iterable[str]) -> str:
    quoted = [f'"{name}"' for name in names]
    return quoted[0] if len(quoted) == 1 else f"{{ {', '.join(quoted)} }}"
