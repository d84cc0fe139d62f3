"""Memory for frames: where they lie in it, with the room around them that ciphers want."""

from __future__ import annotations

import contextlib
import mmap

from labctl.esp.transforms import HEADROOM, TAILROOM
from labctl.kernel.vnet import ETHERNET, VLAN_TAG

PAGE, CACHE_LINE = mmap.PAGESIZE, 64

# What stands before a frame in the slot of a ring: struct tpacket2_hdr, a sockaddr_ll and a vnet header, aligned.
SLOT_HEADER = 90

# Frames of a batch: the place of each in its buffer, and its size.
Frames = list[tuple[int, int]]


def stride_for(mtu: int) -> int:
    """Octets of a slot for frames of an interface: an odd number of cache lines.

    With a power of two, the headers of all slots share a few sets of the processor's caches, and push each other out.
    """
    room = SLOT_HEADER + HEADROOM + ETHERNET + VLAN_TAG + max(mtu, 1500) + TAILROOM
    return -(-room // (2 * CACHE_LINE)) * 2 * CACHE_LINE + CACHE_LINE


def close_map(memory: mmap.mmap) -> None:
    """Let go of memory now, or with the last packet in it that somebody still looks at."""
    with contextlib.suppress(BufferError):
        memory.close()
