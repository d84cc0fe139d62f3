"""`crypto pki trustpoint`: certificates are the lab's to give (`labctl pki`), text says how they are used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from labctl.configuration import NodeConfiguration
from labctl.ios.grammar.arguments import Word
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.language import GLOBAL, Tree
from labctl.ios.meaning import Notes, Part
from labctl.ios.running import Section

TRUSTPOINT_MODE = "ca-trustpoint"

TRUSTPOINT = Command(
    "crypto pki trustpoint {name}",
    {"name": Word("CA Server Name")},
    ("name",),
    TRUSTPOINT_MODE,
    {"crypto": "Encryption module", "pki": "Public Key components", "trustpoint": "Define a CA trustpoint"},
)
ENROLLMENT = Command(
    "enrollment terminal",
    default={},
    helps={"enrollment": "Enrollment parameters", "terminal": "Enroll via the terminal (cut-and-paste)"},
)
FQDN = Command(
    "fqdn {name}", {"name": Word("Fully qualified domain name")}, helps={"fqdn": "include fully-qualified domain name"}
)
REVOCATION_CHECK = Command(
    "revocation-check (crl | none)",
    default={"crl": True},
    helps={
        "revocation-check": "Revocation checking options",
        "crl": "Revocation check by CRL",
        "none": "Ignore revocation check",
    },
)

TREE = Tree(
    {GLOBAL: (TRUSTPOINT,), TRUSTPOINT_MODE: (ENROLLMENT, FQDN, REVOCATION_CHECK)}, {TRUSTPOINT_MODE: "ca-trustpoint"}
)


def write(node: NodeConfiguration) -> Iterator[str]:
    """Its lines."""
    for item in node.trustpoints:
        yield f"crypto pki trustpoint {item.name}"
        if item.fqdn is not None:
            yield f" fqdn {item.fqdn}"
        yield f" revocation-check {'crl' if item.check_revocation else 'none'}"


def read(root: Section, node: NodeConfiguration, notes: Notes) -> NodeConfiguration:
    """The trustpoints that the node has certificates for."""
    known = {item.name: item for item in node.trustpoints}
    found = []
    for said in root.all(TRUSTPOINT):
        assert said.section is not None
        item = known.get(said.values["name"])
        if item is None:
            notes.append(f"trustpoint {said.values['name']} has no certificates")
            continue
        fqdn = said.section.one(FQDN)
        check = said.section.one(REVOCATION_CHECK) or {"crl": True}
        found.append(replace(item, fqdn=None if fqdn is None else fqdn["name"], check_revocation="crl" in check))
    return replace(node, trustpoints=tuple(found))


PART = Part(TREE, write, read)
