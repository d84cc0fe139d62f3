"""GDOI (RFC 6407), sans-IO: group policy, GROUPKEY-PULL, key server and group member.

- `policy`, `timing`: keys and rules as both sides hold them, and when they are renewed.
- `payloads`, `encoding`, `decoding`: the wire form, and policy to and from it.
- `group`, `key_server`: what a key server keeps and answers; `pull_server` hands out policy and keys, `served_groups`
  sends what time and orders make due.
- `group_member`: when a member registers, and what becomes of its keys; `member_registration` goes through the key
  servers, `member_pull` asks one for keys, `member_keys` holds them, `member_push` takes rekeys.
- `push`, `ack`: GROUPKEY-PUSH and its acknowledgement, built and opened.
"""

from labctl.gdoi.group_member import GroupMember
from labctl.gdoi.key_server import KeyServer
from labctl.gdoi.policy import GroupKeys, KeyEncryptionKey, PolicyRule, TrafficEncryptionKey
from labctl.gdoi.timing import Timing

__all__ = [
    "GroupKeys",
    "GroupMember",
    "KeyEncryptionKey",
    "KeyServer",
    "PolicyRule",
    "Timing",
    "TrafficEncryptionKey",
]
