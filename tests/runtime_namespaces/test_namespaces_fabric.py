"""What a fabric does for its clients, over real wires: builds, replaces, isolates failures, passes requests through."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from chain import chain, execute
from running_lab import InLab, Lab

from labctl.configuration import Interface, NodeConfiguration, NodeKind, to_json
from labctl.door import Connection, DoorError
from labctl.topology.plan import LinkEnd, Plan, PlannedLink, PlannedNode

pytestmark = pytest.mark.lab

# More than the fabric and the sockets on the way hold for a client that does not read.
FLOOD = 20_000


async def links_of(door: Connection, node: str) -> dict[str, dict[str, Any]]:
    """What iproute2 says of a node's links."""
    status, printed = await execute(door, node, "ip", "-j", "-d", "addr")
    assert status == 0, printed
    return {link["ifname"]: link for link in json.loads(printed)}


async def reaches(door: Connection, node: str, target: str) -> bool:
    return (await execute(door, node, "ping", "-c", "1", "-W", "5", target))[0] == 0


async def state_of(door: Connection, node: str) -> tuple[str, str]:
    found = (await door.call("status"))["nodes"][node]
    return found["state"], found["reason"]


def lan(members: int) -> Plan:
    """Hosts h0.. on one switch whose name no interface could have."""
    switch = "a-switch-with-a-long-name"
    nodes, links = [], []
    for number in range(members):
        interface = Interface("eth0", f"02:00:00:00:01:{number:02x}", (IPv4Interface(f"192.168.7.{number + 1}/24"),))
        nodes.append(
            PlannedNode(f"h{number}", NodeKind.HOST, NodeConfiguration(f"h{number}", NodeKind.HOST, (interface,)))
        )
        ends = (LinkEnd(f"h{number}", "eth0"), LinkEnd(switch, f"port{number}"))
        links.append(PlannedLink(f"h{number}:eth0--{switch}:port{number}", ends))
    return Plan("lan", "namespaces", tuple(nodes), (switch,), tuple(links), (), ())


def with_crypto_map(plan: Plan, node: str) -> Plan:
    """The same plan with a crypto map on the node's eth0."""

    def changed(planned: PlannedNode) -> PlannedNode:
        if planned.name != node:
            return planned
        interfaces = tuple(replace(item, crypto_map=item.name == "eth0") for item in planned.configuration.interfaces)
        return replace(planned, configuration=replace(planned.configuration, interfaces=interfaces))

    return replace(plan, nodes=tuple(changed(planned) for planned in plan.nodes))


