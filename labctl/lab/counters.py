"""What a node has counted: interfaces, the crypto map with its SAs and policy entries, and why packets were dropped."""

from __future__ import annotations

from typing import Any

from labctl.lab.directory import LabDirectory
from labctl.lab.session import opened
from labctl.lab.standing import require_node

# Why a packet was dropped (labctl.esp.DropReason and the data plane's own), in words that help.
MEANINGS = {
    "no-sa": "the policy protects it, and there is no key to send it under",
    "invalid-spi": "it came under a key that this member does not have",
    "mac-verify-failed": "its integrity check is wrong: it was changed on its way, or is under another key",
    "bad-padding": "it decrypted to nonsense",
    "not-an-ipsec-packet": "it came in clear, and the policy protects it",
    "selector-mismatch": "what was inside is not what the policy protects",
    "address-mismatch": "the addresses inside are not those outside: somebody translated them",
    "fragment-overlap": "a fragment of an encrypted packet that overlaps another one, and the packet it belongs to",
    "fragment-duplicate": "a fragment of an encrypted packet that came twice",
    "fragment-timeout": "a fragment of an encrypted packet whose others did not come",
    "fragment-limit": "a fragment of an encrypted packet, of which too many wait for others",
    "malformed": "it is no whole IP packet",
    "too-big": "encrypted it would not fit the link, and it may not be fragmented",
    "dummy": "a dummy packet (RFC 4303 2.6)",
    "sequence-number-exhausted": "its key has no sequence number left",
    "no-sender-id": "the key server gave no sender ID for a counter-mode key",
    "expired": "its key's life was over",
    "replay-check-failed": "its time stamp is outside of the window, or its sequence number came before: a replay",
    "bad-time-stamp": "its time stamp is missing, not expected, or of another clock than the group's",
    "fail-close": "there are no keys, and the member fails close",
    "outbound-lost": "the wire had no room, or was down",
    "inbound-lost": "the inside had no room, or was down",
    "outbound-overrun": "packets came from inside faster than they could be encrypted",
    "inbound-overrun": "packets came from the wire faster than they could be decrypted",
}


# What is done so that packets fit their way (labctl.esp.tunnel).
FITTING = {
    "split-before-encryption": "packets in fragments, of which each was encrypted: hosts put them together",
    "split-after-encryption": "packets encrypted, then in fragments: the receiving member puts them together",
    "esp-reassembled": "encrypted packets that came in fragments",
    "split-for-the-inside": "opened packets in fragments, because they are longer than the inside link",
    "senders-told-too-big": "ICMP messages to senders: fragmentation needed, packet too big",
    "mss-lowered": "SYNs whose offer was lowered here, because the kernel cannot",
    "path-mtu-lowered": "paths that a router in the network says have less room",
}


async def counters_of(directory: LabDirectory, node: str) -> dict[str, Any]:
    """The agent's `counters` (docs/internals.md, The agent). Raises BadRequest, NoSuchLab, DoorError."""
    require_node(directory, node)
    async with opened(directory) as connection:
        return await connection.call("node", name=node, op="counters", args={})
