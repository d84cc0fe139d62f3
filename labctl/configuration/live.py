"""Which changes of a configuration a running node can take; all others count from its next start on.

A key server takes another policy for its groups, of which members hear with the next rekey (reference/cisco-getvpn.md
2.5); a member takes what is configured on it alone and needs no other registration.
"""

from __future__ import annotations

from dataclasses import replace

from labctl.configuration.node import GroupMembership, KeyServerGroup, NodeConfiguration


def changes_live(old: NodeConfiguration, new: NodeConfiguration) -> bool:
    """True if a node that runs as `old` can go on as `new` without a new start."""
    if len(old.key_server_groups) != len(new.key_server_groups) or len(old.memberships) != len(new.memberships):
        return False
    groups = tuple(map(_group_as, old.key_server_groups, new.key_server_groups))
    memberships = tuple(map(_membership_as, old.memberships, new.memberships))
    # How packets fit the way is looked at with each of them, certificates and CRLs whenever they are needed. Names of
    # other nodes are no reason for a new start.
    kept = replace(
        old,
        hosts=new.hosts,
        hosts6=new.hosts6,
        trustpoints=new.trustpoints,
        tunnel=new.tunnel,
        adjust_mss=new.adjust_mss,
    )
    return replace(kept, key_server_groups=groups, memberships=memberships) == new


def _group_as(old: KeyServerGroup, new: KeyServerGroup) -> KeyServerGroup:
    """The old group with what may change in place. Who it is, and what sender IDs were given under, may not.

    A first counter mode may not either: members have sender IDs for it from their registration alone.
    """
    return replace(
        old,
        sas=new.sas if _gives_sender_ids(old) or not _gives_sender_ids(new) else old.sas,
        rekey=replace(new.rekey, key_label=old.rekey.key_label, key_tree=old.rekey.key_tree),
        activation_delay=new.activation_delay,
        deactivation_delay=new.deactivation_delay,
        authorized=new.authorized,
        authorized_identities=new.authorized_identities,
        receive_only=new.receive_only,
    )


def _gives_sender_ids(group: KeyServerGroup) -> bool:
    return any(sa.transform.uses_counter_mode for sa in group.sas)


def _membership_as(old: GroupMembership, new: GroupMembership) -> GroupMembership:
    return replace(
        old,
        local_policy=new.local_policy,
        fail_close_revert=new.fail_close_revert,
        passive=new.passive,
        recovery_check=new.recovery_check,
    )