def test_a_killed_agent_fails_its_node_and_no_other(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(chain(3))
        victim = (await lab.door.call("status"))["nodes"]["n1"]["pid"]
        status, printed = await execute(lab.door, "n0", "sh", "-c", f"kill -9 {victim}")
        assert status == 0, printed
        call = await lab.door.open("events", follow=True)
        async for event in call:
            if event["node"] == "n1" and event.get("state") == "failed":
                break
        assert await state_of(lab.door, "n1") == ("failed", "the agent was killed by SIGKILL")
        assert await state_of(lab.door, "n2") == ("ready", "")
        with pytest.raises(DoorError, match="killed by SIGKILL") as refused:
            await execute(lab.door, "n1", "true")
        assert refused.value.code == "node-down"
        assert not (await lab.door.call("wait", timeout=10))["ready"]

    in_lab(body)


def test_a_node_can_be_replaced_under_its_neighbours(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        plan = with_crypto_map(chain(4), "n2")
        await lab.build(plan)
        before = await links_of(lab.door, "n2")
        assert {"eth0", "eth0.in", "eth0.wire"} <= before.keys()
        status, _ = await execute(lab.door, "n1", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
        assert status == 0
        await lab.door.call("remove", nodes=["n1"])
        assert "n1" not in (await lab.door.call("status"))["nodes"]
        _, running = await execute(lab.door, "n0", "ps", "-e", "-o", "args")
        assert "sleep 1000" not in running
        await lab.build(plan)
        after = await links_of(lab.door, "n2")
        assert {name: link["ifindex"] for name, link in after.items()} == {
            name: link["ifindex"] for name, link in before.items()
        }
        assert await reaches(lab.door, "n0", "10.0.0.2")
        routes = json.loads((await execute(lab.door, "n1", "ip", "-j", "route"))[1])
        assert any(route["dst"] == "10.0.2.0/30" and route["gateway"] == "10.0.1.2" for route in routes)

    in_lab(body)


def test_part_of_a_lab_comes_up_alone_and_the_rest_joins_it(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        plan = chain(3)
        await lab.build(plan, ["n1"])
        assert {"eth0", "eth1"} <= (await links_of(lab.door, "n1")).keys()
        reported = await lab.build(plan, ["n0", "n1", "n2"])
        assert await reaches(lab.door, "n0", "n2")
        assert [item["state"] for item in reported if item["node"] == "n1"] == ["ready"]  # it was left alone
        with pytest.raises(DoorError, match="no node nine"):
            await lab.build(plan, ["nine"])

    in_lab(body)


def test_a_new_plan_cuts_the_wires_it_no_longer_has(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        plan = chain(3)
        await lab.build(plan)
        thinner = replace(plan, links=(replace(plan.links[0], mtu=1400), *plan.links[1:]))
        await lab.build(thinner)
        assert await reaches(lab.door, "n0", "n1")
        assert {link["name"]: link["mtu"] for link in (await lab.door.call("status"))["links"]} == {
            plan.links[0].name: 1400,
            plan.links[1].name: 1500,
        }
        assert (await lab.door.call("plan"))["plan"] == to_json(thinner)

    in_lab(body)


def test_a_node_that_refuses_to_boot_fails_alone_and_says_why(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        plan = chain(3, names=("n0", "n1", "broken"))
        result = await lab.door.call("build", plan=to_json(plan))
        assert result["nodes"]["broken"]["state"] == "failed"
        assert result["nodes"]["broken"]["reason"] == "this node was told to fail"
        assert result["nodes"]["n0"]["state"] == "ready"
        assert await reaches(lab.door, "n0", "n1")

    in_lab(body)


def test_hosts_on_a_switch_reach_each_other_and_group_frames_pass(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(lan(3))
        for target in ("192.168.7.2", "192.168.7.3"):
            assert await reaches(lab.door, "h0", target)
        # An LLDP frame (IEEE 802.1AB: 01:80:c2:00:00:0e) is not for the bridge to swallow.
        listen = (
            "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88cc)); "
            "s.bind(('eth0', 0x88cc)); s.settimeout(10); print('listening', flush=True); print(s.recv(2000)[:6].hex())"
        )
        send = (
            "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0)); "
            "s.send(bytes.fromhex('0180c200000e 020000000100 88cc') + bytes(46))"
        )
        call = await lab.door.open("node", name="h1", op="exec", args={"argv": ["/usr/bin/python3", "-c", listen]})
        heard = []
        async for item in call:
            heard.append(item)
            if len(heard) == 1:
                assert (await execute(lab.door, "h0", "/usr/bin/python3", "-c", send))[0] == 0
        assert (await call.result())["exit"] == 0

    in_lab(body)


def test_a_crypto_interface_is_split_as_the_data_plane_expects(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        plan = with_crypto_map(chain(3), "n2")
        await lab.build(plan)
        links = await links_of(lab.door, "n2")
        planned = plan.node("n2").configuration.interfaces[0]
        inside, agents, wire = links["eth0"], links["eth0.in"], links["eth0.wire"]
        assert inside["address"] == planned.mac
        assert [address["local"] for address in inside["addr_info"]] == ["10.0.1.2"]
        assert inside["link"] == "eth0.in"  # the two are one veth pair
        for bare in (agents, wire):
            assert bare["addr_info"] == []
            assert {"NOARP", "PROMISC", "UP"} <= set(bare["flags"])
        assert len({inside["address"], agents["address"], wire["address"]}) == 3
        _, value = await execute(lab.door, "n2", "cat", "/proc/sys/net/ipv4/conf/eth0.wire/rp_filter")
        assert value == "1\n"
        _, value = await execute(lab.door, "n2", "cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter")
        assert value == "0\n"

    in_lab(body)


def test_nothing_of_the_supervisor_is_open_in_a_node(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(chain(3))
        for name, node in (await lab.door.call("status"))["nodes"].items():
            _, printed = await execute(lab.door, name, "sh", "-c", f"cd /proc/{node['pid']}/fd && readlink *")
            opened = [line for line in printed.splitlines() if "pipe" not in line]  # of the running exec itself
            files = [line for line in opened if line.startswith("/")]
            assert set(files) == {"/dev/null", str(lab.paths.logs / f"{name}.log")}
            # The agent's own: its door, its event loop's waker pair, its signal pair, its epoll.
            assert sum(line.startswith("socket:") for line in opened) <= 5
            assert not any("net:[" in line for line in opened)

    in_lab(body)


def test_a_hostile_client_is_turned_away_and_nobody_else_notices(in_lab: InLab) -> None:
    hostile = [
        b"\x00\xff\xfe\n",
        b"[" * 200_000 + b"\n",
        b'{"id": {}, "op": "status"}\n',
        b'{"id": 1, "op": 7}\n',
        b'{"id": 1, "op": "build", "args": 5}\n',
        b'{"id": 1, "op": "build", "args": {"plan": {"lab": 3}}}\n',
        b'{"id": 1, "op": "build", "args": {}}\n',
        b'{"id": 1, "op": "wait", "args": {"timeout": "soon", "nodes": {"a": 1}}}\n',
        b'{"id": 1, "op": "node", "args": {"name": "n0", "op": "status", "args": {"self": 1, "op": 2}}}\n',
        b'{"id": 1, "op": "node", "args": {"name": "n0", "op": "status", "args": [1]}}\n',
        b'{"id": 1, "op": "logs", "args": {"lines": "many"}}\n',
        b'{"id": 1, "op": "events", "args": {"since": []}}\n',
        b'{"id": 99, "data": {}, "to": "server"}\n{"id": 99, "cancel": true}\n{"id": 99, "result": {}}\n',
        b'{"v": 99, "hello": {}}\n',
        b'{"event": 5}\n{"data": 1}\n',
        b"x" * 70_000,
    ]

    async def body(lab: Lab) -> None:
        await lab.build(chain(2))
        for frames in hostile:
            reader, writer = await asyncio.open_unix_connection(str(lab.paths.door))
            writer.write(frames)
            await writer.drain()
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 10)  # the fabric's answer, and then its end of the connection
            writer.close()
        assert await state_of(lab.door, "n0") == ("ready", "")
        assert await reaches(lab.door, "n0", "n1")

    in_lab(body)


def test_bad_arguments_are_answered_with_a_reason(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(chain(2))
        for op, args, words in (
            ("fly", {}, "no op 'fly'"),
            ("build", {"plan": {"lab": 3}}, r"\$.lab"),
            ("node", {"name": "n7", "op": "status"}, "no node 'n7'"),
            ("node", {"name": "n0"}, "op is missing"),
            ("wait", {"nodes": "n0"}, "list of names"),
        ):
            with pytest.raises(DoorError, match=words):
                await lab.door.call(op, **args)

    in_lab(body)


def test_several_clients_share_one_lab(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(chain(2))
        doors = [await lab.runtime.connect(lab.paths) for _ in range(5)]
        assert all(door.peer_hello["lab"] == "chain" for door in doors)
        answers = await asyncio.gather(*(execute(door, "n1", "hostname") for door in doors))
        assert answers == [(0, "n1\n")] * 5
        for door in doors:
            await door.close()

    in_lab(body)


def test_streams_pass_both_ways_and_a_cancel_reaches_the_agent(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(chain(2))
        call = await lab.door.open("node", name="n1", op="echo", args={})
        await call.send({"word": 1})
        await call.send({"word": 2})
        echoed = []
        async for item in call:
            echoed.append(item)
            if len(echoed) == 2:
                await call.cancel()
        assert echoed == [{"echo": {"word": 1}}, {"echo": {"word": 2}}]
        assert await call.result() == {"count": 2}

    in_lab(body)


def test_what_a_client_started_ends_when_the_client_goes(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(chain(2))
        guest = await lab.runtime.connect(lab.paths)
        call = await guest.open("node", name="n1", op="exec", args={"argv": ["sh", "-c", "echo $$; exec sleep 1000"]})
        async for _ in call:
            break
        await guest.close()
        gone = "while ps -e -o args | grep -q '[s]leep 1000'; do :; done"
        assert (await asyncio.wait_for(execute(lab.door, "n1", "sh", "-c", gone), 10))[0] == 0

    in_lab(body)


def test_a_client_that_does_not_read_its_capture_holds_nobody_up(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(chain(2))
        packets, end = await flood_a_sleeper(lab, "capture")
        assert end["result"]["dropped"] > 0
        assert packets + end["result"]["dropped"] == FLOOD

    in_lab(body)


def test_a_client_that_does_not_read_its_command_is_cut_off_not_robbed(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(chain(2))
        packets, end = await flood_a_sleeper(lab, "flood")
        assert packets < FLOOD
        assert end["error"]["code"] == "too-slow"

    in_lab(body)


async def flood_a_sleeper(lab: Lab, op: str) -> tuple[int, dict[str, Any]]:
    """A client asks for a flood and reads only when it is over. How many packets it got, and the end of its request."""
    reader, writer = await asyncio.open_unix_connection(str(lab.paths.door), limit=1 << 16)
    request = {"id": 1, "op": "node", "args": {"name": "n1", "op": op, "args": {"count": FLOOD}}}
    writer.write(json.dumps({"v": 1, "hello": {}}).encode() + b"\n" + json.dumps(request).encode() + b"\n")
    # The node answers others all the while, and says when all is sent.
    async with asyncio.timeout(20):
        while (await lab.door.call("status"))["nodes"]["n1"]["flooded"] < FLOOD:
            assert (await execute(lab.door, "n1", "hostname")) == (0, "n1\n")
    packets = 0
    while True:
        frame = json.loads(await asyncio.wait_for(reader.readline(), 10))
        if "result" in frame or "error" in frame:
            writer.close()
            return packets, frame
        packets += len(frame.get("data", {}).get("packets", ()))


def test_events_and_logs_are_kept_and_keys_go_only_to_who_asks(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(chain(2))
        assert (await lab.door.call("wait", timeout=10))["ready"]

        async def replay(op: str, **args: Any) -> list[dict[str, Any]]:
            return [item async for item in await lab.door.open(op, **args)]

        events = await replay("events")
        assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
        assert [event["state"] for event in events if event["node"] == "n0" and event["type"] == "state"] == [
            "created",
            "wired",
            "ready",
        ]
        assert not any(event["type"] == "keylog" for event in events)
        assert sum(event["type"] == "keylog" for event in await replay("events", keylog=True)) == 2
        assert await replay("events", since=events[-1]["seq"]) == []
        lines = await replay("logs", nodes=["n1"])
        assert [line["text"] for line in lines] == ["%SYS-5-RESTART: n1 boots"]
        assert len(await replay("logs", lines=1)) == 1
        assert await replay("logs", lines=0) == []
        assert (lab.paths.logs / "n1.log").read_text().endswith(": %SYS-5-RESTART: n1 boots\n")

    in_lab(body)


def test_a_follower_sees_what_happens_next(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        call = await lab.door.open("logs", follow=True)
        await lab.build(chain(2))
        async for line in call:
            assert line["text"].startswith("%SYS-5-RESTART")
            break
        await call.cancel()
        assert (await asyncio.wait_for(call.result(), 10))["last"] >= 1

    in_lab(body)


def test_the_names_of_a_lab_resolve_in_its_nodes(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(chain(3))
        assert await reaches(lab.door, "n0", "n2")
        status, hosts = await execute(lab.door, "n2", "getent", "hosts", "n0")
        assert (status, hosts.split()) == (0, ["10.0.0.1", "n0"])
        assert "name server" in (await execute(lab.door, "n0", "cat", "/etc/resolv.conf"))[1]

    in_lab(body)


def test_a_lab_outlives_the_labctl_that_was_killed_while_it_built(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        guest = await lab.runtime.connect(lab.paths)
        await guest.open("build", plan=to_json(chain(8)))
        await guest.close()
        await lab.build(chain(8))  # waits for the first, and finds it done
        assert await reaches(lab.door, "n0", "n7")

    in_lab(body)


def test_shutdown_ends_the_supervisor(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(chain(2))
        assert await lab.door.call("shutdown") == {}
        await asyncio.wait_for(lab.door.wait_closed(), 10)
        pidfd = None
        try:
            pidfd = os.pidfd_open(lab.supervisor)
        except ProcessLookupError:
            return
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, ended.set)
        await asyncio.wait_for(ended.wait(), 10)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)

    in_lab(body)


def test_a_supervisor_ignores_what_its_own_nodes_send_it(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(chain(2))
        for number in (signal.SIGKILL, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            await execute(lab.door, "n1", "sh", "-c", f"kill -{int(number)} 1")
        assert await reaches(lab.door, "n0", "n1")
        assert Path(f"/proc/{lab.supervisor}").exists()

    in_lab(body)
