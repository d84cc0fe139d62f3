"""Who may register with a group, and the key pair that signs its rekeys. Rules of reference/cisco-getvpn.md 1.3."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network

from labctl.configuration import CertificateIdentity
from labctl.configuration.certificate_identity import parse_certificate_identity
from labctl.configuration.words import WordError, did_you_mean
from labctl.topology.model import Authorization, Group
from labctl.topology.problems import Problems
from labctl.topology.raw import GROUP_NAME
from labctl.topology.shape import Shaped


def read_authorization(shaped: Shaped, group: str, members: Sequence[str], problems: Problems) -> Authorization:
    """The `authorization` of a group, whose members are known."""
    raw = shaped.raw.groups[group].authorization
    place = ("groups", group, "authorization")
    networks: list[IPv4Network] = []
    names: list[str] = []
    if raw.addresses is not None and not raw.addresses and (*place, "addresses") not in shaped.missing:
        at, hint = shaped.at(*place, "addresses"), "name members, addresses or prefixes, or leave the key out"
        problems.add(at, f"nobody may register with group {group!r}", hint)
    for index, text in enumerate(raw.addresses or ()):
        if text in members:
            names.append(text)
            continue
        network = _network(text)
        if network is not None:
            networks.append(network)
            continue
        at = shaped.at(*place, "addresses", index)
        if text[:1].isdigit():
            problems.add(at, f"{text!r} is no IPv4 address or prefix", "for example 172.16.2.2 or 172.16.0.0/16")
        else:
            problems.add(at, f"{text!r} is not a member of group {group!r}", did_you_mean(text, members))
    return Authorization(tuple(networks), tuple(names), _identities(shaped, group, raw.identities, problems))


def read_key_label(shaped: Shaped, group: str, problems: Problems) -> str | None:
    """The label of the key pair that signs the group's rekeys."""
    label = shaped.raw.groups[group].rekey.key
    if label is not None and not re.fullmatch(GROUP_NAME, label):
        at = shaped.at("groups", group, "rekey", "key")
        problems.add(at, f"{label!r} is no label of a key pair", "letters, digits and '_', at most 64")
        return None
    return label


def refuse_idle(shaped: Shaped, groups: Sequence[Group], problems: Problems) -> None:
    """What no proposal of its group looks at does nothing, and would make a student believe that it does."""
    for group in groups:
        if any(path[:3] == ("groups", group.name, "isakmp") for path in shaped.missing):
            continue  # nobody knows what its proposals were to say
        raw, place = shaped.raw.groups[group.name], ("groups", group.name)
        if group.authorization.identities is not None and not group.uses_certificates:
            problems.add(
                shaped.key_at(*place, "authorization", "identities"),
                f"'identities' looks at certificates, and members of group {group.name!r} have none",
                "say 'authentication: rsa-sig' in 'isakmp', or take 'addresses'",
            )
        if "pre_shared_keys" in raw.model_fields_set and not group.uses_pre_shared_keys and group.isakmp:
            problems.add(
                shaped.key_at(*place, "pre-shared-keys"),
                f"'pre-shared-keys' does nothing: group {group.name!r} authenticates with certificates",
                "remove it, or add a proposal with 'authentication: pre-share'",
            )


def _network(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text, strict=False)
    except ValueError:
        return None


def _identities(
    shaped: Shaped, group: str, lines: Sequence[str] | None, problems: Problems
) -> tuple[CertificateIdentity, ...] | None:
    if lines is None:
        return None
    found: list[CertificateIdentity] = []
    for index, line in enumerate(lines):
        try:
            found.append(parse_certificate_identity(line))
        except WordError as error:
            at = shaped.inside(error.column, "groups", group, "authorization", "identities", index)
            problems.add(at, error.problem, error.hint)
    return tuple(found)
