"""Capture filters (pcap-filter(7)): libpcap compiles them to classic BPF, and we run the program over a frame.

libpcap is what tcpdump and Wireshark read their filters with, so a filter means here what it means there. It is needed
where a filter is written, not where it runs: a program is numbers. Instructions: Linux, Documentation/networking/
filter.rst (the classic set); programs only jump forward, so they end.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache

from labctl.configuration.words import WordError

Program = tuple[tuple[int, int, int, int], ...]

DLT_EN10MB = 1
SNAPLEN = 262_144
NETMASK_UNKNOWN = 0xFFFFFFFF
# What the kernel takes as well (BPF_MAXINSNS).
LONGEST_PROGRAM = 4096
MEMORY_WORDS = 16
_MASK = 0xFFFFFFFF


_CLASSIC = frozenset(
    [mode | width for mode in (0x20, 0x40) for width in (0x00, 0x08, 0x10)]  # LD [k], LD [x + k]
    + [0x00, 0x60, 0x80, 0x01, 0x61, 0x81, 0xB1, 0x02, 0x03, 0x05, 0x06, 0x16, 0x07, 0x87]
    + [4 | operation | source for operation in range(0, 0xB0, 0x10) for source in (0, 8) if operation | source != 0x88]
    + [5 | operation | source for operation in (0x10, 0x20, 0x30, 0x40) for source in (0, 8)]
)


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


@cache
def _libpcap() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("pcap") or "libpcap.so.0.8"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return None
    library.pcap_open_dead.restype = ctypes.c_void_p
    library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
    library.pcap_compile.argtypes = (
        ctypes.c_void_p,
        ctypes.POINTER(_Program),
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_uint,
    )
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = (ctypes.c_void_p,)
    library.pcap_freecode.argtypes = (ctypes.POINTER(_Program),)
    library.pcap_close.argtypes = (ctypes.c_void_p,)
    return library


def compile_filter(text: str) -> Program:
    """The program of a capture filter for Ethernet frames. Raises WordError."""
    if not text.strip():
        raise WordError("the filter is empty", "leave it out to mean every frame")
    if "\0" in text:
        raise WordError("a filter has no zero octets")
    library = _libpcap()
    if library is None:
        raise WordError("packet filters need libpcap, which is not installed", "Debian and Ubuntu: libpcap0.8")
    handle = library.pcap_open_dead(DLT_EN10MB, SNAPLEN)
    compiled = _Program()
    try:
        if library.pcap_compile(handle, ctypes.byref(compiled), text.encode(), 1, NETMASK_UNKNOWN) != 0:
            why = library.pcap_geterr(handle).decode(errors="replace")
            raise WordError(f"{text.strip()!r} is not a capture filter: {why}", "for example 'udp port 848'")
        found = [compiled.instructions[index] for index in range(compiled.length)]
        program = tuple((int(item.code), int(item.jt), int(item.jf), int(item.k)) for item in found)
        library.pcap_freecode(ctypes.byref(compiled))
    finally:
        library.pcap_close(handle)
    return program


def check_program(program: Program) -> Program:
    """The program, if it is one that ends and stays inside itself. Raises ValueError."""
    if not 0 < len(program) <= LONGEST_PROGRAM:
        raise ValueError(f"a filter has 1 to {LONGEST_PROGRAM} instructions, not {len(program)}")
    if program[-1][0] not in (0x06, 0x16):
        raise ValueError("the filter does not end")
    for place, (code, jt, jf, k) in enumerate(program):
        if code not in _CLASSIC:
            raise ValueError(f"instruction {place} of the filter is none of classic BPF")
        ahead = (k,) if code == 0x05 else (jt, jf) if code & 7 == 5 else (0,) if code & 7 != 6 else ()
        if any(jump < 0 or place + 1 + jump >= len(program) for jump in ahead):
            raise ValueError(f"instruction {place} of the filter leads out of it")
        if code in (0x60, 0x61, 0x02, 0x03) and not 0 <= k < MEMORY_WORDS:
            raise ValueError(f"instruction {place} of the filter uses word {k} of {MEMORY_WORDS}")
    return program


def matches(program: Program, frame: bytes | memoryview) -> bool:
    """Does the program take the frame? A load beyond its end rejects it, as in the kernel."""
    a = x = place = 0
    memory: dict[int, int] = {}
    size = len(frame)
    while True:
        code, jt, jf, k = program[place]
        place += 1
        kind = code & 7
        if kind == 0 or code == 0xB1:  # LD, and LDX of an IP header's length
            mode = code & 0xE0
            if mode == 0x00:
                a = k
            elif mode == 0x60:
                a = memory.get(k, 0)
            elif mode == 0x80:
                a = size
            else:
                width = {0x00: 4, 0x08: 2, 0x10: 1}[code & 0x18]
                at = (k + x) & _MASK if mode == 0x40 else k
                if at + width > size:
                    return False
                value = int.from_bytes(frame[at : at + width], "big")
                if code == 0xB1:
                    x = 4 * (value & 15)
                else:
                    a = value
        elif kind == 1:  # LDX
            mode = code & 0xE0
            x = k if mode == 0x00 else memory.get(k, 0) if mode == 0x60 else size
        elif kind in (2, 3):  # ST, STX
            memory[k] = a if kind == 2 else x
        elif kind == 4:
            operand = x if code & 8 else k
            if code & 0xF0 in (0x30, 0x90) and operand == 0:
                return False
            a = _compute(code & 0xF0, a, operand)
        elif kind == 5:
            place += k if code & 0xF0 == 0 else (jt if _jumps(code & 0xF0, a, x if code & 8 else k) else jf)
        elif kind == 6:
            return bool(k if code & 0x18 == 0 else a)
        elif code & 0xF8 == 0:  # TAX
            x = a
        else:  # TXA
            a = x


def _compute(operation: int, a: int, operand: int) -> int:
    value = {
        0x00: lambda: a + operand,
        0x10: lambda: a - operand,
        0x20: lambda: a * operand,
        0x30: lambda: a // operand,
        0x40: lambda: a | operand,
        0x50: lambda: a & operand,
        0x60: lambda: a << operand if operand < 32 else 0,
        0x70: lambda: a >> operand if operand < 32 else 0,
        0x80: lambda: -a,
        0x90: lambda: a % operand,
        0xA0: lambda: a ^ operand,
    }[operation]()
    return value & _MASK


def _jumps(operation: int, a: int, operand: int) -> bool:
    if operation == 0x10:
        return a == operand
    if operation == 0x20:
        return a > operand
    return a >= operand if operation == 0x30 else bool(a & operand)
