"""ESP for groups (RFC 4303, RFC 5374), sans-IO: whole IP packets in, whole IP packets out.

- `transforms`: one cipher with its integrity, per TransformSet. `association`: an SA with counters and nonces.
- `replay`: time stamps and windows against packets that come again.
- `ip`: the IP headers around it: tunnel mode that keeps addresses, fragments, ICMP.
- `ipv6`: what is behind extension headers, and what stays on a link.
- `flows`: what is known of flows that passed before.
- `policy`: the ordered selectors of a group, what to do with each packet. `selectors`: what an entry means.
- `tunnel`: how packets fit the way: `fragments`, `reassembly`, `path_mtu`, `answers` (ICMP).
- `exemptions`: the group's own signalling, which passes in clear.
"""

from labctl.esp.association import SecurityAssociation
from labctl.esp.errors import DropPacket, DropReason
from labctl.esp.exemptions import Exemptions, RegistrationPath, RekeyFlow
from labctl.esp.policy import CryptoPolicy, PolicyEntry, Verdict
from labctl.esp.tunnel import Tunnel

__all__ = [
    "CryptoPolicy",
    "DropPacket",
    "DropReason",
    "Exemptions",
    "PolicyEntry",
    "RegistrationPath",
    "RekeyFlow",
    "SecurityAssociation",
    "Tunnel",
    "Verdict",
]
