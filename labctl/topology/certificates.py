"""Which certificates and RSA keys a topology asks for (docs/topology.md, pki). Pure."""

from __future__ import annotations

from labctl.configuration import Authentication, NodeKind
from labctl.topology.model import CertificateFault, Pki, Topology
from labctl.topology.pki import KeyType, PkiPlan, PlannedAuthority, PlannedCertificate, PlannedRsaKey

_KEY_TYPES = {Authentication.RSA_SIG: KeyType.RSA, Authentication.ECDSA_SIG: KeyType.ECDSA}


def plan_pki(topology: Topology) -> PkiPlan:
    """What must be made before the lab can start: in the order of the file, so that it is the same every time."""
    wanted = _certificate_holders(topology)
    keys = _rsa_keys(topology)
    pki = topology.pki
    if not wanted:
        return PkiPlan(rsa_keys=keys)
    # One CA signs for both kinds of keys; its own is RSA unless nobody reads RSA signatures.
    kind = KeyType.RSA if any(KeyType.RSA in kinds for kinds in wanted.values()) else KeyType.ECDSA
    names = [pki.authority, *(fault.authority for name, fault in pki.faults.items() if name in wanted)]
    return PkiPlan(
        authorities=tuple(PlannedAuthority(name, kind, pki.bits(kind)) for name in dict.fromkeys(names) if name),
        certificates=tuple(
            _certificate(topology, name, place, kind)
            for name, kinds in wanted.items()
            for place, kind in enumerate(kinds)
        ),
        rsa_keys=keys,
        validity_days=pki.validity_days,
        check_revocation=pki.check_revocation,
    )


def certificate_subject(topology: Topology, node: str) -> str:
    """The distinguished name of a node, RFC 4514: `CN=ce1,OU=members,O=my-lab`."""
    unit = "key-servers" if topology.node(node).kind is NodeKind.KS else "members"
    return f"CN={node},OU={unit},O={topology.name}"


def domain_name(pki: Pki, node: str) -> str:
    """What a node is called in the domain of the lab's CA."""
    return f"{node}.{pki.domain}"


def uses_certificates(topology: Topology, node: str) -> bool:
    """True if one of the node's groups has a proposal that signs."""
    return node in _certificate_holders(topology)


def _certificate_holders(topology: Topology) -> dict[str, tuple[KeyType, ...]]:
    """Node -> the kinds of keys that its groups' proposals sign with, in the order of the nodes."""
    found: dict[str, list[KeyType]] = {}
    for group in topology.groups:
        kinds = [_KEY_TYPES[policy.authentication] for policy in group.isakmp if policy.authentication in _KEY_TYPES]
        for name in (*group.key_servers, *group.members):
            found.setdefault(name, []).extend(kinds)
    order = {node.name: place for place, node in enumerate(topology.nodes)}
    return {name: tuple(dict.fromkeys(found[name])) for name in sorted(found, key=order.__getitem__) if found[name]}


def _certificate(topology: Topology, node: str, place: int, kind: KeyType) -> PlannedCertificate:
    pki = topology.pki
    fault = pki.faults.get(node, CertificateFault())
    own = domain_name(pki, node)
    authority = fault.authority or pki.authority
    return PlannedCertificate(
        node=node,
        trustpoint=authority if place == 0 else f"{authority}_{kind.name}",
        authority=authority,
        subject=certificate_subject(topology, node),
        fqdns=(fault.fqdn or own,),
        # With the fault of a wrong name the node still says its own, so that its peers see the difference.
        identity=None if pki.named_by_subject else own,
        key_type=kind,
        key_bits=pki.bits(kind),
        expired=fault.expired,
        revoked=fault.revoked,
    )


def _rsa_keys(topology: Topology) -> tuple[PlannedRsaKey, ...]:
    nodes: dict[str, dict[str, None]] = {}
    for group in topology.groups:
        if group.rekey.key_label is not None:
            nodes.setdefault(group.rekey.key_label, {}).update(dict.fromkeys(group.key_servers))
    return tuple(PlannedRsaKey(label, tuple(names)) for label, names in nodes.items())
