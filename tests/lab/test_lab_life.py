"""A lab's life as a user sees it, with real packets: up, look inside, change, down, nothing left. On each runtime."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from lab_command import TIMEOUT, Labctl, finish
from lab_group import logged, until
from lab_traces import Machine, docker_objects, namespaces_of, processes
from warm_labctl import Running

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"
# A name of its own: a Docker engine is one place for the labs of every test.
TEXT = (TOPOLOGIES / "two-sites.yml").read_text().replace("name: two-sites", "name: life")


@pytest.fixture(scope="module")
def lab(machine: Labctl) -> Iterator[Labctl]:
    """two-sites, up and registered, from a file in the folder; shared by the tests that only look."""
    (machine.folder / "topology.yml").write_text(TEXT)
    machine.up("--keylog")
    yield machine
    machine("down")


def test_every_node_is_ready_and_every_member_registered(lab: Labctl) -> None:
    nodes = lab.nodes()
    assert {name: node["state"] for name, node in nodes.items()} == dict.fromkeys(
        ("ks1", "pe1", "ce1", "ce2", "h1", "h2"), "ready"
    )
    for name in ("ce1", "ce2"):
        (group,) = nodes[name]["groups"]
        assert (group["name"], group["role"], group["state"]) == ("GETVPN_LAB", "gm", "registered")
        assert group["key_server"] == nodes["ks1"]["addresses"][0]


def test_up_again_has_nothing_to_do(lab: Labctl) -> None:
    before = {name: node["pid"] for name, node in lab.nodes().items()}
    assert "nothing to do" in lab.up().stdout
    assert {name: node["pid"] for name, node in lab.nodes().items()} == before


def test_exec_runs_and_exits_as_the_command_did(lab: Labctl) -> None:
    assert "1 received" in lab("exec", "h1", "--", "ping", "-c", "1", "-W", "3", "h2").stdout
    assert lab("exec", "h1", "sh", "-c", "echo out; echo err >&2; exit 7", status=7).stderr == "err\n"
    assert lab("exec", "ce1", "hostname").stdout == "ce1\n"
    lab("exec", "h1", "--", "sh", "-c", "kill -TERM $$", status=128 + signal.SIGTERM)
    assert "command not found" in lab("exec", "h1", "--", "no-such-command", status=127).stderr


def test_exec_passes_standard_input_whole(lab: Labctl) -> None:
    text = "".join(f"line {number}\n" for number in range(20_000))
    assert lab("exec", "h1", "--", "cat", stdin=text).stdout == text


def test_exec_on_several_nodes_tells_them_apart(lab: Labctl) -> None:
    done = lab("exec", "h1", "ce1", "--", "hostname")
    assert sorted(done.stdout.splitlines()) == ["ce1 | ce1", "h1  | h1"]
    lab("exec", "h1", "ce1", "--", "test", "-e", "/sys/class/net/eth1", status=1)


def test_ctrl_c_reaches_the_command(lab: Labctl) -> None:
    command = "trap 'echo caught; exit 9' INT; echo on; while :; do sleep 0.05; done"
    process = lab.start("exec", "h1", "--", "sh", "-c", command)
    assert process.stdout is not None and process.stdout.readline() == "on\n"
    status, out, _ = finish(process, signal.SIGINT)
    assert (status, out) == (9, "caught\n")


def test_a_shell_is_a_terminal_of_the_node(lab: Labctl) -> None:
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (33, 101))
    before = termios.tcgetattr(follower)
    process = subprocess.Popen(
        [sys.executable, "-m", "labctl", "shell", "ce1"],
        cwd=lab.folder,
        env={**lab.environment(), "TERM": "xterm"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    try:
        os.write(leader, b"stty size; hostname; tty; exit 5\n")
        seen = b""
        while process.poll() is None or select.select([leader], [], [], 0)[0]:
            if select.select([leader], [], [], 1)[0]:
                seen += os.read(leader, 65536)
        assert process.wait(TIMEOUT) == 5
        assert b"33 101" in seen
        assert b"\nce1" in seen.replace(b"\r", b"")
        assert b"/dev/pts/" in seen
        assert termios.tcgetattr(follower) == before, "the terminal is as it was"
    finally:
        os.close(leader)
        os.close(follower)


def test_a_shell_without_a_terminal_says_what_to_do(lab: Labctl) -> None:
    assert "labctl exec ce1 -- COMMAND" in lab("shell", "ce1", status=2).stderr


def test_logs_are_in_the_words_of_ios(lab: Labctl) -> None:
    shown = lab("logs", "ce1").stdout
    assert "%CRYPTO-5-GM_REGSTER" in shown or "%GDOI-5-GM_REGS_COMPL" in shown
    items = [json.loads(line) for line in lab("logs", "--json").stdout.splitlines()]
    assert {"ks1", "ce1", "ce2"} <= {item["node"] for item in items}
    assert len(lab("logs", "-n", "2").stdout.splitlines()) == 2


def test_logs_follow_until_ctrl_c(lab: Labctl) -> None:
    process = lab.start("logs", "-f")
    assert process.stdout is not None and process.stdout.readline()
    status, _, err = finish(process, signal.SIGINT)
    assert (status, err) == (0, "")


def test_events_are_ndjson_and_hold_no_key(lab: Labctl) -> None:
    events = [json.loads(line) for line in lab("events", "--json").stdout.splitlines()]
    states = [event["state"] for event in events if event["type"] == "state" and event["node"] == "ce1"]
    assert states[-1] == "ready"
    assert "booting" in states
    assert all(event["type"] != "keylog" for event in events), "though this lab keeps a key log"


def test_keys_are_kept_for_who_asked_and_for_nobody_else(lab: Labctl) -> None:
    folder = lab.state / "labs/life/keylog"
    for table in ("ikev1_decryption_table", "esp_sa"):
        assert (folder / table).read_text()
        assert (folder / table).stat().st_mode & 0o777 == 0o600


def capture(lab: Labctl, *words: str) -> list[dict[str, Any]]:
    """Capture with labctl while h1 pings h2; what tshark reads."""
    path = lab.folder / "capture.pcapng"
    path.unlink(missing_ok=True)
    process = lab.start("capture", *words, "-w", str(path))
    wait_for_header(path, process)
    lab("exec", "h1", "--", "ping", "-c", "3", "-i", "0.2", "h2")
    status, _, err = finish(process, signal.SIGINT)
    assert status == 0, err
    assert "captured" in err
    done = subprocess.run(["tshark", "-r", str(path), "-T", "json"], capture_output=True, text=True, check=True)
    return [packet["_source"]["layers"] for packet in json.loads(done.stdout)]


def wait_for_header(path: Path, process: Running) -> None:
    """Until the capture is on: the header is written then."""
    while not (path.exists() and path.stat().st_size):
        try:
            _, err = process.communicate(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"capture ended: {err}")


def test_the_provider_sees_esp_between_the_hosts_own_addresses(lab: Labctl) -> None:
    nodes = lab.nodes()
    ends = {nodes["h1"]["addresses"][0], nodes["h2"]["addresses"][0]}
    seen = capture(lab, "ce1--pe1")
    assert not any("_ws.malformed" in item for item in seen), "nor does tshark find fault with anything else"
    packets = [item for item in seen if "ip" in item and item["ip"]["ip.src"] in ends]
    assert len(packets) >= 6
    assert all("esp" in item and "icmp" not in item for item in packets)
    assert {item["ip"]["ip.dst"] for item in packets} == ends


def test_the_length_of_the_path_shows_through_the_encryption(lab: Labctl) -> None:
    nodes = lab.nodes()
    script = "for ttl in 1 2 3; do ping -n -c 1 -W 2 -t $ttl h2; done"
    first, second, third = lab("exec", "h1", "--", "sh", "-c", script, status=0).stdout.split("PING ")[1:]
    gateway = next(address for address in nodes["ce1"]["addresses"] if address.startswith("10.1.1."))
    assert f"From {gateway} icmp_seq=1 Time to live exceeded" in first
    # Within the provider it ends as ESP: what pe1 says of it names no echo of the host's.
    assert "0 received" in second and "exceeded" not in second
    # Inside ESP no hop of the provider counts, so the far member takes one, and not the last.
    assert "1 received" in third


def test_the_key_log_lets_tshark_see_inside(lab: Labctl) -> None:
    capture(lab, "ce1--pe1")
    done = subprocess.run(
        ["tshark", "-o", "esp.enable_encryption_decode:TRUE", "-r", str(lab.folder / "capture.pcapng"), "-Y", "icmp"],
        env={**os.environ, "WIRESHARK_CONFIG_DIR": str(lab.state / "labs/life/keylog")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("Echo (ping) request") >= 3


def test_a_capture_brings_the_keys_that_came_while_it_ran(lab: Labctl) -> None:
    path = lab.folder / "opened.pcapng"
    process = lab.start("capture", "ce1--pe1", "--decrypt", "-w", str(path))
    wait_for_header(path, process)
    spis = []
    for number in range(2):
        spis.append({name: sending_spi(lab, name) for name in ("ce1", "ce2")})
        lab("exec", "h1", "--", "ping", "-c", "1", "-W", "3", "h2")
        if number == 0:
            lab("gdoi", "rekey", "ks1", "--replace-now")
            until(lambda: all(sending_spi(lab, name) != spis[0][name] for name in spis[0]), "a rekey")
    # A registration under phase 1 that was there before: nothing of it in this capture.
    done = logged(lab, "ce1").count("GM_REGS_COMPL")
    lab("gdoi", "reregister", "ce1")
    until(lambda: logged(lab, "ce1").count("GM_REGS_COMPL") > done, "a registration")
    status, out, err = finish(process, signal.SIGINT)
    assert status == 0 and " decrypted" in err, err
    fields = "-e esp.spi -e icmp.type -e isakmp.seq.seq -e isakmp.exchangetype -e isakmp.typepayload"
    shown = subprocess.run(
        ["sh", "-c", f"{out.splitlines()[0]} -T fields {fields}"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split("\t") for line in shown.stdout.splitlines()]
    opened = [(spi, kind) for spi, kind, *_ in rows if spi]
    assert opened == [(spi, kind) for sent in spis for spi, kind in ((sent["ce1"], "8"), (sent["ce2"], "0"))]
    assert [int(row[2], 0) for row in rows if row[3] == "33"][:1] == [1], "the rekey is read as well"
    pull = [row[4].split(",") for row in rows if row[3] == "32"]
    assert [payloads[0] for payloads in pull] == ["8"] * 4
    assert [len(payloads) > 1 for payloads in pull] == [True, True, False, True]


def sending_spi(lab: Labctl, member: str) -> str:
    """The SPI that a member sends under."""
    (group,) = lab.json("gdoi", "show", member)
    (line,) = (line for line in group["policy"] if " under " in line)
    return str(line.split(" under ")[1])


def test_inside_the_member_it_is_clear_text(lab: Labctl) -> None:
    packets = capture(lab, "ce1:eth0", "--side", "inside")
    assert sum("icmp" in item for item in packets) >= 6
    assert not any("esp" in item for item in packets)


def test_a_capture_goes_down_a_pipe_and_ends_with_its_reader(lab: Labctl) -> None:
    process = lab.start("capture", "pe1:eth1", "-w", "-")
    tshark = subprocess.Popen(
        ["tshark", "-l", "-r", "-", "-c", "2", "-T", "fields", "-e", "ip.proto"],
        stdin=process.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    pinging = lab.start("exec", "h1", "--", "ping", "-i", "0.1", "-c", "100", "h2")
    try:
        out, _ = tshark.communicate(timeout=TIMEOUT)
        assert len(out.split()) == 2
        assert process.wait(TIMEOUT) == 141
    finally:
        finish(pinging, signal.SIGINT)


def test_a_capture_in_lines_is_for_eyes(lab: Labctl) -> None:
    process = lab.start("capture", "ce1--pe1", "-c", "20")  # more than the few that routing sends meanwhile
    assert process.stderr is not None and "capturing on ce1:eth0" in process.stderr.readline()
    lab("exec", "h1", "--", "ping", "-c", "10", "-i", "0.05", "h2")
    out, err = process.communicate(timeout=TIMEOUT)
    assert len(out.splitlines()) == 20
    assert out.count("ESP spi 0x") >= 10
    assert err == "20 packets captured\n"


def test_a_wrong_capture_point_is_answered_with_the_right_one(lab: Labctl) -> None:
    assert "it has eth0, eth1" in lab("capture", "ce1:eth7", status=2).stderr.lower()
    assert "did you mean 'ce1:eth0--pe1:eth1'?" in lab("capture", "ce1:eth0--pe1:eth11", status=2).stderr.lower()


def test_test_proves_the_lab(lab: Labctl) -> None:
    report = lab.folder / "junit.xml"
    shown = lab("test", "--junit", str(report))
    assert "h1 <-> h2" in shown.stdout
    suite = ElementTree.parse(report).getroot()
    assert len(list(suite.iter("testcase"))) == 5
    assert not list(suite.iter("failure"))


def test_a_check_that_fails_has_an_exit_status_of_its_own(lab: Labctl) -> None:
    lab("exec", "pe1", "--", "sh", "-c", "ip route add blackhole 10.1.2.0/25")
    try:
        shown = lab("test", "reachable: h1 <-> h2", status=3)
        assert "h1" in shown.stdout
    finally:
        lab("exec", "pe1", "--", "sh", "-c", "ip route del blackhole 10.1.2.0/25")
    lab("test", "reachable: h1 <-> h2")


def test_a_node_that_died_is_shown_and_started_again_alone(lab: Labctl) -> None:
    before = {name: node["pid"] for name, node in lab.nodes().items()}
    if lab.runtime == "docker":
        # In a container the agent is process 1, which nobody inside can kill.
        name = lab.json("ps")["labs"][0]["name"]
        subprocess.run(["docker", "kill", f"labctl-{name}-h2"], check=True, capture_output=True)
    else:
        lab("exec", "h2", "--", "sh", "-c", "kill -KILL $PPID", status=None)
    events = lab.start("events", "-f")
    assert events.stdout is not None
    while "h2" not in (line := events.stdout.readline()) or "failed" not in line:
        assert line, "events ended"
    finish(events, signal.SIGINT)
    assert lab.nodes()["h2"]["state"] == "failed"
    assert "1 node started" in lab.up().stdout
    after = {name: node["pid"] for name, node in lab.nodes().items()}
    assert {name for name in after if after[name] != before[name]} == {"h2"}
    assert "1 received" in lab("exec", "h1", "--", "ping", "-c", "1", "-W", "3", "h2").stdout


def test_a_changed_topology_is_said_then_applied_node_by_node(lab: Labctl) -> None:
    before = {name: node["pid"] for name, node in lab.nodes().items()}
    changed = TEXT.replace("h2: host}", "h2: host, h3: host}").replace(
        "  - h2 -- ce2\n", "  - h2 -- ce2\n  - h3 -- ce2\n"
    )
    (lab.folder / "topology.yml").write_text(changed)
    try:
        refused = lab.up(status=7)
        assert "+ node h3" in refused.stderr
        assert "~ node ce2 (replaced)" in refused.stderr
        assert "--apply" in refused.stderr
        assert {name: node["pid"] for name, node in lab.nodes().items()} == before
        lab.up("--apply")
        after = {name: node["pid"] for name, node in lab.nodes().items()}
        assert after["h3"]
        assert after["ce2"] != before["ce2"]
        assert after["h1"] == before["h1"]
        assert "1 received" in lab("exec", "h3", "--", "ping", "-c", "1", "-W", "3", "h1").stdout
    finally:
        (lab.folder / "topology.yml").write_text(TEXT)
        lab.up("--apply")
    assert "h3" not in lab.nodes()
    assert "1 received" in lab("exec", "h1", "--", "ping", "-c", "1", "-W", "3", "h2").stdout


def test_some_nodes_then_the_rest_then_down_twice(runtime_name: str, machine: Labctl, tmp_path: Path) -> None:
    own = Labctl(tmp_path / "state", tmp_path, runtime_name, own_process=True)
    before = Machine.before(own.state)
    (tmp_path / "net.yml").write_text(TEXT.replace("name: life", "name: part"))
    own.up("pe1", "h1", "ce1", "ks1")
    assert own.nodes()["h2"]["state"] == "down"
    own.up()
    assert own.nodes()["h2"]["state"] == "ready"
    if runtime_name == "docker":
        assert len(docker_objects(own.state)) == 7, "a container a node, and the fabric's"
    had = namespaces_of(processes(own.state))
    assert "is down" in own("down").stdout
    assert before.traces(had) == []
    assert "nothing to take down" in own("down").stdout
    assert "nothing to take down" in own("down", "part").stdout
    if runtime_name == "docker":
        assert docker_objects(own.state) == []
    assert before.traces(had) == []
