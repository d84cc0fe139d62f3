"""`capture --decrypt`: tshark and its window get what they need, whatever the transform, group and version of IP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from decode_rekey import GM, KS, rekey
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import rdpcap

from labctl.configuration import Cipher, Integrity, TransformSet
from labctl.decode import esp_spi
from labctl.esp import SecurityAssociation
from labctl.gdoi.policy import TrafficEncryptionKey
from labctl.lab.capture import CapturedPacket, CapturePoint, CaptureResult
from labctl.lab.decrypting import Decryption
from labctl.lab.errors import BadRequest, LabError
from labctl.lab.keylog import KeyTables
from labctl.lab.pcapng import PcapngWriter
from labctl.lab.viewer import LiveSink, choose_program
from labctl.node.keylog import esp_line, rekey_line

POINT = CapturePoint("ce1", "eth0")
INTEGRITY = {Integrity.NONE: 0, Integrity.SHA1: 20, Integrity.SHA256: 32, Integrity.SHA512: 64}


@pytest.fixture
def tshark() -> str:
    found = shutil.which("tshark")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("tshark is not installed (.ci/packages installs it)")
        pytest.skip("tshark is not installed (.ci/packages installs it)")
    return found


@dataclass(frozen=True)
class Sa:
    """An SA of a group, and the lines of its key."""

    sending: SecurityAssociation
    lines: list[str]

    def ping(self, number: int, ipv6: bool = False) -> bytes:
        """The frame of an echo request in ESP."""
        inner = (
            IPv6(src="2001:db8:1::10", dst="2001:db8:2::10") / ICMPv6EchoRequest(seq=number, data=b"x" * 40)
            if ipv6
            else IP(src="10.1.1.10", dst="10.1.2.10") / ICMP(seq=number) / Raw(b"x" * 40)
        )
        return bytes(Ether(type=0x86DD if ipv6 else 0x0800)) + self.sending.encapsulate(bytes(inner))


def association(spi: int, transform: TransformSet) -> Sa:
    source = Random(spi)
    key = source.randbytes(transform.key_bits // 8 + (4 if transform.uses_counter_mode else 0))
    integrity = source.randbytes(INTEGRITY[transform.integrity])
    sa = SecurityAssociation(spi, transform, key, integrity, random=source.randbytes, sender_id=1, sender_id_bits=24)
    tek = TrafficEncryptionKey(spi, transform, key, integrity, 3600, 3600)
    return Sa(sa, [esp_line(tek, ipv6=ipv6) for ipv6 in (False, True)])


GROUPS = [
    association(0x2001, TransformSet(Cipher.AES_GCM, 128)),
    association(0x2002, TransformSet(Cipher.AES_GCM, 256)),
    association(0x2003, TransformSet(Cipher.AES_CBC, 256, Integrity.SHA1)),
    association(0x2004, TransformSet(Cipher.AES_CBC, 128, Integrity.SHA512)),
    association(0x2005, TransformSet(Cipher.TRIPLE_DES, 192, Integrity.SHA256)),
]


def captured(frame: bytes, number: int = 0) -> CapturedPacket:
    return CapturedPacket(number, len(frame), frame)


def sealed_rekey() -> tuple[bytes, str]:
    """The frame of a rekey, and the line of its key."""
    data, key = rekey()
    frame = Ether(type=0x0800) / IP(src=str(KS), dst=str(GM)) / UDP(sport=848, dport=848) / Raw(data)
    return bytes(frame), rekey_line(key.spi, key.iv, key.key)


def write(path: Path, frames: list[bytes]) -> None:
    with path.open("wb") as stream:
        writer = PcapngWriter(stream, "test")
        writer.interface("ce1:eth0")
        for number, frame in enumerate(frames):
            writer.packet(0, number, len(frame), frame)


def shown(command: str, *fields: str) -> list[list[str]]:
    """What the command that was printed shows, run by a shell as a user would."""
    words = " ".join(f"-e {field}" for field in fields)
    done = subprocess.run(
        ["sh", "-c", f"{command} -T fields {words}"], capture_output=True, text=True, timeout=60, check=True
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_every_group_transform_and_version_of_ip_is_open_with_the_command_that_is_printed(
    tshark: str, tmp_path: Path
) -> None:
    # A folder with a blank: what is printed is for a shell.
    folder = tmp_path / "my captures"
    folder.mkdir()
    path = folder / "wan.pcapng"
    said: list[str] = []
    push, line = sealed_rekey()
    with Decryption(path, said.append) as decryption:
        decryption.keys.known()
        write(path, [push, *(sa.ping(7, ipv6) for sa in GROUPS for ipv6 in (False, True))])
        tables = decryption.keys.tables
        assert tables.add("rekey", line) and not tables.add("rekey", line) and not tables.add("newer", line)
        assert all(tables.add("esp", line) for sa in GROUPS for line in sa.lines)
        first, second = decryption.finish()
    assert "keys of 5 SAs" in said[-1] and "1 rekey decrypted" in said[-1]
    assert second == first.replace(" tshark ", " wireshark ")
    rows = shown(first, "isakmp.seq.seq", "esp.icv_good", "esp.spi", "icmp.seq", "icmpv6.echo.sequence_number")
    assert int(rows[0][0], 0) == 7, "the rekey, on a port that Wireshark does not know by itself"
    assert [(good in ("1", "True"), int(spi, 16), seq, seq6) for _, good, spi, seq, seq6 in rows[1:]] == [
        (True, spi, *sequences) for spi in range(0x2001, 0x2006) for sequences in (("7", ""), ("", "7"))
    ]
    keys = folder / "wan.pcapng.keys"
    assert keys.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (path, *keys.iterdir())} == {0o600}


def test_a_capture_without_keys_says_so_and_forgets_those_of_the_capture_before(tmp_path: Path) -> None:
    path = tmp_path / "wan.pcapng"
    said: list[str] = []
    for lines in (GROUPS[0].lines, []):
        with Decryption(path, said.append) as decryption:
            decryption.keys.known()
            write(path, [])
            for line in lines:
                decryption.tables.add("esp", line)
            decryption.finish()
    assert "no keys yet" in said[-2]
    assert (tmp_path / "wan.pcapng.keys/esp_sa").read_text() == ""


def test_what_cannot_be_written_is_said_before_anything_is_captured(tmp_path: Path) -> None:
    (tmp_path / "wan.pcapng.keys").write_text("mine")
    with pytest.raises(BadRequest, match=r"wan.pcapng.keys: File exists"), Decryption(tmp_path / "wan.pcapng", print):
        pass
    with pytest.raises(BadRequest, match="No such file"), Decryption(tmp_path / "nowhere/wan.pcapng", print):
        pass
    assert (tmp_path / "wan.pcapng.keys").read_text() == "mine"


def test_keys_of_a_live_view_alone_go_with_it() -> None:
    with Decryption(None, print) as decryption:
        decryption.keys.known()
        folder = decryption.folder
        assert (folder / "esp_sa").stat().st_mode & 0o777 == 0o600 and folder.stat().st_mode & 0o777 == 0o700
        assert decryption.finish() == []
    assert not folder.exists()


def test_tshark_shows_a_rekey_and_what_comes_under_a_key_of_later(
    tshark: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    old, new, push_and_key = GROUPS[0], GROUPS[2], sealed_rekey()
    push, line = push_and_key
    tables = KeyTables()
    said: list[str] = []

    async def main() -> None:
        sink = LiveSink("tshark", tables, tmp_path / "keys", said.append)
        for esp in old.lines:
            tables.add("esp", esp)
        tables.add("rekey", line)
        tables.write(tmp_path / "keys")
        sink.begin(POINT, 65535)
        sink.packets([captured(old.ping(1)), captured(push)])
        assert said == []
        for esp in new.lines:
            tables.add("esp", esp)
        tables.write(tmp_path / "keys")
        sink.packets([captured(old.ping(2))])
        assert said == [], "while nothing comes under the new key"
        sink.packets([captured(new.ping(3)), captured(new.ping(4)), captured(old.ping(5))])
        sink.end(CaptureResult(6, 0))
        assert not sink.gone.is_set()

    asyncio.run(main())
    lines = [line for line in capfd.readouterr().out.splitlines() if line]
    assert [next((f"seq={n}" for n in range(9) if f"seq={n}/" in line), "rekey") for line in lines] == [
        "seq=1", "rekey", "seq=2", "seq=3", "seq=4", "seq=5"
    ]  # fmt: skip
    assert "New Group Mode" in lines[1]
    assert len(said) == 1 and "0x00002003" in said[0]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("DISPLAY", ":0")
    with contextlib.suppress(KeyError):
        monkeypatch.delenv("WAYLAND_DISPLAY")
    yield folder


def program(folder: Path, name: str, script: str = "") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_the_window_stays_as_it_is_and_its_user_is_told_of_keys_that_it_has_not(programs: Path, tmp_path: Path) -> None:
    cat = shutil.which("cat", path="/bin:/usr/bin")
    program(programs, "wireshark", f'echo "$@" > {tmp_path}/words; echo "$WIRESHARK_CONFIG_DIR" >> {tmp_path}/words\n'
            f"{cat} > {tmp_path}/seen")  # fmt: skip
    tables = KeyTables()
    said: list[str] = []
    keys = tmp_path / "keys"

    async def main() -> None:
        for esp in GROUPS[0].lines:
            tables.add("esp", esp)
        tables.write(keys)
        sink = LiveSink(choose_program(None), tables, keys, said.append)
        sink.begin(POINT, 65535)
        for esp in GROUPS[1].lines:
            tables.add("esp", esp)
        sink.packets([captured(GROUPS[0].ping(1)), captured(GROUPS[1].ping(2)), captured(GROUPS[1].ping(3))])
        sink.end(CaptureResult(3, 0))

    asyncio.run(main())
    assert (tmp_path / "words").read_text().split() == ["-k", "-i", "-", str(keys)]
    assert len(rdpcap(str(tmp_path / "seen"))) == 3
    assert [word for word in said if "0x00002002" in word] == said[:1] and "stay encrypted" in said[0]


def test_a_program_that_ends_is_noticed_without_a_packet(programs: Path) -> None:
    program(programs, "tshark", "exit 0")

    async def main() -> None:
        sink = LiveSink("tshark", KeyTables(), None, print)
        sink.begin(POINT, 65535)
        await asyncio.wait_for(sink.gone.wait(), 60)
        sink.packets([captured(GROUPS[0].ping(1))])
        sink.end(CaptureResult(1, 0))

    asyncio.run(main())


def test_who_shows_it_is_whom_the_machine_has(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="no tshark here"):
        choose_program(None)
    program(programs, "wireshark")
    assert choose_program(None) == "wireshark"
    with pytest.raises(LabError, match="tshark is not installed"):
        choose_program("tshark")
    monkeypatch.delenv("DISPLAY")
    with pytest.raises(LabError, match="needs a screen"):
        choose_program("wireshark")
    program(programs, "tshark")
    assert choose_program(None) == "tshark"


def test_the_spi_of_a_frame_is_that_of_esp_alone() -> None:
    sa = GROUPS[0]
    assert {esp_spi(sa.ping(1)), esp_spi(sa.ping(1, ipv6=True))} == {0x2001}
    fragment = bytearray(sa.ping(1))
    fragment[21] = 7  # not the first
    others = [bytes(fragment), sa.ping(1)[:36], sa.ping(1)[:20], sealed_rekey()[0], b""]
    assert [esp_spi(frame) for frame in others] == [None] * 5
