"""`dn OU=members,O=lab` and `fqdn lab.example`: the lines of `crypto identity` (reference/cisco-getvpn.md 1.3).

Distinguished names are written as in RFC 4514, domain names as in RFC 1123 2.1.
"""

from __future__ import annotations

import re

from labctl.configuration.node import CertificateIdentity
from labctl.configuration.words import Words, did_you_mean

# The attributes of RFC 4514 3, which every implementation knows by name.
ATTRIBUTES = ("CN", "OU", "O", "L", "ST", "C", "STREET", "DC", "UID")
_EXAMPLES = "for example 'dn OU=members' or 'fqdn lab.example'"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
LONGEST_DOMAIN = 253
# A value ends at a comma that no backslash precedes (RFC 4514 2.4); `+` would begin a second attribute of one RDN.
_PART = re.compile(r"\s*(?P<type>[A-Za-z]+)\s*=\s*(?P<value>(?:\\.|[^,+\"\\;<>=])+)")


def is_domain_name(text: str) -> bool:
    """True for a name of labels, 253 characters at most."""
    return len(text) <= LONGEST_DOMAIN and _DOMAIN.fullmatch(text) is not None


def parse_certificate_identity(line: str) -> CertificateIdentity:
    """What one line says. Raises WordError."""
    words = Words(line)
    kind = words.take("'dn' or 'fqdn'", _EXAMPLES).lower()
    if kind not in ("dn", "fqdn"):
        words.fail(f"{kind!r} is no kind of identity", did_you_mean(kind, ("dn", "fqdn")))
    if kind == "fqdn":
        name = words.take("a domain name", _EXAMPLES)
        if not is_domain_name(name):
            words.fail(
                f"{name!r} is not a domain name", "for example 'ce1.lab.example', or 'lab.example' for all of it"
            )
        words.finish("one name a line")
        return CertificateIdentity(fqdn=name.lower())
    words.take("a distinguished name", _EXAMPLES)
    start = line.lower().index("dn") + 2
    return CertificateIdentity(dn=_distinguished_name(words, line[start:]))


def _distinguished_name(words: Words, text: str) -> str:
    parts: list[str] = []
    position = 0
    while True:
        match = _PART.match(text, position)
        if match is None:
            words.fail(f"{text.strip()!r} is not a distinguished name", "ATTRIBUTE=VALUE,...: 'OU=members,O=my-lab'")
        kind = match["type"].upper()
        if kind not in ATTRIBUTES:
            words.fail(f"{match['type']!r} is no attribute of a name", did_you_mean(kind, ATTRIBUTES))
        parts.append(f"{kind}={match['value'].rstrip()}")
        position = match.end()
        if position == len(text):
            return ",".join(parts)
        if text[position] != ",":
            words.fail(f"{text.strip()!r} is not a distinguished name", "ATTRIBUTE=VALUE,...: 'OU=members,O=my-lab'")
        position += 1
