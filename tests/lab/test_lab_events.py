"""What happens to a group in a real lab, on each runtime: who is cut off, what restarts, who is late; and its log."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest
from lab_command import Labctl, finish
from lab_group import Pings, Wire, group_of, logged, until, until_logged

pytestmark = pytest.mark.lab

TOPOLOGY = """\
name: events
clock: {{scale: {scale}}}
nodes: {{pe1: pe, ks1: ks, ks2: ks, ce1: ce, ce2: ce, h1: host, h2: host}}
links:
  - ks1 -- pe1
  - ks2 -- pe1
  - ce1 -- pe1
  - ce2 -- pe1
  - h1 -- ce1
  - h2 -- ce2
groups:
  LAB:
    identity: 1234
    key-servers: [{servers}]
    members: [{{node: ce1, {options}}}, {{node: ce2, fail-close: []}}]
    policy: [permit ip 10.1.0.0/16 10.1.0.0/16]
    transform: esp-aes 256 esp-sha256-hmac
    lifetime: {{tek: {tek}}}
    rekey: {{transport: unicast}}
"""
MEMBERS = ("ce1", "ce2")
BOTH_WAYS = (("h1", "10.1.2.10"), ("h2", "10.1.1.10"))
# What the provider sees of ce1 and of ce2.
TOWARDS = {"ce1": "pe1--ce1", "ce2": "pe1--ce2"}


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    yield machine
    machine("down", "--all")


def start(
    lab: Labctl, *nodes: str, scale: int, tek: int = 3600, servers: str = "ks1", options: str = "fail-close: []"
) -> None:
    text = TOPOLOGY.format(scale=scale, tek=tek, servers=servers, options=options)
    if "ks2" not in servers:
        text = text.replace(" ks2: ks,", "").replace("  - ks2 -- pe1\n", "")
    (lab.folder / "topology.yml").write_text(text)
    lab.up(*nodes)


def address_of(lab: Labctl, node: str) -> str:
    return str(lab.nodes()[node]["addresses"][0])


def kill(lab: Labctl, node: str) -> None:
    """End a node as a power cut does, and wait until the lab knows."""
    if lab.runtime == "docker":
        # In a container the agent is process 1, which nobody inside can kill.
        subprocess.run(["docker", "kill", f"labctl-events-{node}"], check=True, capture_output=True)
    else:
        lab("exec", node, "--", "sh", "-c", "kill -KILL $PPID", status=None)
    until(lambda: lab.nodes()[node]["state"] == "failed", f"{node} is gone")


def talk(lab: Labctl) -> None:
    """Each host reaches the other."""
    for host, target in BOTH_WAYS:
        lab("exec", host, "--", "ping", "-q", "-c", "3", "-i", "0.1", "-W", "2", target)


class Cut:
    """Nothing reaches a node from the provider; what its hosts send and get is not touched."""

    def __init__(self, lab: Labctl, node: str) -> None:
        self._lab = lab
        self._route = ("blackhole", f"{address_of(lab, node)}/32")
        lab("exec", "pe1", "--", "ip", "route", "add", *self._route)

    def heal(self) -> None:
        self._lab("exec", "pe1", "--", "ip", "route", "del", *self._route)


def test_a_member_that_misses_one_rekey_is_well_again_with_the_next(lab: Labctl) -> None:
    start(lab, scale=3)
    first, second = (address_of(lab, name) for name in MEMBERS)
    pings = Pings(lab, BOTH_WAYS)
    wires = [Wire(lab, point) for point in TOWARDS.values()]
    cut = Cut(lab, "ce2")
    lab("gdoi", "rekey", "ks1")
    until(lambda: group_of(lab, "ks1")["missed"] == {first: 0, second: 1}, "every copy has gone")
    cut.heal()
    lab("gdoi", "rekey", "ks1")
    until(lambda: group_of(lab, "ce2")["last_sequence"] == 2, "the next rekey arrives")
    until(lambda: group_of(lab, "ks1")["missed"] == {first: 0, second: 0}, "and is acknowledged")
    assert [group_of(lab, name)["rekeys_received"] for name in MEMBERS] == [2, 1]
    assert pings.lost() == {pair: [] for pair in BOTH_WAYS}
    # It has all that the others have: with the old keys gone, they still talk.
    lab("gdoi", "rekey", "ks1", "--replace-now")
    until(lambda: all(len(group_of(lab, name)["teks"]) == 1 for name in MEMBERS), "the old keys are deleted")
    talk(lab)
    assert [wire.kinds()["clear"] for wire in wires] == [0, 0]
    assert [group_of(lab, name)["registrations"] for name in MEMBERS] == [1, 1]
    assert "GM_RE_REGISTER" not in logged(lab, "ce2") and "GM_DELETE" not in logged(lab, "ks1")


def test_a_member_without_its_key_server_for_a_lifetime_goes_silent_and_shows_nothing(lab: Labctl) -> None:
    start(lab, scale=60, tek=600)
    wires = {name: Wire(lab, point) for name, point in TOWARDS.items()}
    cut = Cut(lab, "ce2")
    pinging = lab.start("exec", "h2", "--", "ping", "-q", "-n", "-i", "0.02", "10.1.1.10")
    until(lambda: group_of(lab, "ce2")["state"] == "registering", "its last key ends")
    until(lambda: group_of(lab, "ce2")["teks"] == [], "and is deleted")
    until_logged(lab, "ce2", "GM_REKEY_NOT_RECD", "GM_RE_REGISTER", "GM_REGSTER", "IKMP_MODE_FAILURE")
    assert group_of(lab, "ce2")["teks"] == [] and group_of(lab, "ce1")["registrations"] == 1
    # What a host sends meanwhile goes nowhere.
    lab("exec", "h2", "--", "ping", "-q", "-n", "-c", "50", "-i", "0.02", "-W", "1", "10.1.1.10", status=1)
    finish(pinging, signal.SIGINT)
    cut.heal()
    until(lambda: group_of(lab, "ce2")["state"] == "registered", "it comes back")
    until(lambda: logged(lab, "ce2").count("GM_REGS_COMPL") == 2, "and says so")
    talk(lab)
    found = {name: wire.kinds() for name, wire in wires.items()}
    assert all(kinds["clear"] == 0 and kinds["esp"] > 0 for kinds in found.values())


def test_no_packet_is_lost_while_the_key_server_restarts(lab: Labctl) -> None:
    start(lab, scale=1)
    pings = Pings(lab, BOTH_WAYS)
    kill(lab, "ks1")
    assert "1 node started" in lab.up().stdout
    assert group_of(lab, "ks1")["members"] == [] and group_of(lab, "ce1")["registrations"] == 1
    assert pings.lost() == {pair: [] for pair in BOTH_WAYS}, "keys outlive the key server that made them"


def test_after_a_restart_of_the_key_server_members_register_by_the_rules(lab: Labctl) -> None:
    start(lab, scale=60, tek=900, options="fail-close: [], fail-close-revert: true")
    wires = [Wire(lab, point) for point in TOWARDS.values()]
    pinging = lab.start("exec", "h1", "--", "ping", "-q", "-n", "-i", "0.02", "10.1.2.10")
    old = group_of(lab, "ce1")["teks"][0]["spi"]
    kill(lab, "ks1")
    assert "1 node started" in lab.up().stdout
    until(lambda: all(group_of(lab, name)["registrations"] >= 2 for name in MEMBERS), "they come in their window")
    assert sorted(group_of(lab, "ks1")["members"]) == sorted(address_of(lab, name) for name in MEMBERS)
    for name in MEMBERS:
        until_logged(lab, name, "GM_REKEY_NOT_RECD", "GM_RE_REGISTER", "SA_TEK_UPDATED", "GM_REGS_COMPL")
    until(lambda: logged(lab, "ks1").count("KS_FIRST_GM") == 2, "the new one has its first member")
    until(lambda: old not in {tek["spi"] for name in MEMBERS for tek in group_of(lab, name)["teks"]}, "old keys end")
    talk(lab)
    before = [group_of(lab, name)["rekeys_received"] for name in MEMBERS]
    lab("gdoi", "rekey", "ks1")
    until(
        lambda: all(group_of(lab, name)["rekeys_received"] > had for name, had in zip(MEMBERS, before, strict=True)),
        "rekeys of the new one arrive",
    )
    talk(lab)
    finish(pinging, signal.SIGINT)
    assert [wire.kinds()["clear"] for wire in wires] == [0, 0]


def test_members_go_on_to_the_next_key_server_when_the_first_is_gone(lab: Labctl) -> None:
    start(lab, scale=120, servers="ks1, ks2", tek=600)
    first, second = address_of(lab, "ks1"), address_of(lab, "ks2")
    assert {group_of(lab, name)["registered_with"] for name in MEMBERS} == {first}
    wires = [Wire(lab, point) for point in TOWARDS.values()]
    Cut(lab, "ks1")
    until(lambda: {group_of(lab, name)["registered_with"] for name in MEMBERS} == {second}, "all are at the second")
    for name in MEMBERS:
        until_logged(lab, name, "GM_REKEY_NOT_RECD", "GM_RE_REGISTER", "GM_CONN_NEXT_SER", "GM_REGS_COMPL")
    until_logged(lab, "ks2", "KS_FIRST_GM")
    assert group_of(lab, "ks1")["rekeys_sent"] >= 1
    talk(lab)
    lab("gdoi", "rekey", "ks2")
    until(lambda: all(group_of(lab, name)["rekeys_received"] >= 1 for name in MEMBERS), "the second rekeys")
    talk(lab)
    assert [wire.kinds()["clear"] for wire in wires] == [0, 0]


def test_who_comes_late_gets_the_same_key_with_what_is_left_of_its_life(lab: Labctl) -> None:
    start(lab, "pe1", "ks1", "ce1", "h1", scale=60)
    until(lambda: group_of(lab, "ce1")["teks"][0]["left"] < 3500, "some of its life is over")
    lab.up()
    late, early = group_of(lab, "ce2")["teks"], group_of(lab, "ce1")["teks"]
    assert [tek["spi"] for tek in late] == [tek["spi"] for tek in early]
    assert late[0]["left"] < 3500, "the remaining life, not the whole"
    assert group_of(lab, "ce2")["registrations"] == 1 and group_of(lab, "ks1")["rekeys_sent"] == 0
    talk(lab)


FLOOD = """\
import random, socket, sys, time
group, target, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
esp = socket.socket(socket.AF_INET, socket.SOCK_RAW, 50)
end, sent = time.monotonic() + seconds, 0
while time.monotonic() < end:
    spi = group << 24 | random.getrandbits(24)
    esp.sendto(spi.to_bytes(4, 'big') + sent.to_bytes(4, 'big') + random.randbytes(64), (target, 0))
    sent += 1
    time.sleep(0.001)
