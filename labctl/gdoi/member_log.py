"""What a group member's log says of its registrations, in the words of reference/cisco-getvpn.md 4. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address

from labctl.configuration import GroupMembership
from labctl.gdoi.events import LogMessage


def begins(member: GroupMembership, server: IPv4Address) -> LogMessage:
    """A registration begins with that key server."""
    text = f"Start registration to KS {server} for group {member.name} using address {member.local_address}"
    return LogMessage("CRYPTO", 5, "GM_REGSTER", text)


def goes_on() -> LogMessage:
    """One key server did not give keys: the next."""
    text = "GM is connecting to next key server from the list"
    return LogMessage("CRYPTO", 5, "GM_CONN_NEXT_SER", text)


def succeeded(member: GroupMembership, server: IPv4Address) -> list[LogMessage]:
    """Policy and keys are there."""
    name, address = member.name, member.local_address
    merged = f"ACL between KS and GM in group {name} merged."
    installed = f"SUCCESS: Installation of Reg/Rekey policies from KS {server} for group {name} & gm identity {address}"
    complete = (
        f"Registration to KS {server} complete for group {name} using address {address} [fvrf default ivrf default]"
    )
    return [
        *([LogMessage("GDOI", 5, "GM_ACL_MERGE", merged)] if member.local_policy else []),
        LogMessage("GDOI", 5, "GM_INSTALL_POLICIES_SUCCESS", installed),
        LogMessage("GDOI", 5, "GM_REGS_COMPL", complete),
    ]


def rejects(member: GroupMembership, server: IPv4Address, reason: str) -> LogMessage:
    """Policy or keys that the member cannot take."""
    text = (
        f"Registration: Policy in SA payload sent by KS {server} rejected by GM in the group "
        f"{member.name} reason {reason}"
    )
    return LogMessage("GDOI", 4, "GM_REJECTING_SA_PAYLOAD", text)


def bad_hash(server: IPv4Address) -> LogMessage:
    """An answer that the key server cannot have made."""
    return LogMessage("GDOI", 4, "GM_HASH_FAIL", f"Bad hash in registration message from {server}")


def left(member: GroupMembership) -> LogMessage:
    """The member is stopped."""
    return LogMessage("GDOI", 5, "GM_UNREGISTER", f"GM left the group {member.name}.")


def cleared(member: GroupMembership) -> LogMessage:
    """`clear crypto gdoi`."""
    return LogMessage("GDOI", 5, "GM_CLEAR_REGISTER", f"GM clears the policy of group {member.name}.")


def registers_again(member: GroupMembership) -> LogMessage:
    """Before the keys end, or by order."""
    text = (
        f"The IPSec SA created for group {member.name} may have expired/been cleared, "
        "or didn't go through. Re-register to KS."
    )
    return LogMessage("GDOI", 4, "GM_RE_REGISTER", text)


def recovers(member: GroupMembership, kind: str, server: IPv4Address) -> LogMessage:
    """`client recovery-check`: what could not be decrypted sends the member to another key server."""
    text = f"GM recovery: {kind} in group {member.name}. Register to KS {server}."
    return LogMessage("GDOI", 4, "GM_RECOVERY_REGISTRATION", text)


def misses_rekey(member: GroupMembership, server: IPv4Address) -> LogMessage:
    """The window of registrations has come, and no rekey with newer keys."""
    text = f"GM did not receive rekey from KS {server} in group {member.name}."
    return LogMessage("GDOI", 5, "GM_REKEY_NOT_RECD", text)


def keys_shortened(member: GroupMembership) -> LogMessage:
    """The key server took the KEK, and leaves the TEKs a moment."""
    text = (
        f"GM received delete-msg from KS in group {member.name}. TEKs lifetime are reduced and "
        "re-registration will start before SA expiry"
    )
    return LogMessage("GDOI", 4, "GM_RECV_DELETE", text)


def keys_wiped(member: GroupMembership, pause: float) -> LogMessage:
    """The key server took every key; the member is back after `pause` seconds."""
    text = (
        f"GM received delete-msg from KS in group {member.name} with REMOVAL-NOW. "
        f"Re-registration will start in a randomly chosen period of {pause:.0f} sec"
    )
    return LogMessage("GDOI", 4, "GM_RECV_DELETE_IMMEDIATE", text)


def keys_replaced(member: GroupMembership) -> LogMessage:
    """A rekey took TEKs and brought others in their place."""
    text = f"GM received policy replace now from KS in group {member.name}."
    return LogMessage("GDOI", 5, "GM_RECV_POLICY_REPLACE_NOW", text)
