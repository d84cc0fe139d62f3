"""Offloads off, so that a frame on a lab wire is what a wire would carry: checksummed, and no longer than the MTU.

One ioctl sets all features of a link at once (linux/ethtool.h: ETHTOOL_SFEATURES; their names by ETHTOOL_GSTRINGS).
Set before the link is up, it also spares the kernel the work of starting a NAPI context for GRO.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct

SIOCETHTOOL = 0x8946
ETHTOOL_GSTRINGS, ETHTOOL_GSSET_INFO, ETHTOOL_SFEATURES = 0x1B, 0x37, 0x3B
ETH_SS_FEATURES, ETH_GSTRING_LEN = 4, 32

# Names of /net/ethtool/common.c: what is computed, cut or joined by the device that is not there.
_OFFLOADS = ("tx-checksum", "rx-checksum", "tx-scatter-gather", "rx-gro", "rx-lro", "rx-udp-gro", "tx-vlan", "rx-vlan")
_SEGMENTATION = "segmentation"

# What an agent does instead of the kernel: TCP in frames of 64 KB, checksums to come.
_LEFT_TO_AN_AGENT = ("tx-checksum-ip", "tx-scatter-gather", "tx-tcp")


class Offloads:
    """Turns offloads off in the namespace in which `ioctl_socket` was opened. The feature list is read once."""

    def __init__(self) -> None:
        self._features: list[str] = []
        self._requests: dict[tuple[str, ...], bytes] = {}

    def turn_off(self, ioctl_socket: socket.socket, interface: str, *, to_agent: bool = False) -> None:
        """Turn every offload of a link off, or all but what the agent at its end does. Raises OSError that names it."""
        kept = _LEFT_TO_AN_AGENT if to_agent else ()
        if kept not in self._requests:
            self._features = self._features or _features(ioctl_socket, interface)
            self._requests[kept] = _request(self._features, kept)
        _ioctl(ioctl_socket, interface, bytearray(self._requests[kept]))


def _ioctl(ioctl_socket: socket.socket, interface: str, data: bytearray) -> None:
    holder = array.array("B", data)
    address, _ = holder.buffer_info()
    try:
        fcntl.ioctl(ioctl_socket, SIOCETHTOOL, struct.pack("16sP", interface.encode(), address))
    except OSError as error:
        raise OSError(error.errno, f"set the offloads of {interface}: {error.strerror}") from None
    data[:] = holder.tobytes()


def _features(ioctl_socket: socket.socket, interface: str) -> list[str]:
    count = bytearray(struct.pack("=IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0))
    _ioctl(ioctl_socket, interface, count)
    number = struct.unpack_from("=I", count, 16)[0]
    names = bytearray(struct.pack("=III", ETHTOOL_GSTRINGS, ETH_SS_FEATURES, number) + bytes(number * ETH_GSTRING_LEN))
    _ioctl(ioctl_socket, interface, names)
    start = 12
    return [
        bytes(names[start + index * ETH_GSTRING_LEN :][:ETH_GSTRING_LEN]).split(b"\0")[0].decode()
        for index in range(number)
    ]


def _request(features: list[str], kept: tuple[str, ...]) -> bytes:
    """struct ethtool_sfeatures: (valid, requested) a block of 32 features; requested stays 0: off."""
    blocks = [0] * (-(-len(features) // 32))
    for index, name in enumerate(features):
        if (name.startswith(_OFFLOADS) or _SEGMENTATION in name) and not (kept and name.startswith(kept)):
            blocks[index // 32] |= 1 << (index % 32)
    return struct.pack("=II", ETHTOOL_SFEATURES, len(blocks)) + b"".join(struct.pack("=II", bits, 0) for bits in blocks)
