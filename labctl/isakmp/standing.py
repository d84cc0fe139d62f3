"""Phase 1 as a user sees it: SAs and exchanges under way, in the words of `show crypto isakmp sa`, and counts.

States as in reference/cisco-getvpn.md 3: GDOI_IDLE is an SA, MM_... an exchange under way.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from labctl.isakmp.endpoint import IsakmpEndpoint
from labctl.isakmp.main_mode import MainMode, State
from labctl.isakmp.sa import Phase1Sa

# An exchange by the message that it waits for.
STATES = {
    State.WAIT_SA: "MM_NO_STATE",
    State.WAIT_KE_OF_INITIATOR: "MM_SA_SETUP",
    State.WAIT_KE_OF_RESPONDER: "MM_SA_SETUP",
    State.WAIT_ID_OF_INITIATOR: "MM_KEY_EXCH",
    State.WAIT_ID_OF_RESPONDER: "MM_KEY_EXCH",
    State.DONE: "MM_KEY_AUTH",
}
IDLE = "GDOI_IDLE"


@dataclass(frozen=True, slots=True)
class AssociationStanding:
    """One row. `left` is seconds of its life, None for an exchange under way."""

    local: str
    peer: str
    port: int
    initiator: bool
    state: str
    left: float | None
    identity: str
    authentication: str
    encryption: str
    hash: str
    group: int | None
    cookies: str


@dataclass(frozen=True, slots=True)
class IsakmpStanding:
    """An endpoint's SAs, oldest first, then exchanges under way; and its counts by name."""

    associations: tuple[AssociationStanding, ...]
    counters: dict[str, int]


def standing(endpoint: IsakmpEndpoint, now: float) -> IsakmpStanding:
    """How an endpoint stands now."""
    rows = [_of_association(sa, now) for sa in endpoint.associations]
    rows += [_of_exchange(exchange) for exchange in endpoint.half_open]
    present = {"associations": len(endpoint.associations), "half_open": endpoint.half_open_count}
    return IsakmpStanding(tuple(rows), {**present, **asdict(endpoint.counts)})


def _of_association(sa: Phase1Sa, now: float) -> AssociationStanding:
    return AssociationStanding(
        local=str(sa.local.address),
        peer=str(sa.peer.address),
        port=sa.peer.port,
        initiator=sa.initiator,
        state=IDLE,
        left=round(max(0.0, sa.expires - now), 1),
        identity=str(sa.peer_identity),
        authentication="" if sa.policy is None else sa.policy.authentication.value,
        encryption="" if sa.policy is None else f"{sa.policy.encryption.value} {sa.policy.key_bits}",
        hash="" if sa.policy is None else sa.policy.hash.value,
        group=None if sa.policy is None else sa.policy.group.value,
        cookies=sa.cookies.hex(),
    )


def _of_exchange(exchange: MainMode) -> AssociationStanding:
    policy = exchange.policy
    return AssociationStanding(
        local=str(exchange.local.address),
        peer=str(exchange.peer.address),
        port=exchange.peer.port,
        initiator=exchange.initiator,
        state=STATES[exchange.state],
        left=None,
        identity="",
        authentication="" if policy is None else policy.authentication.value,
        encryption="" if policy is None else f"{policy.encryption.value} {policy.key_bits}",
        hash="" if policy is None else policy.hash.value,
        group=None if policy is None else policy.group.value,
        cookies=exchange.cookies.hex(),
    )
