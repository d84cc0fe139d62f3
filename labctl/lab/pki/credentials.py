"""What nodes are told of a lab's certificates and keys: the Credentials that `plan()` takes."""

from __future__ import annotations

from dataclasses import replace

from labctl.configuration import RsaKeyPair, Trustpoint
from labctl.lab.pki.state import KeptCertificate, LabPki
from labctl.topology.pki import Credentials
from labctl.topology.plan import Plan


def credentials_of(pki: LabPki) -> Credentials:
    """By node."""
    nodes = dict.fromkeys(item.planned.node for item in pki.certificates)
    holders = dict.fromkeys(item.node for item in pki.key_pairs)
    return Credentials(
        trustpoints={node: trustpoints_of(pki, node) for node in nodes},
        rsa_keys={node: rsa_keys_of(pki, node) for node in holders},
        # Without certificates no node looks at a date, and a plan without one is the same in every lab.
        started=pki.started if pki.certificates else None,
    )


def trustpoints_of(pki: LabPki, node: str) -> tuple[Trustpoint, ...]:
    """A node's trustpoints, in the order of the plan."""
    return tuple(_trustpoint(pki, item) for item in pki.of_node(node))


def rsa_keys_of(pki: LabPki, node: str) -> tuple[RsaKeyPair, ...]:
    """A node's labelled key pairs, in the order in which they came."""
    return tuple(
        RsaKeyPair(item.label, item.private_key, item.exportable) for item in pki.key_pairs if item.node == node
    )


def with_credentials(plan: Plan, pki: LabPki) -> Plan:
    """The plan that stands, after its certificates or keys have changed."""
    credentials = credentials_of(pki)
    nodes = tuple(
        replace(
            node,
            configuration=replace(
                node.configuration,
                trustpoints=credentials.trustpoints.get(node.name, ()),
                rsa_keys=credentials.rsa_keys.get(node.name, ()),
            ),
        )
        for node in plan.nodes
    )
    return replace(plan, nodes=nodes)


def _trustpoint(pki: LabPki, kept: KeptCertificate) -> Trustpoint:
    authority = pki.authority(kept.authority)
    assert authority is not None, "an authority stays as long as a certificate of it"
    return Trustpoint(
        name=kept.planned.trustpoint,
        authorities=(authority.certificate,),
        chain=(kept.certificate,),
        private_key=kept.key,
        crls=(authority.crl,),
        check_revocation=pki.check_revocation,
        fqdn=kept.planned.identity,
    )
