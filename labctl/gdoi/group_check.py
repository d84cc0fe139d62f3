"""What no group can keep, whatever a configuration says."""

from __future__ import annotations

from labctl.configuration import KeyServerGroup
from labctl.gdoi import access_lists, sender_ids
from labctl.gdoi.tree_key import fits_tree
from labctl.isakmp.errors import LocalError


def check(configuration: KeyServerGroup) -> None:
    """Raises LocalError for a configuration that no group can keep."""
    group, rekey = f"group {configuration.name}", configuration.rekey
    if rekey.lifetime <= 0:
        raise LocalError(f"{group}: a key's lifetime is at least a second")
    if rekey.key_tree and not fits_tree(rekey.encryption, rekey.key_bits):
        raise LocalError(f"{group}: a key of {rekey.key_bits} bits cannot be encrypted under another in a key tree")
    access_lists.check(configuration)
    if any(not sa.replay.is_possible for sa in configuration.sas):
        raise LocalError(f"{group}: an anti-replay window that no router takes")
    sender_ids.check(configuration)
