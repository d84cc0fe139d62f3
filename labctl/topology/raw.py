"""The shape of a topology file: the one place that says which keys there are, of what type, and what they mean.

`shape.py` reads files through these models, `labctl schema` prints their JSON Schema. They hold what the user wrote;
what it means is resolved by `resolve.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag

from labctl.topology.raw_check import RawCheck
from labctl.topology.raw_link import RawLinkForm
from labctl.topology.raw_node import RawNodeForm
from labctl.topology.raw_pki import RawPki
from labctl.topology.raw_replay import REPLAY, RawReplayForm
from labctl.topology.raw_shape import RawShape as _Shape
from labctl.topology.raw_shape import is_list, is_mapping

# A lab's name is a folder of the state directory and part of container names.
LAB_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
# A node's name is a host name (RFC 1123 2.1), and a switch's also an interface name: at most 15 octets (IFNAMSIZ).
NODE_NAME = r"[A-Za-z]([A-Za-z0-9-]{0,13}[A-Za-z0-9])?"
# Letters, digits and underscore: reference/cisco-getvpn.md, naming rule; parsers of show output take nothing else.
GROUP_NAME = r"[A-Za-z0-9_]{1,64}"

# An hour in 3.6 seconds; beyond it, retransmission timers meet the machine's own delays.
FASTEST_CLOCK = 1000
# reference/cisco-getvpn.md 1.3: bounds of IOS; 30 days with long SA lifetimes.
SHORTEST_TEK, SHORTEST_KEK, LONGEST_LIFETIME = 120, 300, 30 * 86400
# reference/cisco-getvpn.md 1.3, range of IOS's `identity number`.
LARGEST_IDENTITY = 2147483647
LONGEST_DELAY = 65535
# `rekey retransmit`: 10 to 60 seconds, 1 to 10 copies (reference/cisco-getvpn.md 1.3).
SHORTEST_RETRANSMIT, LONGEST_RETRANSMIT, MOST_RETRANSMITS = 10, 60, 10
# `crypto isakmp policy ... lifetime`: 60 to 86400 seconds on IOS.
SHORTEST_PHASE_1, LONGEST_PHASE_1 = 60, 86400
# `crypto isakmp keepalive`: 10 to 3600 seconds, retries after 2 to 60 (unverified). `crypto call admission limit ike
# in-negotiation-sa`: 10 to 99999 (unverified); 1 is allowed here, to see it at work.
SHORTEST_KEEPALIVE, LONGEST_KEEPALIVE = 10, 3600
SHORTEST_KEEPALIVE_RETRY, LONGEST_KEEPALIVE_RETRY = 2, 60
MOST_HALF_OPEN = 99_999
# `client recovery-check interval` (the reference gives no range).
SHORTEST_RECOVERY, LONGEST_RECOVERY = 10, 3600
# reference/cisco-getvpn.md 1.3: key servers of a group in all; 1.4: servers in a member's list.
MOST_KEY_SERVERS = 8


class RawClock(_Shape):
    """The lab's clock."""

    scale: float = Field(
        default=1.0,
        ge=0.1,
        le=FASTEST_CLOCK,
        description="Lab seconds in one real second: at 60, an hour passes in a minute.",
    )


class RawLifetime(_Shape):
    """How long keys live, in seconds."""

    tek: int = Field(
        default=3600, ge=SHORTEST_TEK, le=LONGEST_LIFETIME, description="Traffic encryption key, in seconds."
    )
    kek: int = Field(default=86400, ge=SHORTEST_KEK, le=LONGEST_LIFETIME, description="Key encryption key, in seconds.")


class RawIsakmp(_Shape):
    """One phase 1 proposal (`crypto isakmp policy`)."""

    encryption: str = Field(default="aes 256", description="aes 128, aes 192, aes 256 or 3des.")
    hash: Literal["sha", "sha256", "sha384", "sha512"] = Field(default="sha256", description="Hash of phase 1.")
    group: Literal[2, 5, 14, 19, 20] = Field(default=14, description="Diffie-Hellman group.")
    lifetime: int = Field(default=86400, ge=SHORTEST_PHASE_1, le=LONGEST_PHASE_1, description="In seconds.")
    authentication: Literal["pre-share", "rsa-sig", "ecdsa-sig"] = Field(
        default="pre-share", description="How peers prove who they are: a key they share, or certificates (see 'pki')."
    )


class RawSaIpsec(_Shape):
    """One `sa ipsec` entry: an access list with its own keys."""

    policy: list[str] = Field(
        description="Access list: permit encrypts, deny and no match stay in clear.",
        examples=[["permit ip 10.1.0.0/16 10.1.0.0/16"]],
    )
    transform: str = Field("esp-gcm 256", description="How packets are encrypted.")
    lifetime: int = Field(
        default=3600, ge=SHORTEST_TEK, le=LONGEST_LIFETIME, description="Traffic encryption key, in seconds."
    )
    replay: RawReplayForm | None = Field(default=None, description=REPLAY)


