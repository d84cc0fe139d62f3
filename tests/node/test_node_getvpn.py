"""A key server and members as agents in namespaces: registration over UDP 848, ESP between them, every refusal."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import pairwise

import pytest
from node_getvpn import (
    GROUP,
    KS,
    key_server,
    key_server_place,
    member,
    member_address,
    member_place,
    site_address,
)
from node_requests import Captured, Node, connected, encoded, first_item, run
from node_world import LAN, Place, World
from scapy.layers.inet import ICMP, IP
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import ARP, Ether

from labctl.configuration import Cipher, GroupIdentity, Integrity, PreSharedKey, TransformSet

pytestmark = pytest.mark.lab

MARKER = b"a needle in the hay"
MEMBERS = [member_address(number) for number in (1, 2)]
BASIC = (key_server_place(), member_place(1), member_place(2))


@asynccontextmanager
async def nodes(world: World, *names: str) -> AsyncIterator[list[Node]]:
    """Requesters of the named nodes of a world."""
    found = [await connected(world.door[name]) for name in names]
    try:
        yield found
    finally:
        for node in found:
            await node.connection.close()


async def ready(*given: Node) -> None:
    for node in given:
        await node.events.until(type="state", state="ready")


async def ping(node: Node, destination: str, **args: object) -> dict[str, object]:
    return await node.call("probe", destination=destination, **{"count": 5, "interval": 0.01, **args})


@pytest.mark.parametrize(
    "transform",
    [TransformSet(Cipher.AES_GCM, 256), TransformSet(Cipher.AES_CBC, 128, Integrity.SHA256)],
    ids=str,
)
def test_members_register_and_their_sites_talk_encrypted_with_addresses_untouched(transform: TransformSet) -> None:
    async def main(world: World) -> None:
        async with nodes(world, "ks", "gm1", "gm2") as (ks, gm1, gm2):
            await ks.boot(key_server(MEMBERS, transform=transform))
            await gm1.boot(member(1))
            await gm2.boot(member(2))
            await ready(ks, gm1, gm2)
            wire, inside = await Captured.start(gm1, LAN), await Captured.start(gm1, LAN, side="inside")
            args = {"source": site_address(1), "dscp": 46, "size": 300, "marker_b64": encoded(MARKER)}
            result = await ping(gm1, site_address(2), **args)
            assert (result["sent"], result["received"], result["errors"]) == (5, 5, {})
            cipher, clear = await wire.stop(), await inside.stop()
            assert sum(MARKER in frame for frame in clear) == 10
            assert not any(MARKER in frame for frame in cipher)
            packets = [Ether(frame)[IP] for frame in cipher if IP in Ether(frame)]
            between_sites = [packet for packet in packets if packet.src.startswith("10.1.")]
            assert len(between_sites) == 10
            assert all(ESP in packet and packet.proto == 50 for packet in between_sites)
            assert {(packet.src, packet.dst) for packet in between_sites} == {
                (site_address(1), site_address(2)),
                (site_address(2), site_address(1)),
            }
            assert {packet.tos >> 2 for packet in between_sites} == {46}
            counters = (await gm1.call("counters"))["crypto"][LAN]
            [association] = counters["associations"].values()
            assert (association["encrypted"], association["decrypted"]) == (5, 5)
            assert counters["entries"] == [{"entry": "permit ip 10.1.0.0/16 10.1.0.0/16", "hits": 5}]
            assert counters["drops"] == {}

    with World(BASIC) as world:
        run(main(world))


def test_status_and_events_say_who_is_registered_with_whom_and_logs_are_a_routers() -> None:
    async def main(world: World) -> None:
        async with nodes(world, "ks", "gm1") as (ks, gm1):
            await ks.boot(key_server(MEMBERS))
            await gm1.boot(member(1))
            await ready(gm1)
            [group] = (await gm1.call("status"))["groups"]
            expected = {
                "name": GROUP,
                "identity": "1234",
                "role": "gm",
                "state": "registered",
                "key_server": str(KS),
                "registered_with": str(KS),
                "reason": "",
                "interface": LAN,
                "registrations": 1,
            }
            assert expected.items() <= group.items()
            assert 3500 < group["teks"][0]["left"] <= 3600
            assert 86000 < group["kek_left"] <= 86400
            [served] = (await ks.call("status"))["groups"]
            assert {"role": "ks", "state": "serving", "members": [str(MEMBERS[0])]}.items() <= served.items()
            assert [tek["spi"] for tek in served["teks"]] == [tek["spi"] for tek in group["teks"]]
            assert gm1.events.logs().index("GM_REGSTER") < gm1.events.logs().index("GM_REGS_COMPL")
            assert {"GDOI_ON_OFF", "SA_TEK_UPDATED", "SA_KEK_UPDATED"} <= set(gm1.events.logs())
            assert {"GDOI_ON_OFF", "KS_FIRST_GM"} <= set(ks.events.logs())
            states = [event for event in gm1.events.seen if event["type"] == "state"]
            assert states[-1]["groups"][0]["state"] == "registered"
            told = [(event["state"], event["reason"], event["groups"]) for event in states]
            assert all(one != other for one, other in pairwise(told))  # each said once
            assert not any(event["type"] == "keylog" for event in ks.events.seen + gm1.events.seen)

    with World(BASIC[:2]) as world:
        run(main(world))


def test_arp_and_traffic_outside_the_policy_pass_in_clear() -> None:
    async def main(world: World) -> None:
        async with nodes(world, "ks", "gm1") as (ks, gm1):
            await ks.boot(key_server(MEMBERS))
            await gm1.boot(member(1))
            await ready(gm1)
            wire = await Captured.start(gm1, LAN)
            await gm1.execute("ip", "neigh", "flush", "all")
            assert (await ping(gm1, str(KS)))["received"] == 5
            frames = [Ether(frame) for frame in await wire.stop()]
            assert any(ARP in frame for frame in frames)
            assert sum(ICMP in frame for frame in frames) == 10

    with World(BASIC[:2]) as world:
        run(main(world))


def test_a_clear_packet_that_should_have_been_encrypted_is_dropped_and_counted() -> None:
    stranger = Place("stranger", ["10.0.0.50/24"], inside=["10.1.9.1/24"], routes=[f"10.1.1.0/24 via {MEMBERS[0]}"])

    async def main(world: World) -> None:
        async with nodes(world, "ks", "gm1", "stranger") as (ks, gm1, outsider):
            await ks.boot(key_server(MEMBERS))
            await gm1.boot(member(1))
            await outsider.boot()
            await ready(gm1)
            result = await ping(outsider, site_address(1), source="10.1.9.1", timeout=0.3)
            assert (result["received"], result["errors"]) == (0, {"timeout": 5})
            assert (await gm1.call("counters"))["crypto"][LAN]["drops"] == {"not-an-ipsec-packet": 5}

    with World((*BASIC[:2], stranger)) as world:
        run(main(world))


def test_large_packets_cross_and_those_that_may_not_be_fragmented_are_told_the_size() -> None:
    async def main(world: World) -> None:
        async with nodes(world, "ks", "gm1", "gm2") as (ks, gm1, gm2):
            await ks.boot(key_server(MEMBERS))
            await gm1.boot(member(1))
            await gm2.boot(member(2))
            await ready(gm1, gm2)
            assert (await ping(gm1, site_address(2), source=site_address(1), size=8000))["received"] == 5
            result = await ping(gm1, site_address(2), source=site_address(1), size=1472, df=True, count=2, interval=0.1)
            assert result["errors"] == {"too-big": 2}

    with World(BASIC) as world:
        run(main(world))


def reasons_of(main_configuration: dict[str, object], *words: str, places: Sequence[Place] = BASIC[:2]) -> None:
    """A member with this configuration does not get ready, and says why in these words; the key server serves on."""

    async def main(world: World) -> None:
        async with nodes(world, "ks", "gm1") as (ks, gm1):
            await ks.boot(key_server(MEMBERS, clock_scale=20))
            await gm1.boot(member(1, clock_scale=20, **main_configuration))  # type: ignore[arg-type]
            reason = await gm1.events.until_reason(*words)
            assert reason.startswith(f"{GROUP}: ")
            status = await gm1.call("status")
            assert status["state"] == "booting"
            assert status["groups"][0]["state"] == "registering"
            assert (await ks.call("status"))["state"] == "ready"

    with World(places) as world:
        run(main(world))


def test_a_wrong_pre_shared_key_is_the_reason() -> None:
    reasons_of({"psk": b"wrong"}, str(KS), "pre-shared key")


def test_an_unknown_group_is_the_reason() -> None:
    reasons_of({"identity": GroupIdentity(number=99)}, str(KS), "does not know group 99")


def test_a_key_server_that_is_not_there_is_the_reason() -> None:
    nobody = IPv4Address("10.0.0.200")
    reasons_of({"key_servers": (nobody,)}, str(nobody), "cannot be reached")


def test_a_key_server_without_a_route_is_the_reason() -> None:
    elsewhere = IPv4Address("192.0.2.1")
    reasons_of({"key_servers": (elsewhere,)}, str(elsewhere), "no route")


def test_a_host_without_a_key_server_is_the_reason() -> None:
    bystander = Place("bystander", ["10.0.0.60/24"])
    address = IPv4Address("10.0.0.60")
    reasons_of({"key_servers": (address,)}, str(address), "no key server runs there", places=(*BASIC[:2], bystander))


def test_a_member_without_a_key_for_its_key_server_is_the_reason() -> None:
    async def main(world: World) -> None:
        async with nodes(world, "gm1") as (gm1,):
            await gm1.boot(replace(member(1), pre_shared_keys=(PreSharedKey(MEMBERS[1], b"of another"),)))
            await gm1.events.until_reason(str(KS), "no pre-shared key")

    with World(BASIC[:2]) as world:
        run(main(world))


def test_a_member_registers_when_its_key_server_comes_late() -> None:
    async def main(world: World) -> None:
        async with nodes(world, "ks", "gm1") as (ks, gm1):
            await gm1.boot(member(1, clock_scale=20))
            await gm1.events.until_reason(str(KS), "no key server runs there")
            await ks.boot(key_server(MEMBERS, clock_scale=20))
            event = await gm1.events.until(type="state", state="ready")
            assert event["groups"][0]["reason"] == ""

    with World(BASIC[:2]) as world:
        run(main(world))


def test_a_member_goes_on_to_the_next_key_server() -> None:
    nobody = IPv4Address("10.0.0.200")

    async def main(world: World) -> None:
        async with nodes(world, "ks", "gm1") as (ks, gm1):
            await ks.boot(key_server(MEMBERS, clock_scale=20))
            await gm1.boot(member(1, clock_scale=20, key_servers=(nobody, KS)))
            await ready(gm1)
            [group] = (await gm1.call("status"))["groups"]
            assert (group["registered_with"], group["attempts"]) == (str(KS), 2)

    with World(BASIC[:2]) as world:
        run(main(world))


def test_keys_roll_over_on_a_scaled_clock_without_losing_a_packet() -> None:
    # 300 s of key life pass in three seconds; members register again a minute or so before the end.
    async def main(world: World) -> None:
        async with nodes(world, "ks", "gm1", "gm2") as (ks, gm1, gm2):
            await ks.boot(key_server(MEMBERS, clock_scale=100, tek_lifetime=300))
            await gm1.boot(member(1, clock_scale=100))
            await gm2.boot(member(2, clock_scale=100))
            await ready(gm1, gm2)
            before = (await gm1.call("status"))["groups"][0]["teks"]
            result = await ping(gm1, site_address(2), source=site_address(1), count=500, interval=0.01)
            assert (result["received"], result["errors"]) == (500, {})
            group = (await gm1.call("status"))["groups"][0]
            assert group["registrations"] >= 2
            assert not {tek["spi"] for tek in before} & {tek["spi"] for tek in group["teks"]}
            counters = (await gm1.call("counters"))["crypto"][LAN]
            assert set(counters["associations"]) == {tek["spi"] for tek in group["teks"]}

    with World(BASIC) as world:
        run(main(world), seconds=60)


def test_shutdown_leaves_the_group_and_ends_the_agent() -> None:
    async def main(world: World) -> None:
        async with nodes(world, "ks", "gm1") as (ks, gm1):
            await ks.boot(key_server(MEMBERS))
            await gm1.boot(member(1))
            await ready(gm1)
            wire = await Captured.start(ks, LAN)
            await gm1.call("shutdown")
            await gm1.connection.wait_closed()
            assert gm1.events.logs()[-1] == "GM_UNREGISTER"
            told = [Ether(frame) for frame in await wire.stop()]
            assert any(frame[IP].src == str(MEMBERS[0]) for frame in told if IP in frame)  # the delete of phase 1
            assert Process(world.pid["gm1"]).has_ended

    with World(BASIC[:2]) as world:
        run(main(world))


class Process:
    """A process of the world's, which alone may wait for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def has_ended(self) -> bool:
        try:
            watch = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([watch], [], [], 5)[0])
        finally:
            os.close(watch)


