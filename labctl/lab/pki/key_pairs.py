"""`labctl key`: the labelled RSA pairs of key servers, which sign rekeys (reference/cisco-getvpn.md 1.3)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

from labctl.crypto import rsa_pem
from labctl.crypto.authority import generate_key
from labctl.lab.directory import LabDirectory
from labctl.lab.errors import BadRequest
from labctl.lab.pki.change import Told, apply, changing, close_to, kept_pki, lab_time, require_kind
from labctl.lab.pki.state import KeptKeyPair, LabPki
from labctl.lab.standing import standing_plan
from labctl.topology.raw import GROUP_NAME

# As routers ask for it; openssl takes four.
SHORTEST_PASSPHRASE = 8
_WHO = "key servers sign rekeys"


@dataclass(frozen=True, slots=True)
class KeyPairReport:
    """A pair without its private half. `public_key` is DER SubjectPublicKeyInfo, hex; `signs` the groups it is for."""

    node: str
    label: str
    bits: int
    exportable: bool
    made: float
    signs: tuple[str, ...]
    fingerprint: str
    public_key: str


@dataclass(frozen=True, slots=True)
class Changed:
    """A pair that is new on its node, and who was told."""

    pair: KeyPairReport
    told: Told


def show(directory: LabDirectory, node: str | None) -> list[KeyPairReport]:
    """The pairs of one key server, or of all. Raises BadRequest."""
    if node is not None:
        require_kind(directory, node, "ks", _WHO)
    pki = kept_pki(directory)
    return [_report(directory, item) for item in pki.key_pairs if node in (None, item.node)]


async def generate(
    directory: LabDirectory, node: str, label: str, modulus: int, *, exportable: bool, replacing: bool
) -> Changed:
    """`crypto key generate rsa label LABEL modulus MODULUS [exportable]`. Raises BadRequest, NotReady."""
    _check(directory, node, label)
    with changing(directory, "key generate") as pki:
        _refuse_second(pki, node, label, replacing)
        return await _take(directory, pki, KeptKeyPair(node, label, generate_key("rsa", modulus), exportable, 0.0))


def export(directory: LabDirectory, node: str, label: str, passphrase: str) -> str:
    """`crypto key export rsa LABEL pem`: public key, then private key under the passphrase. Raises BadRequest."""
    require_kind(directory, node, "ks", _WHO)
    pki = kept_pki(directory)
    pair = pki.key_pair(node, label)
    if pair is None:
        labels = [item.label for item in pki.key_pairs if item.node == node]
        raise BadRequest(f"{node} has no key pair {label!r}", close_to(label, labels))
    if not pair.exportable:
        raise BadRequest(
            f"key pair {label} of {node} is not exportable", "that is said when it is made: 'key generate --exportable'"
        )
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise BadRequest(f"a passphrase has {SHORTEST_PASSPHRASE} characters at least")
    return rsa_pem.export_pem(pair.private_key, passphrase.encode())


async def take_pem(
    directory: LabDirectory,
    node: str,
    label: str,
    pem: bytes,
    passphrase: str,
    *,
    exportable: bool,
    replacing: bool,
) -> Changed:
    """`crypto key import rsa LABEL [exportable] pem`. Raises BadRequest, NotReady."""
    _check(directory, node, label)
    try:
        private = rsa_pem.import_pem(pem, passphrase.encode())
    except rsa_pem.PemError as error:
        raise BadRequest(f"key pair {label} was not imported: {error}") from None
    with changing(directory, "key import") as pki:
        _refuse_second(pki, node, label, replacing)
        return await _take(directory, pki, KeptKeyPair(node, label, private, exportable, 0.0))


async def _take(directory: LabDirectory, pki: LabPki, pair: KeptKeyPair) -> Changed:
    fresh = replace(pair, made=lab_time(pki, standing_plan(directory).clock_scale))
    others = tuple(item for item in pki.key_pairs if (item.node, item.label) != (pair.node, pair.label))
    told = await apply(directory, pki, replace(pki, key_pairs=(*others, fresh)))
    return Changed(_report(directory, fresh), told)


def _check(directory: LabDirectory, node: str, label: str) -> None:
    require_kind(directory, node, "ks", _WHO)
    if not re.fullmatch(GROUP_NAME, label):
        raise BadRequest(f"{label!r} is no label of a key pair", "letters, digits and '_', at most 64")


def _refuse_second(pki: LabPki, node: str, label: str, replacing: bool) -> None:
    if pki.key_pair(node, label) is not None and not replacing:
        raise BadRequest(f"{node} has a key pair {label} already", "'--replace' puts the new one in its place")


def _report(directory: LabDirectory, pair: KeptKeyPair) -> KeyPairReport:
    public = rsa_pem.public_key_of(pair.private_key)
    groups = standing_plan(directory).node(pair.node).configuration.key_server_groups
    return KeyPairReport(
        pair.node,
        pair.label,
        rsa_pem.modulus_bits(pair.private_key),
        pair.exportable,
        pair.made,
        tuple(group.name for group in groups if group.rekey.key_label == pair.label),
        hashlib.sha256(public).hexdigest(),
        public.hex(),
    )
