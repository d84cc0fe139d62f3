"""One line of an IOS extended access list, as text: `permit tcp 10.1.0.0 0.0.255.255 any eq www`.

Grammar: ACTION PROTOCOL SOURCE [eq PORT] DESTINATION [eq PORT], where an address is `any`, `host A`,
`A WILDCARD` (inverted mask, as IOS writes it) or a prefix `A/LENGTH` (a courtesy IOS does not have).
Of an IPv6 list (`permit ipv6 2001:db8:1::/48 any`) an address is `any`, `host A` or `A/LENGTH`.
Sources: Cisco's `ip access-list extended` and `ipv6 access-list` command references; what a GETVPN policy may not say
is in reference/cisco-getvpn.md 2.6 (one `eq` port or none: the KS cannot download a port range) and 2.12 (one family).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from labctl.configuration.policy import AccessListEntry, Action, Network
from labctl.configuration.words import Words, did_you_mean

# IANA protocol numbers under the names that IOS completes; 0 is `ip`, every protocol.
PROTOCOLS: dict[str, int] = {
    "ip": 0,
    "icmp": 1,
    "igmp": 2,
    "ipinip": 4,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "ahp": 51,
    "eigrp": 88,
    "ospf": 89,
    "nos": 94,
    "pim": 103,
    "pcp": 108,
    "sctp": 132,
}

# The same of an IPv6 list: `icmp` is ICMPv6, and what exists over IPv4 alone is gone.
IPV6_PROTOCOLS: dict[str, int] = {
    "ipv6": 0,
    "icmp": 58,
    **{name: number for name, number in PROTOCOLS.items() if name not in ("ip", "icmp", "igmp", "ipinip")},
}
# Names of one family's protocols alone.
_ONLY_IPV4, _ONLY_IPV6 = ("ip", "igmp", "ipinip"), ("ipv6", "icmp6", "icmpv6")

# IANA ports under the names that IOS completes.
TCP_PORTS: dict[str, int] = {
    "ftp-data": 20,
    "ftp": 21,
    "ssh": 22,
    "telnet": 23,
    "smtp": 25,
    "time": 37,
    "whois": 43,
    "tacacs": 49,
    "domain": 53,
    "www": 80,
    "http": 80,
    "pop3": 110,
    "sunrpc": 111,
    "bgp": 179,
    "ldp": 646,
    "https": 443,
    "syslog": 514,
    "gdoi": 848,
}
UDP_PORTS: dict[str, int] = {
    "time": 37,
    "tacacs": 49,
    "domain": 53,
    "bootps": 67,
    "bootpc": 68,
    "tftp": 69,
    "sunrpc": 111,
    "ntp": 123,
    "snmp": 161,
    "snmptrap": 162,
    "isakmp": 500,
    "syslog": 514,
    "rip": 520,
    "ldp": 646,
    "gdoi": 848,
    "radius": 1812,
    "bfd": 3784,
    "non500-isakmp": 4500,
}
_PORTS_OF = {6: TCP_PORTS, 17: UDP_PORTS, 132: TCP_PORTS}

_RANGE_WORDS = ("range", "gt", "lt", "neq")
_FORM = "an entry is: permit|deny PROTOCOL SOURCE [eq PORT] DESTINATION [eq PORT]"
_ANY = IPv4Network("0.0.0.0/0")
_ANY_IPV6 = IPv6Network("::/0")
_NOT_IPV4 = "a list is of one family: this one is IPv4, and 'ipv6: true' makes it IPv6"
_NOT_IPV6 = "a list is of one family: 'ipv6: true' says that this one is IPv6"


def parse_access_list_entry(line: str, *, ipv6: bool = False) -> AccessListEntry:
    """The entry that `line` of a list says, of an IPv6 list with `ipv6`.

    Raises WordError with the column of the first word that does not fit.
    """
    words = Words(line)
    action_word = words.take("'permit' or 'deny'", _FORM)
    if action_word.lower() not in ("permit", "deny"):
        words.fail(f"{action_word!r} is not 'permit' or 'deny'", did_you_mean(action_word, ("permit", "deny")))
    action = Action(action_word.lower())
    protocol = _protocol(words, ipv6=ipv6)
    network = _network_ipv6 if ipv6 else _network
    source = network(words, "a source")
    source_port = _port(words, protocol)
    destination = network(words, "a destination")
    destination_port = _port(words, protocol)
    words.finish(_FORM)
    return AccessListEntry(action, protocol, source, destination, source_port, destination_port)


def _protocol(words: Words, *, ipv6: bool) -> int:
    known = IPV6_PROTOCOLS if ipv6 else PROTOCOLS
    word = words.take("a protocol", _FORM).lower()
    if word in known:
        return known[word]
    if ipv6 and word in _ONLY_IPV4:
        words.fail(f"{word!r} is IPv4", f"{_NOT_IPV6}; every protocol is 'ipv6' there" if word == "ip" else _NOT_IPV6)
    if word in _ONLY_IPV6:
        if ipv6:
            words.fail(f"{word!r} is not a protocol", "did you mean 'icmp'?")
        words.fail(f"{word!r} is IPv6", _NOT_IPV4)
    if not (word.isascii() and word.isdigit()):
        words.fail(f"{word!r} is not a protocol", did_you_mean(word, known, "a number from 0 to 255"))
    if int(word) > 255:
        words.fail(f"protocol {word} is out of range", "IP protocol numbers go from 0 to 255")
    return int(word)


def _network(words: Words, what: str) -> IPv4Network:
    hint = "an address is: any, host A.B.C.D, A.B.C.D/LENGTH or A.B.C.D WILDCARD"
    word = words.take(what, hint)
    if word.lower() == "any":
        return _ANY
    if word.lower() == "host":
        return IPv4Network(_address(words, words.take("an address", hint), hint))
    if "/" in word:
        return _prefix(words, word, hint)
    address = _address(words, word, hint)
    wildcard = words.take("a wildcard mask", f"one address alone is 'host {word}'")
    mask = int(_address(words, wildcard, hint))
    return _masked(words, address, wildcard, mask)


def _network_ipv6(words: Words, what: str) -> IPv6Network:
    hint = "an address is: any, host X:X::X or X:X::X/LENGTH"
    word = words.take(what, hint)
    if word.lower() == "any":
        return _ANY_IPV6
    alone = word.lower() == "host"
    if alone:
        word = words.take("an address", hint)
    if ":" not in word and word.count(".") == 3:
        words.fail(f"{word!r} is IPv4", _NOT_IPV6)
    if alone == ("/" in word):
        words.fail(f"{word!r} has {'a' if alone else 'no'} prefix length", hint)
    try:
        network = IPv6Network(IPv6Address(word)) if alone else IPv6Network(word, strict=False)
        address = IPv6Address(word.partition("/")[0])
    except ValueError:
        words.fail(f"{word!r} is not an IPv6 {'address' if alone else 'prefix'}", hint)
    if network.network_address != address:
        words.fail(f"{word!r} has bits set behind its prefix length", f"did you mean {str(network)!r}?")
    return network


def _address(words: Words, word: str, hint: str) -> IPv4Address:
    if ":" in word:
        words.fail(f"{word!r} is IPv6", _NOT_IPV4)
    try:
        return IPv4Address(word)
    except ValueError:
        words.fail(f"{word!r} is not an IPv4 address", hint)


def _prefix(words: Words, word: str, hint: str) -> IPv4Network:
    if ":" in word:
        words.fail(f"{word!r} is IPv6", _NOT_IPV4)
    try:
        network = IPv4Network(word, strict=False)
    except ValueError:
        words.fail(f"{word!r} is not an IPv4 prefix", hint)
    if str(network.network_address) != word.partition("/")[0]:
        words.fail(f"{word!r} has bits set behind its prefix length", f"did you mean {str(network)!r}?")
    return network


def _masked(words: Words, address: IPv4Address, wildcard: str, mask: int) -> IPv4Network:
    # A wildcard of a prefix is all ones below some bit: adding one carries out of every one of them.
    if mask & (mask + 1):
        hint = "a policy takes masks whose ones are all on the right, like 0.0.255.255"
        inverse = ~mask & 0xFFFFFFFF
        if not inverse & (inverse + 1):
            hint = f"did you mean {str(IPv4Address(inverse))!r}? A wildcard mask has ones where anything goes"
        words.fail(f"{wildcard!r} is not a wildcard mask of a prefix", hint)
    network = IPv4Network((int(address) & ~mask & 0xFFFFFFFF, 32 - mask.bit_length()))
    if network.network_address != address:
        words.fail(
            f"{address} has bits set where the wildcard says anything goes",
            f"did you mean '{network.network_address} {wildcard}'?",
        )
    return network


def _port(words: Words, protocol: int) -> int:
    operator = words.peek()
    if operator in _RANGE_WORDS:
        words.take(operator)
        words.fail(
            f"{operator!r} names a port range, which GETVPN cannot hand to members (GDOI_ACL_RANGE)",
            "use 'eq' with one port, once for each port",
        )
    if operator != "eq":
        return 0
    words.take("eq")
    if protocol not in _PORTS_OF:
        words.fail("only tcp, udp and sctp have ports", "leave 'eq' out, or name one of these protocols")
    names = _PORTS_OF[protocol]
    word = words.take("a port", "'eq' takes a port number or name, for example 'eq bgp'").lower()
    if word in names:
        return names[word]
    if not (word.isascii() and word.isdigit()):
        words.fail(f"{word!r} is not a port", did_you_mean(word, names, "a number from 1 to 65535"))
    if not 1 <= int(word) <= 65535:
        words.fail(f"port {word} is out of range", "ports go from 1 to 65535")
    return int(word)


def describe_access_list_entry(entry: AccessListEntry) -> str:
    """The line that `parse_access_list_entry` reads back as `entry`, in IOS's spelling."""
    known = PROTOCOLS if entry.source.version == 4 else IPV6_PROTOCOLS
    protocol = next((name for name, number in known.items() if number == entry.protocol), str(entry.protocol))
    parts = [entry.action.value, protocol]
    for network, port in ((entry.source, entry.source_port), (entry.destination, entry.destination_port)):
        parts.append(_spelled(network))
        if port:
            names = _PORTS_OF.get(entry.protocol, {})
            parts.append("eq " + next((name for name, number in names.items() if number == port), str(port)))
    return " ".join(parts)


def _spelled(network: Network) -> str:
    if network.prefixlen == 0:
        return "any"
    if network.prefixlen == network.max_prefixlen:
        return f"host {network.network_address}"
    return f"{network.network_address} {network.hostmask}" if isinstance(network, IPv4Network) else str(network)