class RawRetransmit(_Shape):
    """Copies of a rekey (`rekey retransmit SECONDS number N`)."""

    interval: int = Field(default=10, ge=SHORTEST_RETRANSMIT, le=LONGEST_RETRANSMIT, description="Seconds.")
    number: int = Field(default=2, ge=1, le=MOST_RETRANSMITS, description="Copies after the first.")


class RawRekey(_Shape):
    """How keys are renewed, and the key that protects it."""

    transport: Literal["multicast", "unicast", "none"] = Field(
        default="multicast",
        description="multicast: one message to a group address. unicast: a copy to each member, acknowledged. "
        "none: members register again for new keys.",
    )
    address: str | None = Field(
        default=None, description="Group address of multicast rekeys; planned where it is left out."
    )
    retransmit: RawRetransmit = Field(
        default=RawRetransmit(),
        description="Copies: of unicast rekeys to members that have not acknowledged.",
    )
    acknowledgement: Literal["sha256", "sha512", "none"] = Field(
        default="sha256", description="What members acknowledge with (RFC 8263)."
    )
    encryption: str = Field(default="aes 256", description="aes 128, aes 192, aes 256 or 3des.")
    hash: Literal["sha", "sha256", "sha384", "sha512"] = Field(
        default="sha256", description="Hash of a rekey's signature."
    )
    key_tree: bool = Field(
        default=False,
        description="Keep a key tree (LKH, RFC 6407 5.6.3), so that a member can be evicted without the others "
        "registering again.",
    )
    key: str | None = Field(
        default=None,
        description="Label of the RSA key pair that signs rekeys, made once for all key servers of the group. "
        "Left out: one that each key server makes when it starts.",
    )


class RawDelays(_Shape):
    """Seconds after a rekey (group-associated policy, RFC 6407 5.4); 0: just before the old keys end."""

    activation: int = Field(default=0, ge=0, le=LONGEST_DELAY, description="Members send under the new keys after it.")
    deactivation: int = Field(default=0, ge=0, le=LONGEST_DELAY, description="Members drop the old keys after it.")


class RawMember(_Shape):
    """A member, long form: what is configured on it alone."""

    node: str = Field(description="Node of kind ce.")
    interface: str | None = Field(
        default=None, description="Its interface to a pe on which it encrypts, where it has several of them."
    )
    local_policy: list[str] = Field(
        default=[],
        description="Deny entries of its own, before the key server's policy: what they match stays in clear.",
        examples=[["deny tcp any any eq 179"]],
    )
    fail_close: list[str] | None = Field(
        default=None,
        description="Without keys only what these deny entries match passes, in clear. Left out: everything does.",
    )
    fail_close_revert: bool = Field(default=False, description="Fail close again when keys are lost later.")
    passive: bool = Field(default=False, description="Send encrypted, take clear packets too (for a migration).")
    recovery_check: int | None = Field(
        default=None,
        ge=SHORTEST_RECOVERY,
        le=LONGEST_RECOVERY,
        description="Register with the next key server after packets under unknown keys or replays, once in so many "
        "seconds.",
    )
    refused: bool = Field(
        default=False,
        description="This member is to get no keys: 'up' waits for its refusal, and 'test' proves that it has none.",
    )


class RawAuthorization(_Shape):
    """Who of those that phase 1 authenticates may register (`authorization address ipv4`, `authorization identity`)."""

    addresses: list[str] | None = Field(
        default=None,
        description="Members by name, addresses or prefixes that registrations may come from.",
        examples=[["ce1", "172.16.2.2", "172.16.0.0/16"]],
    )
    identities: list[str] | None = Field(
        default=None,
        description="Lines of 'crypto identity': 'dn OU=members,O=my-lab' or 'fqdn lab.example'; one must match the "
        "member's certificate. An empty list lets nobody in, as on IOS.",
        examples=[["dn OU=members", "fqdn lab.example"]],
    )


RawIsakmpPolicies: TypeAlias = Annotated[
    Annotated[RawIsakmp, Tag("<one>")] | Annotated[list[RawIsakmp], Tag("<several>")], Discriminator(is_list)
]
RawKeys: TypeAlias = Annotated[
    Annotated[str, Tag("<short>")] | Annotated[dict[str, str], Tag("<long>")], Discriminator(is_mapping)
]
RawMemberForm: TypeAlias = Annotated[
    Annotated[str, Tag("<short>")] | Annotated[RawMember, Tag("<long>")], Discriminator(is_mapping)
]


def _is_text(value: Any) -> str:
    return "<address>" if isinstance(value, str) else "<number>"


RawIdentity: TypeAlias = Annotated[
    Annotated[int, Field(ge=0, le=LARGEST_IDENTITY), Tag("<number>")] | Annotated[str, Tag("<address>")],
    Discriminator(_is_text),
]


