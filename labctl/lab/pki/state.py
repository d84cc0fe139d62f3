"""What a lab keeps of its certificates and keys: `pki.json` in its directory, for its user alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from labctl.configuration import ConfigurationError, from_json, to_json
from labctl.lab.directory import LabDirectory, write_private
from labctl.lab.errors import LabError
from labctl.topology.pki import PlannedAuthority, PlannedCertificate


@dataclass(frozen=True, slots=True)
class RevokedSerial:
    """`time` in seconds since 1970 on the lab's clock, as every time here."""

    serial: int
    time: float


@dataclass(frozen=True, slots=True)
class KeptAuthority:
    """A CA with its key. `crl` is the newest, its number `crl_number`; certificates are numbered as they are issued."""

    planned: PlannedAuthority
    key: bytes = field(repr=False)
    certificate: bytes
    next_serial: int
    crl: bytes = b""
    crl_number: int = 0
    revoked: tuple[RevokedSerial, ...] = ()

    @property
    def name(self) -> str:
        """As the topology calls it."""
        return self.planned.name

    def has_revoked(self, serial: int) -> bool:
        """True if a certificate of ours is on the list."""
        return any(item.serial == serial for item in self.revoked)


@dataclass(frozen=True, slots=True)
class KeptCertificate:
    """A node's certificate of now: as `planned`, until `pki issue` gave it another, maybe of another `authority`."""

    planned: PlannedCertificate
    authority: str
    key: bytes = field(repr=False)
    certificate: bytes


@dataclass(frozen=True, slots=True)
class KeptKeyPair:
    """A labelled RSA pair of one node. `private_key` is PKCS #8 in DER."""

    node: str
    label: str
    private_key: bytes = field(repr=False)
    exportable: bool
    made: float


@dataclass(frozen=True, slots=True)
class LabPki:
    """Everything. `started` is the lab's time when its clock showed 0."""

    started: float
    validity_days: int = 365
    check_revocation: bool = True
    authorities: tuple[KeptAuthority, ...] = ()
    certificates: tuple[KeptCertificate, ...] = ()
    key_pairs: tuple[KeptKeyPair, ...] = ()

    def authority(self, name: str) -> KeptAuthority | None:
        """The CA called `name`."""
        return next((item for item in self.authorities if item.name == name), None)

    def of_node(self, node: str) -> tuple[KeptCertificate, ...]:
        """A node's certificates, one a trustpoint."""
        return tuple(item for item in self.certificates if item.planned.node == node)

    def key_pair(self, node: str, label: str) -> KeptKeyPair | None:
        """A node's pair of that label."""
        return next((item for item in self.key_pairs if (item.node, item.label) == (node, label)), None)


def load_pki(directory: LabDirectory) -> LabPki | None:
    """What the lab keeps; None where it never needed any. Raises LabError if the file is none of ours."""
    try:
        text = directory.pki.read_text()
    except FileNotFoundError:
        return None
    try:
        return from_json(LabPki, json.loads(text))
    except (ValueError, ConfigurationError) as error:
        raise LabError(
            f"{directory.pki} is of another version of labctl: {error}", "'labctl down', then 'labctl up'"
        ) from None


def keep_pki(directory: LabDirectory, pki: LabPki) -> None:
    """Write it, readable by this user alone."""
    write_private(directory.pki, json.dumps(to_json(pki)) + "\n")
