"""The agent on its connection: boot, states, errors, several connections, the entrance of a container."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from node_requests import HOST, Node, agent, connected, run
from process_signals import signals_of

from labctl.configuration import (
    GroupIdentity,
    GroupMembership,
    Interface,
    NodeConfiguration,
    NodeKind,
    to_json,
)
from labctl.door import DoorError
from labctl.node.agent import Agent

HOST_ADDRESS = IPv4Address("127.0.0.1")


async def refused(node: Node, op: str, **args: object) -> DoorError:
    with pytest.raises(DoorError) as caught:
        await node.call(op, **args)
    return caught.value


def test_a_node_without_a_group_is_ready_once_it_has_booted() -> None:
    async def main() -> None:
        async with agent() as node:
            before = await node.call("status")
            assert (before["state"], before["reason"]) == ("booting", "it has no configuration yet")
            await node.boot()
            event = await node.events.until(type="state", state="ready")
            assert (event["reason"], event["groups"]) == ("", [])
            status = await node.call("status")
            assert (status["name"], status["kind"], status["state"]) == ("h1", "host", "ready")

    run(main())


def test_booting_again_with_the_same_configuration_changes_nothing_and_with_another_is_refused() -> None:
    async def main() -> None:
        async with agent() as node:
            await node.boot()
            await node.boot()
            error = await refused(node, "boot", configuration=to_json(NodeConfiguration("other", NodeKind.PE)))
            assert error.code == "already-booted"
            assert "h1" in error.message
            assert (await node.call("status"))["name"] == "h1"

    run(main())


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"name": 7}, "$.name"),
        ({"kind": "toaster"}, "$.kind"),
        ({"interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": "big"}]}, "$.interfaces[0].mtu"),
        ({"nonsense": 1}, "$.nonsense"),
        ({"clock_scale": 0.0}, "$.clock_scale"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_with_its_place(change: dict[str, object], place: str) -> None:
    async def main() -> None:
        async with agent() as node:
            error = await refused(node, "boot", configuration={**to_json(HOST), **change})
            assert error.code == "bad-configuration"
            assert place in error.message
            await node.boot()  # the agent is none the worse for it

    run(main())


def test_an_operation_that_does_not_exist_is_refused_with_those_that_do() -> None:
    async def main() -> None:
        async with agent() as node:
            error = await refused(node, "fly")
            assert error.code == "unknown-op"
            for op in ("boot", "status", "exec", "capture", "probe", "respond", "counters", "shutdown"):
                assert op in error.hint

    run(main())


@pytest.mark.parametrize(
    ("op", "args", "name"),
    [
        ("exec", {}, "argv"),
        ("exec", {"argv": []}, "argv"),
        ("exec", {"argv": "ls"}, "argv"),
        ("exec", {"argv": ["a\0b"]}, "argv"),
        ("exec", {"argv": ["ls"], "tty": "yes"}, "tty"),
        ("exec", {"argv": ["ls"], "tty": True, "rows": 0}, "rows"),
        ("exec", {"argv": ["ls"], "environment": {"A=B": "c"}}, "environment"),
        ("exec", {"argv": ["ls"], "cwd": "/"}, "cwd"),
        ("capture", {}, "interface"),
        ("capture", {"interface": "lo", "side": "left"}, "side"),
        ("capture", {"interface": "lo", "snaplen": 0}, "snaplen"),
        ("probe", {}, "destination"),
        ("probe", {"destination": "h2"}, "destination"),
        ("probe", {"destination": "127.0.0.1", "protocol": "sctp"}, "protocol"),
        ("probe", {"destination": "127.0.0.1", "count": 10**9}, "count"),
        ("probe", {"destination": "127.0.0.1", "count": 10**4, "interval": 60}, "count"),
        ("probe", {"destination": "127.0.0.1", "interval": -1}, "interval"),
        ("probe", {"destination": "127.0.0.1", "timeout": 1e9}, "timeout"),
        ("probe", {"destination": "127.0.0.1", "size": 4}, "size"),
        ("probe", {"destination": "127.0.0.1", "dscp": 64}, "dscp"),
        ("probe", {"destination": "127.0.0.1", "marker_b64": "!"}, "marker_b64"),
        ("respond", {"protocol": "icmp"}, "protocol"),
        ("respond", {"protocol": "udp", "port": 70000}, "port"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_by_name(op: str, args: dict[str, object], name: str) -> None:
    async def main() -> None:
        async with agent() as node:
            error = await refused(node, op, **args)
            assert error.code == "bad-argument"
            assert error.message.startswith(f"{op}: {name}: ")

    run(main())


def test_a_role_that_cannot_start_fails_the_node_with_its_reason_and_the_agent_lives() -> None:
    identity = GroupIdentity(number=1234)
    membership = GroupMembership("G", identity, (HOST_ADDRESS,), "eth9", HOST_ADDRESS)
    missing = Interface("eth9", "02:00:00:00:00:09", crypto_map=True)

    async def main() -> None:
        async with agent() as node:
            await node.boot(NodeConfiguration("ce1", NodeKind.CE, (missing,), memberships=(membership,)))
            event = await node.events.until(type="state", state="failed")
            assert "crypto map of eth9" in event["reason"]
            assert "No such device" in event["reason"]
            assert (await node.call("status"))["state"] == "failed"
            assert (await node.execute("echo", "alive"))[0] == b"alive\n"

    run(main())


def test_a_membership_on_an_interface_without_crypto_map_fails_the_node() -> None:
    membership = GroupMembership("G", GroupIdentity(number=1), (HOST_ADDRESS,), "eth0", HOST_ADDRESS)

    async def main() -> None:
        async with agent() as node:
            await node.boot(NodeConfiguration("ce1", NodeKind.CE, memberships=(membership,)))
            event = await node.events.until(type="state", state="failed")
            assert event["reason"] == "group G: interface eth0 has no crypto map on this node"

    run(main())


def test_counters_are_those_of_the_kernel() -> None:
    async def main() -> None:
        async with agent() as node:
            await node.boot()
            before = (await node.call("counters"))["interfaces"]["lo"]
            await node.call("probe", destination="127.0.0.1", count=5, interval=0, size=1000)
            after = (await node.call("counters"))["interfaces"]["lo"]
            assert after["tx_packets"] - before["tx_packets"] >= 10
            assert after["rx_bytes"] - before["rx_bytes"] >= 10 * 1000

    run(main())


def test_a_second_connection_finds_the_node_as_it_runs_and_hears_what_nobody_heard() -> None:
    async def main() -> None:
        served = Agent()
        first, one = socket.socketpair()
        attending = asyncio.create_task(served.attend(one))
        node = await connected(first)
        await node.boot()
        await node.connection.close()
        await attending
        served.tell({"type": "log", "text": "said to nobody"})
        second, other = socket.socketpair()
        attending = asyncio.create_task(served.attend(other))
        again = await connected(second)
        assert (await again.call("status"))["state"] == "ready"
        await again.events.until(text="said to nobody")
        await again.connection.close()
        await attending
        await served.close()

    run(main())


def test_every_connection_hears_every_event() -> None:
    async def main() -> None:
        served = Agent()
        nodes = []
        for _ in range(3):
            ours, theirs = socket.socketpair()
            asyncio.ensure_future(served.attend(theirs))  # noqa: RUF006 - ends with its socket, below
            nodes.append(await connected(ours))
        await nodes[0].boot()
        for node in nodes:
            await node.events.until(type="state", state="ready")
        await served.close()
        for node in nodes:
            await node.connection.wait_closed()

    run(main())


def test_a_bug_in_an_operation_reaches_the_requester_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        served = Agent()

        async def broken(call: object) -> dict[str, object]:
            raise ZeroDivisionError("by mistake")

        served._operations["status"] = broken
        attending = asyncio.create_task(served.attend(theirs))
        node = await connected(ours)
        error = await refused(node, "status")
        assert error.code == "internal"
        assert "by mistake" in error.message
        await node.connection.close()
        await attending

    run(main())
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_container_entrance_listens_privately_serves_on_and_ends_on_sigterm(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"
    process = subprocess.Popen([sys.executable, "-m", "labctl.node", "--listen", str(path)], stderr=subprocess.PIPE)
    try:

        async def main() -> None:
            node = await connected(await dial(path))
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            await node.boot()
            await node.connection.close()
            again = await connected(await dial(path))
            assert (await again.call("status"))["name"] == "h1"
            process.send_signal(signal.SIGTERM)
            await again.connection.wait_closed()

        run(main())
        _, errors = process.communicate(timeout=10)
        assert (process.returncode, errors) == (0, b"")
        assert not path.exists()
    finally:
        process.kill()
        process.communicate()


def test_commands_find_default_signals_whatever_the_agent_was_started_with(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    # As in the background of a shell, under nohup, with a signal held back.
    code = (
        "import os, signal, sys\n"
        "for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'labctl.node', '--listen', sys.argv[1]])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    try:

        async def main() -> None:
            node = await connected(await dial(path))
            output, _, _ = await node.execute("grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status")
            assert [signals_of(line) for line in output.decode().splitlines()] == [set(), set()]
            process.send_signal(signal.SIGTERM)
            await node.connection.wait_closed()

        run(main())
    finally:
        process.kill()
        process.communicate()


async def dial(path: Path) -> socket.socket:
    """Connect as the fabric does: the socket appears when the agent listens."""
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            await asyncio.sleep(0.01)  # nobody can tell us before it listens
        else:
            return sock


def test_the_container_entrance_explains_its_use_and_what_it_cannot_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "labctl.node"]
    wrong = subprocess.run([*command, "--help-me"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr) == (2, "labctl.node: usage: python -m labctl.node --listen PATH\n")
    blocked = tmp_path / "file"
    blocked.write_text("")
    failed = subprocess.run([*command, "--listen", str(blocked / "x")], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "cannot listen" in failed.stderr


def test_a_host_agent_loads_no_cipher() -> None:
    code = (
        "import sys, labctl.node.__main__\n"
        "wrong = [name for name in sys.modules if name.startswith(('cryptography', 'pydantic', 'pyroute2', 'scapy'))"
        " or name.startswith(('labctl.gdoi', 'labctl.esp', 'labctl.isakmp', 'labctl.crypto', 'labctl.dataplane'))]\n"
        "print(wrong)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_preloading_brings_what_forked_nodes_share() -> None:
    code = (
        "import sys, threading, labctl.node.agent as agent\n"
        "agent.preload()\n"
        "print('labctl.node.roles.play' in sys.modules, 'cryptography' in sys.modules, threading.active_count())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True True 1\n"  # one thread: forking is safe


def test_an_idle_agent_uses_no_processor_time() -> None:
    async def main() -> None:
        async with agent() as node:
            await node.boot()
            before = sum(os.times()[:2])
            await asyncio.sleep(0.5)  # the time that must not be used
            assert sum(os.times()[:2]) - before <= 0.02

    run(main())
