"""`pki:` of a topology: the lab's CA, and what is wrong with certificates on purpose."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from labctl.configuration.certificate_identity import is_domain_name
from labctl.configuration.words import did_you_mean
from labctl.topology.model import CertificateFault, Group, Node, Pki
from labctl.topology.problems import Problems
from labctl.topology.raw import GROUP_NAME
from labctl.topology.raw_pki import RawFault
from labctl.topology.shape import Shaped


def read_pki(shaped: Shaped, nodes: Mapping[str, Node], groups: Sequence[Group], problems: Problems) -> Pki:
    """The section, or what stands for it where there is none."""
    return _PkiReader(shaped, nodes, groups, problems).read()


class _PkiReader:
    def __init__(self, shaped: Shaped, nodes: Mapping[str, Node], groups: Sequence[Group], problems: Problems) -> None:
        self._shaped = shaped
        self._nodes = nodes
        self._raw = shaped.raw.pki
        self._problems = problems
        self._groups = groups
        certified = [group for group in groups if group.uses_certificates]
        self._holders = list(dict.fromkeys(name for g in certified for name in (*g.key_servers, *g.members)))

    def read(self) -> Pki:
        raw = self._raw
        if "pki" in self._shaped.raw.model_fields_set and not self._holders and not self._may_have_holders():
            self._problems.add(
                self._shaped.key_at("pki"),
                "'pki' does nothing: no group authenticates with certificates",
                "say 'isakmp: {authentication: rsa-sig}' in a group, or remove it",
            )
        self._check_authority(raw.authority, ("pki", "authority"))
        if not is_domain_name(raw.domain):
            at = self._shaped.at("pki", "domain")
            self._problems.add(at, f"{raw.domain!r} is not a domain name", "for example 'lab.example'")
        return Pki(
            authority=raw.authority,
            domain=raw.domain.lower(),
            rsa_bits=raw.rsa_bits,
            ecdsa_bits=raw.ecdsa_bits,
            named_by_subject=raw.identity == "dn",
            check_revocation=raw.revocation_check == "crl",
            validity_days=raw.validity,
            faults={name: self._fault(name, fault) for name, fault in raw.faults.items()},
        )

    def _may_have_holders(self) -> bool:
        """True if a group that could not be read, and has a problem of its own, may want certificates."""
        return any(path[:1] == ("groups",) for path in self._shaped.missing)

    def _fault(self, name: str, raw: RawFault) -> CertificateFault:
        place = ("pki", "faults", name)
        known = name in self._holders or ("nodes", name) in self._shaped.missing or not self._holders
        if not known:
            what = f"node {name!r} has no certificate" if name in self._nodes else f"no node is called {name!r}"
            self._problems.add(self._shaped.key_at(*place), what, did_you_mean(name, self._holders))
        fault = CertificateFault(raw.authority, raw.fqdn and raw.fqdn.lower(), raw.expired, raw.revoked)
        if fault == CertificateFault() and not any(path[:3] == place for path in self._shaped.missing):
            hint = "one of: authority, fqdn, expired, revoked"
            self._problems.add(self._shaped.at(*place), f"nothing is wrong with the certificate of {name!r}", hint)
        if fault.authority is not None:
            self._check_authority(fault.authority, (*place, "authority"))
            if fault.authority == self._raw.authority:
                at = self._shaped.at(*place, "authority")
                self._problems.add(at, f"{fault.authority!r} is the lab's own authority", "take another name")
        if fault.fqdn is not None and not is_domain_name(fault.fqdn):
            at = self._shaped.at(*place, "fqdn")
            self._problems.add(at, f"{raw.fqdn!r} is not a domain name", "for example 'elsewhere.lab.example'")
        self._refuse_idle(fault, place)
        return fault

    def _refuse_idle(self, fault: CertificateFault, place: tuple[str, ...]) -> None:
        if fault.revoked and self._raw.revocation_check == "none":
            self._problems.add(
                self._shaped.key_at(*place, "revoked"),
                "'revoked' does nothing: nobody checks for it",
                "say 'revocation-check: crl' in 'pki'",
            )
        if fault.fqdn is not None and self._raw.identity == "dn":
            self._problems.add(
                self._shaped.key_at(*place, "fqdn"),
                "'fqdn' does nothing: nodes call themselves by their subjects",
                "say 'identity: fqdn' in 'pki'",
            )

    def _check_authority(self, name: str, place: tuple[str, ...]) -> None:
        if not re.fullmatch(GROUP_NAME, name):
            at = self._shaped.at(*place)
            self._problems.add(at, f"{name!r} is no name of an authority", "letters, digits and '_', at most 64")
