"""`capture`, `probe` and `respond` on the loopback of this machine. They need CAP_NET_RAW."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import Any

import pytest
from node_requests import Captured, Node, agent, descriptors, encoded, first_item, run
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether

from labctl.door import DoorError

pytestmark = pytest.mark.lab

HERE = "127.0.0.1"
MARKER = b"a needle in the hay"


async def responding(node: Node, protocol: str, port: int = 0) -> tuple[Any, int]:
    call = await node.open("respond", protocol=protocol, port=port)
    return call, int((await first_item(call))["port"])


def test_icmp_echoes_come_back_with_their_round_trips() -> None:
    async def main() -> None:
        async with agent() as node:
            result = await node.call("probe", destination=HERE, count=20, interval=0)
            assert (result["sent"], result["received"], result["errors"]) == (20, 20, {})
            assert len(result["rtts_ms"]) == 20
            assert all(0 < rtt < 1000 for rtt in result["rtts_ms"])

    run(main())


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_udp_and_tcp_echoes_come_back_from_a_responder(protocol: str) -> None:
    async def main() -> None:
        async with agent() as node:
            call, port = await responding(node, protocol)
            result = await node.call(
                "probe", destination=HERE, protocol=protocol, port=port, count=10, interval=0, size=20_000
            )
            assert (result["sent"], result["received"], result["errors"]) == (10, 10, {})
            await call.cancel()
            assert (await call.result())["echoed"] >= 10

    run(main())


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_port_where_nobody_answers_is_refused_by_name(protocol: str) -> None:
    async def main() -> None:
        async with agent() as node:
            call, port = await responding(node, protocol)
            await call.cancel()
            await call.result()
            result = await node.call("probe", destination=HERE, protocol=protocol, port=port, count=4, interval=0.01)
            assert result == {"sent": 4, "received": 0, "rtts_ms": [], "errors": {"refused": 4}}

    run(main())


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_silence_is_a_timeout_after_the_time_that_was_given(protocol: str) -> None:
    async def main() -> None:
        async with agent() as node:
            with socket.socket(type=socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as deaf:
                deaf.bind((HERE, 0))
                if protocol == "tcp":
                    deaf.listen()
                began = time.monotonic()
                port = deaf.getsockname()[1]
                result = await node.call(
                    "probe", destination=HERE, protocol=protocol, port=port, count=3, interval=0, timeout=0.3
                )
                assert result["errors"] == {"timeout": 3}
                assert 0.29 <= time.monotonic() - began < 3

    run(main())


def test_an_answer_that_is_not_what_was_sent_is_mangled() -> None:
    async def main() -> None:
        async with agent() as node:
            with socket.socket(type=socket.SOCK_DGRAM) as liar:
                liar.bind((HERE, 0))
                liar.setblocking(False)
                loop = asyncio.get_running_loop()

                def answer() -> None:
                    data, peer = liar.recvfrom(2048)
                    liar.sendto(data[:-1] + b"!", peer)

                loop.add_reader(liar, answer)
                result = await node.call(
                    "probe", destination=HERE, protocol="udp", port=liar.getsockname()[1], count=3, interval=0
                )
                loop.remove_reader(liar)
                assert result["errors"] == {"mangled": 3}

    run(main())


def test_a_destination_that_the_kernel_prohibits_is_a_result_and_a_foreign_source_an_error() -> None:
    async def main() -> None:
        async with agent() as node:
            result = await node.call("probe", destination="255.255.255.255", count=2)
            assert result == {"sent": 2, "received": 0, "rtts_ms": [], "errors": {"prohibited": 2}}
            with pytest.raises(DoorError) as caught:
                await node.call("probe", destination=HERE, source="203.0.113.77")
            assert (caught.value.code, caught.value.message) == (
                "bad-argument",
                "probe: source: 203.0.113.77 is no address of this node",
            )

    run(main())


def test_a_cancelled_probe_reports_what_it_has() -> None:
    async def main() -> None:
        async with agent() as node:
            tap = await Captured.start(node, "lo")
            call = await node.open("probe", destination=HERE, count=100, interval=5)
            async for item in tap.call:
                if item["packets"]:
                    break  # the first echo is out
            await call.cancel()
            result = await call.result()
            assert (result["sent"], result["received"]) == (1, 1)
            await tap.stop()

    run(main())


def test_thirty_probes_at_once_do_not_mix() -> None:
    async def main() -> None:
        async with agent() as node:
            results = await asyncio.gather(
                *(node.call("probe", destination=f"127.0.0.{n}", count=10, interval=0.001) for n in range(1, 31))
            )
            assert [result["received"] for result in results] == [10] * 30

    run(main())


def test_a_node_refuses_more_probes_than_it_can_carry() -> None:
    async def main() -> None:
        async with agent() as node:
            calls = [await node.open("probe", destination=HERE, count=10, interval=30) for _ in range(64)]
            with pytest.raises(DoorError) as caught:
                await node.call("probe", destination=HERE)
            assert caught.value.code == "busy"
            for call in calls:
                await call.cancel()
            assert [(await call.result())["sent"] for call in calls] == [1] * 64

    run(main())


def test_a_probe_carries_marker_class_of_service_ttl_and_size() -> None:
    async def main() -> None:
        async with agent() as node:
            tap = await Captured.start(node, "lo")
            await node.call(
                "probe", destination=HERE, count=1, dscp=46, ttl=9, df=True, size=400, marker_b64=encoded(MARKER)
            )
            await node.call("probe", destination=HERE, count=1, size=401)
            frames = [Ether(frame) for frame in await tap.stop()]
            marked = next(frame for frame in frames if MARKER in bytes(frame) and frame[ICMP].type == 8)
            assert (marked[IP].tos >> 2, marked[IP].ttl, str(marked[IP].flags)) == (46, 9, "DF")
            assert len(marked[ICMP].payload) == 400
            plain = next(frame for frame in frames if ICMP in frame and len(frame[ICMP].payload) == 401)
            assert (plain[IP].tos, str(plain[IP].flags)) == (0, "")

    run(main())


def test_an_echo_that_is_too_big_to_go_unfragmented_says_so() -> None:
    async def main() -> None:
        async with agent() as node:
            result = await node.call("probe", destination=HERE, size=65507, df=True, count=2, interval=0)
            assert result["received"] + sum(result["errors"].values()) == 2
            assert set(result["errors"]) <= {"too-big"}

    run(main())


def test_a_responder_answers_from_the_address_that_was_asked_in_the_class_that_was_used() -> None:
    async def main() -> None:
        async with agent() as node:
            call, port = await responding(node, "udp")
            tap = await Captured.start(node, "lo")
            result = await node.call(
                "probe", destination="127.0.0.99", protocol="udp", port=port, count=1, dscp=34, source="127.0.0.50"
            )
            assert result["received"] == 1
            frames = [Ether(frame) for frame in await tap.stop()]
            answer = next(frame for frame in frames if UDP in frame and frame[UDP].sport == port)
            assert (answer[IP].src, answer[IP].dst, answer[IP].tos >> 2) == ("127.0.0.99", "127.0.0.50", 34)
            await call.cancel()
            await call.result()

    run(main())


def test_a_port_in_use_is_refused_to_a_responder() -> None:
    async def main() -> None:
        async with agent() as node:
            call, port = await responding(node, "udp")
            with pytest.raises(DoorError) as caught:
                await responding(node, "udp", port)
            assert caught.value.code == "port-in-use"
            await call.cancel()

    run(main())


def test_a_capture_has_whole_frames_with_times_and_cuts_at_the_snapshot_length() -> None:
    async def main() -> None:
        async with agent() as node:
            whole = await Captured.start(node, "lo")
            cut = await Captured.start(node, "lo", snaplen=60)
            began = time.time_ns()
            await node.call("probe", destination=HERE, count=3, interval=0, size=1000)
            ended = time.time_ns()
            frames, short = await whole.stop(), await cut.stop()
            assert whole.result == {"captured": len(frames), "dropped": 0}
            echoes = [frame for frame in frames if len(frame) == 14 + 20 + 8 + 1000]
            assert len(echoes) >= 6  # requests and answers
            assert all(began <= moment <= ended for moment in whole.times)
            assert whole.times == sorted(whole.times)
            assert {len(frame) for frame in short} == {60}
            assert cut.lengths == whole.lengths
            assert [frame[:60] for frame in frames] == short
            # What a kernel that is given the same octets would say.
            assert all(Ether(frame)[ICMP].chksum == _recomputed(frame) for frame in echoes)

    run(main())


def _recomputed(frame: bytes) -> int:
    packet = Ether(frame)[ICMP]
    del packet.chksum
    return int(ICMP(bytes(packet)).chksum)


def test_a_capture_counts_what_a_slow_reader_loses() -> None:
    async def main() -> None:
        async with agent() as node:
            tap = await Captured.start(node, "lo")
            with socket.socket(type=socket.SOCK_DGRAM) as sender, socket.socket(type=socket.SOCK_DGRAM) as sink:
                sink.bind((HERE, 0))
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
                # One go, without a turn for the agent: more than its buffer holds.
                for _ in range(4000):
                    sender.sendto(bytes(16_000), sink.getsockname())
            frames = await tap.stop()
            assert tap.result["captured"] == len(frames)
            assert tap.result["dropped"] > 0
            ours = [frame for frame in frames if len(frame) > 16_000]
            assert len(ours) + tap.result["dropped"] >= 4000

    run(main())


def test_a_vlan_tag_that_the_kernel_took_off_is_back_in_its_place() -> None:
    async def main() -> None:
        async with agent() as node:
            tap = await Captured.start(node, "lo")
            tagged = bytes(12) + struct.pack("!HHH", 0x8100, 42, 0x88B5) + b"tagged" * 10
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
                sender.bind(("lo", 0))
                sender.send(tagged)
            assert tagged in await tap.stop()

    run(main())


def test_a_capture_of_an_interface_that_is_not_there_names_those_that_are() -> None:
    async def main() -> None:
        async with agent() as node:
            with pytest.raises(DoorError) as caught:
                await Captured.start(node, "eth77")
            assert caught.value.code == "unknown-interface"
            assert "eth77" in caught.value.message
            assert "lo" in caught.value.hint

    run(main())


def test_packets_leave_no_descriptor_behind() -> None:
    async def main() -> None:
        async with agent() as node:
            await node.call("probe", destination=HERE, count=1)
            before = descriptors()
            tap = await Captured.start(node, "lo")
            for protocol in ("icmp", "udp", "tcp"):
                await node.call("probe", destination=HERE, protocol=protocol, port=9, count=2, interval=0, timeout=0.1)
            for protocol in ("udp", "tcp"):
                call, _ = await responding(node, protocol)
                await call.cancel()
                await call.result()
            await tap.stop()
            assert descriptors() == before

    run(main())
