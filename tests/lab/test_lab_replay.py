"""Packets that somebody recorded and sends again, in a real lab: within the window and outside of it, across a rekey,
and after the key server was started anew."""

from __future__ import annotations

import re
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_command import Labctl, finish
from lab_group import group_of, until

pytestmark = pytest.mark.lab

TOPOLOGY = (Path(__file__).parents[2] / "topologies" / "tbar.yml").read_text()
# So wide that nothing which a slow machine does at once is late.
WIDE = TOPOLOGY.replace("{window: 5}", "{window: 100}")
NARROW_SECONDS = 5

INJECT = """
import socket, sys
out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
out.sendto(bytes.fromhex(sys.argv[1]), ("10.1.2.10", 0))
"""


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    """The shipped lab, with a window of 100 seconds."""
    (machine.folder / "topology.yml").write_text(WIDE)
    machine.up()
    yield machine
    machine("down", "--all")


def record(lab: Labctl) -> bytes:
    """A packet of h1 to h2, as it passes pe2."""
    from scapy.layers.inet import IP
    from scapy.utils import PcapNgReader

    file = lab.folder / "recorded.pcapng"
    file.unlink(missing_ok=True)
    capture = lab.start("capture", "pe2--ce2", "-w", str(file))
    until(lambda: file.exists() and file.stat().st_size > 0, "the capture listens")
    lab("exec", "h1", "--", "ping", "-q", "-c", "2", "-i", "0.2", "-W", "5", "h2")

    def found() -> list[bytes]:
        try:
            with PcapNgReader(str(file)) as reader:
                frames = list(reader)
        except (EOFError, struct.error):  # half a frame so far
            return []
        return [bytes(frame[IP]) for frame in frames if IP in frame and frame[IP].src == "10.1.1.10"]

    until(lambda: bool(found()), "the packet is recorded")
    finish(capture, signal.SIGINT)
    return found()[0]


def send_again(lab: Labctl, packet: bytes) -> None:
    lab("exec", "pe2", "--", "python3", "-c", INJECT, packet.hex())


def spi_of(packet: bytes) -> str:
    return f"0x{packet[20:24].hex()}"


def counted(lab: Labctl, packet: bytes) -> tuple[int, int]:
    """What ce2 has decrypted under the packet's key, and refused for its time."""
    crypto: dict[str, Any] = lab.json("counters", "ce2")["crypto"]["eth0"]
    key = crypto["associations"].get(spi_of(packet), {})
    return key.get("decrypted", 0), crypto["drops"].get("replay-check-failed", 0)


def until_old(lab: Labctl) -> None:
    """Until what was recorded before is outside of the narrow window, by ce2's clock."""
    begin = group_of(lab, "ce2")["pseudotime"]
    until(lambda: group_of(lab, "ce2")["pseudotime"] > begin + NARROW_SECONDS + 1, "the packet is old")


def test_what_was_recorded_is_worth_nothing_once_it_is_old(lab: Labctl) -> None:
    fresh = record(lab)
    decrypted, refused = counted(lab, fresh)
    send_again(lab, fresh)
    until(lambda: counted(lab, fresh) == (decrypted + 1, refused), "time stamps bound the age, they find no copies")

    # A smaller window counts for the keys that come with it, and packets of the new key are in it.
    (lab.folder / "topology.yml").write_text(TOPOLOGY)
    lab("up", "--apply")
    lab("gdoi", "rekey", "ks1", "--replace-now")
    until(lambda: windows(lab) == {"Time/5 sec"}, "members have keys with the new window alone")
    old = record(lab)
    until_old(lab)
    decrypted, refused = counted(lab, old)
    send_again(lab, old)
    until(lambda: counted(lab, old) == (decrypted, refused + 1), "ce2 refuses it")
    until(lambda: "TIMEBASED_REPLAY_FAILED" in lab("logs", "ce2").stdout, "ce2 says why")
    said = lab("logs", "ce2").stdout
    assert re.search(r"%CRYPTO-4-PKT_REPLAY_ERR: .*replay check failed", said)
    mine, theirs = re.search(
        r"group GETVPN_LAB from source ip-address 10\.1\.1\.10\. my_pseudotime is ([\d.]+) secs, "
        r"peer_pseudotime is ([\d.]+) secs, replay_window is 5 \(second\)",
        said,
    ).groups()  # type: ignore[union-attr]
    assert float(mine) - float(theirs) > NARROW_SECONDS

    # Across a rekey: its key still opens, and its time is no better.
    lab("gdoi", "rekey", "ks1")
    until(lambda: len(group_of(lab, "ce2")["teks"]) > 1, "ce2 has one key more")
    decrypted, refused = counted(lab, old)
    send_again(lab, old)
    until(lambda: counted(lab, old)[1] == refused + 1, "ce2 refuses it under the new keys as well")
    assert counted(lab, old)[0] == decrypted

    # A key server that was started anew has a clock anew: members hear each other, and the old packet is still old.
    restart(lab, "ks1")
    before = epochs(lab)
    for member in ("ce1", "ce2"):
        lab("gdoi", "reregister", member)
    until(lambda: len(epochs(lab)) == 1 and not epochs(lab) & before, "both go by the new clock")
    assert "0% packet loss" in lab("exec", "h1", "--", "ping", "-q", "-c", "3", "-i", "0.2", "-W", "5", "h2").stdout
    drops = sum(lab.json("counters", "ce2")["crypto"]["eth0"]["drops"].values())
    decrypted = counted(lab, old)[0]
    send_again(lab, old)
    until(
        lambda: sum(lab.json("counters", "ce2")["crypto"]["eth0"]["drops"].values()) > drops,
        "whether its key is still there or not, it is dropped",
    )
    assert counted(lab, old)[0] <= decrypted


def restart(lab: Labctl, node: str) -> None:
    """As a power cut does it; `up` starts it again."""
    if lab.runtime == "docker":
        subprocess.run(["docker", "kill", f"labctl-tbar-{node}"], check=True, capture_output=True)
    else:
        lab("exec", node, "--", "sh", "-c", "kill -KILL $PPID", status=None)
    until(lambda: lab.nodes()[node]["state"] == "failed", f"{node} is gone")
    lab("up")


def windows(lab: Labctl) -> set[str]:
    return {tek["replay"] for member in ("ce1", "ce2") for tek in group_of(lab, member)["teks"]}


def epochs(lab: Labctl) -> set[str]:
    """The clocks that members go by."""
    return {group_of(lab, member)["time_sync"]["epoch"] for member in ("ce1", "ce2")}