print(sent)
"""


def test_a_member_that_meets_unknown_keys_asks_the_next_key_server_and_not_too_often(lab: Labctl) -> None:
    # 60 seconds of the lab's clock between two recoveries; members stand at different key servers, with other keys.
    start(lab, scale=20, servers="ks1, ks2", options="recovery-check: 60")
    first, second = address_of(lab, "ks1"), address_of(lab, "ks2")
    lab("exec", "ce2", "--", "ip", "route", "add", "unreachable", f"{first}/32")
    lab("gdoi", "reregister", "ce2")
    until(lambda: group_of(lab, "ce2")["registered_with"] == second, "ce2 goes on to the second key server")
    until_logged(lab, "ce2", "GM_RE_REGISTER", "GM_CONN_NEXT_SER", "GM_REGS_COMPL")
    assert group_of(lab, "ce1")["registered_with"] == first
    lab("exec", "h2", "--", "ping", "-q", "-c", "2", "-i", "0.2", "-W", "1", "10.1.1.10", status=None)
    until(lambda: group_of(lab, "ce1")["registered_with"] == second, "ce1 has heard a key that it does not know")
    until_logged(lab, "ce1", "RECVD_PKT_INV_SPI", "GM_RECOVERY_REGISTRATION", "GM_REGSTER", "GM_REGS_COMPL")
    talk(lab)
    # Whoever sends what looks like keys of other groups has nobody register.
    group = int(group_of(lab, "ce1")["teks"][0]["spi"], 16) >> 24
    time_left = remaining(lab)
    before = group_of(lab, "ce1")["attempts"]
    assert flood(lab, group ^ 1, 2) > 300
    assert group_of(lab, "ce1")["attempts"] == before
    # And of this group: again and again, and never sooner than the interval says.
    assert flood(lab, group, 8) > 1000
    recoveries = logged(lab, "ce1").count("GM_RECOVERY_REGISTRATION")
    passed = time_left - remaining(lab)
    assert 2 <= recoveries <= 1 + passed / 60
    until(lambda: group_of(lab, "ce1")["exchange"] == "registered", "it is left alone")


def remaining(lab: Labctl) -> float:
    """What is left of the oldest key of ks1: the lab's own clock, backwards."""
    return float(group_of(lab, "ks1")["kek_left"])


def flood(lab: Labctl, group: int, seconds: float) -> int:
    return int(lab("exec", "pe1", "--", "python3", "-c", FLOOD, str(group), "10.1.1.10", str(seconds)).stdout)