class RawGroup(_Shape):
    """A GETVPN group, said once for key servers and members."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["policy"]}, {"required": ["sa-ipsec"]}]})

    identity: RawIdentity = Field(description="Group identity: a number, or an IPv4 address.")
    key_servers: list[str] = Field(description="Nodes of kind ks, in the order in which members try them.")
    members: list[RawMemberForm] = Field(
        description="Nodes of kind ce, by name, or with what is configured on them alone.",
        examples=[["ce1", {"node": "ce2", "fail-close": []}]],
    )
    ipv6: bool = Field(
        default=False, description="The group protects IPv6, and its access lists are IPv6 (crypto gdoi group ipv6)."
    )
    policy: list[str] | None = Field(
        default=None,
        description="Access list: permit encrypts, deny and no match stay in clear; the first match wins.",
        examples=[["permit ip 10.1.0.0/16 10.1.0.0/16"]],
    )
    transform: str = Field(
        "esp-gcm 256", description="How packets are encrypted, for example esp-aes 256 esp-sha256-hmac."
    )
    replay: RawReplayForm | None = Field(default=None, description=REPLAY)
    sa_ipsec: list[RawSaIpsec] | None = Field(
        default=None,
        description="Instead of policy, transform, replay and lifetime.tek: several access lists, in order, each with "
        "its own.",
    )
    lifetime: RawLifetime = Field(default=RawLifetime(), description="How long keys live.")
    isakmp: RawIsakmpPolicies = Field(default=RawIsakmp(), description="Phase 1 proposals, the preferred first.")
    rekey: RawRekey = Field(default=RawRekey(), description="How keys are renewed.")
    delays: RawDelays = Field(default=RawDelays(), description="When members change to new keys.")
    authorization: RawAuthorization = Field(default=RawAuthorization(), description="Which members may register.")
    receive_only: bool = Field(
        default=False, description="Members decrypt and send in clear, for a migration (sa receive-only)."
    )
    pre_shared_keys: RawKeys = Field(
        default="generated",
        description="'generated': random, one for each pair; or one text for all; or a text for each member.",
    )


class RawKeepalive(_Shape):
    """Dead peer detection between key servers (`crypto isakmp keepalive INTERVAL RETRY [periodic]`)."""

    interval: int = Field(
        default=15, ge=SHORTEST_KEEPALIVE, le=LONGEST_KEEPALIVE, description="Seconds between questions, or of silence."
    )
    retry: int = Field(
        default=2, ge=SHORTEST_KEEPALIVE_RETRY, le=LONGEST_KEEPALIVE_RETRY, description="Seconds before it asks again."
    )
    periodic: bool = Field(default=False, description="Ask always, not only when something is to be sent.")


class RawIsakmpSettings(_Shape):
    """What holds for all of phase 1 on every key server and member."""

    keepalive: RawKeepalive | None = Field(
        default=None, description="Key servers ask each other whether they live; left out, they do not."
    )
    admission_limit: int = Field(
        default=1024,
        ge=1,
        le=MOST_HALF_OPEN,
        description="Exchanges of phase 1 that peers began and that are not over (crypto call admission limit).",
    )


class RawTopology(_Shape):
    """A labctl topology."""

    name: str = Field(description="The lab's name.", pattern=f"^{LAB_NAME}$")
    runtime: Literal["auto", "namespaces", "docker"] = Field(default="auto", description="What makes the nodes.")
    clock: RawClock = Field(default=RawClock(), description="The lab's clock.")
    isakmp: RawIsakmpSettings = Field(default=RawIsakmpSettings(), description="What holds for all of phase 1.")
    nodes: dict[str, RawNodeForm] = Field(
        description="Node name -> kind.", json_schema_extra={"propertyNames": {"pattern": f"^{NODE_NAME}$"}}
    )
    links: list[RawLinkForm] = Field(
        description="Wires: 'ce1 -- pe1', in the order that numbers interfaces and addresses.",
        examples=[["h1 -- ce1", "ce1:eth1 172.16.9.2/30 -- 172.16.9.1/30 pe1"]],
    )
    groups: dict[str, RawGroup] = Field(
        default={},
        description="Group name -> GETVPN group.",
        json_schema_extra={"propertyNames": {"pattern": f"^{GROUP_NAME}$"}},
    )
    pki: RawPki = Field(default=RawPki(), description="The CA of groups that authenticate with certificates.")
    checks: list[RawCheck] | None = Field(
        default=None, description="What `labctl test` must prove; derived from the topology where it is left out."
    )


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of topology files."""
    made = RawTopology.model_json_schema(by_alias=True, mode="validation", ref_template="#/$defs/{model}")
    named: dict[str, Any] = _without_class_names(made)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "labctl topology", **named}


def _without_class_names(part: Any) -> Any:
    """Our classes' names and pydantic's titles mean nothing to who edits a topology."""
    if isinstance(part, list):
        return [_without_class_names(item) for item in part]
    if isinstance(part, dict):
        return {
            key.removeprefix("Raw"): _without_class_names(value)
            for key, value in part.items()
            if not (key == "title" and isinstance(value, str))
        }
    return part.replace("#/$defs/Raw", "#/$defs/") if isinstance(part, str) else part
