"""The settings of a node's network stack. Facts: Documentation/networking/ip-sysctl.rst.

`all` and `default` are written before a node has links, so that every link is born with them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from labctl.configuration import NodeConfiguration

# A new network namespace takes the IPv4 settings of the host (net.core.devconf_inherit_init_net), whatever they are:
# each is said for `all` and for `default`, and nothing is left to chance.
_IPV4_EACH = {
    "rp_filter": "0",  # asymmetric paths are part of the exercise
    "send_redirects": "0",
    "accept_redirects": "0",
    "accept_source_route": "0",
    "arp_ignore": "0",
    "arp_announce": "0",
    "log_martians": "0",
    "disable_policy": "0",
    "disable_xfrm": "0",
}

_IPV6_EACH = {"accept_ra": "0", "accept_dad": "0", "dad_transmits": "0", "accept_redirects": "0", "autoconf": "0"}


def node_sysctls(configuration: NodeConfiguration) -> dict[str, str]:
    """Path below /proc/sys/net -> value, in the order in which they must be written."""
    forwards = "1" if configuration.kind.forwards else "0"
    settings = {"ipv4/ip_forward": forwards}  # first: it resets settings of a router or a host (RFC 1812, RFC 1122)
    for scope in ("all", "default"):
        settings |= {f"ipv4/conf/{scope}/{name}": value for name, value in _IPV4_EACH.items()}
    # ICMP echo sockets without privilege, for the group that is root in the node.
    settings["ipv4/ping_group_range"] = "0 0"
    if not uses_ipv6(configuration):
        return settings | {"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1"}
    settings |= {"ipv6/conf/all/disable_ipv6": "0", "ipv6/conf/all/forwarding": forwards}
    for scope in ("all", "default"):
        settings |= {f"ipv6/conf/{scope}/{name}": value for name, value in _IPV6_EACH.items()}
    # Links speak IPv6 only where they are addressed.
    return settings | {"ipv6/conf/default/disable_ipv6": "1"}


def fabric_sysctls() -> dict[str, str]:
    """A fabric forwards frames, never packets: its own stack stays silent on every LAN."""
    return {
        "ipv4/ip_forward": "0",
        "ipv6/conf/all/disable_ipv6": "1",
        "ipv6/conf/default/disable_ipv6": "1",
    }


def uses_ipv6(configuration: NodeConfiguration) -> bool:
    """True if any interface of the node has an IPv6 address."""
    return any(address.version == 6 for interface in configuration.interfaces for address in interface.addresses)


def write_sysctls(settings: Mapping[str, str], proc: str = "/proc") -> None:
    """Write settings of the network namespace this thread is in. Raises OSError that names the setting.

    A kernel without IPv6 has nothing to switch off there, but a node that asks for IPv6 on it is told.
    """
    has_ipv6 = Path(proc, "sys/net/ipv6").is_dir()
    for name, value in settings.items():
        if not has_ipv6 and name.endswith("/disable_ipv6") and value == "1":
            continue
        try:
            descriptor = os.open(f"{proc}/sys/net/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if name.startswith("ipv4/conf/"):
                continue  # a setting this kernel was built without (xfrm)
            raise
        try:
            os.write(descriptor, value.encode())
        except OSError as error:
            raise OSError(error.errno, f"set net/{name} to {value}: {error.strerror}") from None
        finally:
            os.close(descriptor)