def test_a_taken_port_fails_the_node_with_its_reason() -> None:
    async def main(world: World) -> None:
        async with nodes(world, "ks") as (ks,):
            script = (
                "from socket import *; s = socket(type=SOCK_DGRAM); s.bind(('', 848)); print(1, flush=True); input()"
            )
            call = await ks.open("exec", argv=["python3", "-c", script])
            await first_item(call)
            await ks.boot(key_server(MEMBERS))
            event = await ks.events.until(type="state", state="failed")
            assert event["reason"] == "UDP port 848 cannot be opened: Address already in use"
            assert (await ks.call("status"))["state"] == "failed"
            await call.cancel()
            await call.result()

    with World(BASIC[:1]) as world:
        run(main(world))


def test_a_key_log_is_told_only_where_the_configuration_asks_for_it_and_opens_what_was_captured() -> None:
    async def main(world: World) -> None:
        async with nodes(world, "ks", "gm1") as (ks, gm1):
            await ks.boot(key_server(MEMBERS))
            await gm1.boot(member(1, keylog=True))
            await ready(gm1)
            lines = {event["kind"]: event["line"] for event in gm1.events.seen if event["type"] == "keylog"}
            assert set(lines) == {"isakmp", "exchange", "esp", "rekey"}
            [tek] = (await gm1.call("status"))["groups"][0]["teks"]
            assert tek["spi"] in lines["esp"]
            assert not any(event["type"] == "keylog" for event in ks.events.seen)
            # Who listens hears from a member what it holds, whatever the configuration says.
            held = {kind: line for kind, line in lines.items() if kind != "isakmp"}
            for node, expected in ((gm1, held), (ks, {"exchange": lines["exchange"]})):
                call = await node.open("keylog")
                assert dict((await first_item(call))["keys"]) == expected
                await call.cancel()
                assert await call.result() == {}

    with World(BASIC[:2]) as world:
        run(main(world))


def test_ten_members_register_at_once() -> None:
    numbers = range(1, 11)

    async def main(world: World) -> None:
        async with nodes(world, "ks", *(f"gm{number}" for number in numbers)) as (ks, *members):
            await ks.boot(key_server([member_address(number) for number in numbers]))
            await asyncio.gather(*(node.boot(member(number)) for number, node in zip(numbers, members, strict=True)))
            await ready(*members)
            [group] = (await ks.call("status"))["groups"]
            assert len(group["members"]) == 10
            sids = [tuple((await node.call("status"))["groups"][0]["sender_ids"]) for node in members]
            assert len(set(sids)) == 10  # no two members ever share a nonce

    with World((key_server_place(), *(member_place(number, ()) for number in numbers))) as world:
        run(main(world))
