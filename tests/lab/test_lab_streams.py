"""Streams between hosts of a real lab while its keys turn over: every octet arrives, once and in order."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from lab_command import TIMEOUT, Labctl
from lab_group import group_of

pytestmark = pytest.mark.lab

TOPOLOGY = """\
name: streams
clock: {{scale: 60}}
nodes: {{p1: p, pe1: pe, pe2: pe, ks1: ks, ce1: ce, ce2: ce, h1: host, h2: host}}
links: [pe1 -- p1, pe2 -- p1, ks1 -- pe1, ce1 -- pe1, ce2 -- pe2, h1 -- ce1, h2 -- ce2]
groups:
  LAB:
    identity: 1234
    key-servers: [ks1]
    members: [ce1, ce2]
    policy: [permit ip 10.1.0.0/16 10.1.0.0/16]
    transform: {transform}
    lifetime: {{tek: 120, kek: 1200}}
    rekey: {{transport: unicast}}
"""
SINK, PORT = "10.1.2.10", 5001

# A bounded rate, far below what two members carry: four flows of numbered datagrams, sizes from the least to the most.
DATAGRAMS, FLOWS, PAUSE_EVERY, PAUSE = 12_000, 4, 20, 0.02
OCTETS = 12_000_000

# A socket a flow: what a busy machine delivers late waits in a buffer of its own.
RECEIVE_DATAGRAMS = f"""
import json, select, socket
socks = [socket.socket(type=socket.SOCK_DGRAM) for _ in range({FLOWS})]
for flow, sock in enumerate(socks):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.bind(("{SINK}", {PORT} + flow))
print("ready", flush=True)
seen = {{sock: [] for sock in socks}}
while sum(map(len, seen.values())) < {DATAGRAMS}:
    readable, _, _ = select.select(socks, [], [], 30)
    if not readable:
        break
    for sock in readable:
        seen[sock].append(int.from_bytes(sock.recv(2048)[:4], "big"))
print(json.dumps(list(seen.values())))
"""
SEND_DATAGRAMS = f"""
import socket, time
sock = socket.socket(type=socket.SOCK_DGRAM)
for number in range({DATAGRAMS}):
    data = (number // {FLOWS}).to_bytes(4, "big") + bytes(number * 37 % 1300)
    sock.sendto(data, ("{SINK}", {PORT} + number % {FLOWS}))
    if number % {PAUSE_EVERY} == 0:
        time.sleep({PAUSE})
"""
RECEIVE_STREAM = f"""
import hashlib, socket
listener = socket.create_server(("{SINK}", {PORT}))
print("ready", flush=True)
sock, _ = listener.accept()
found, size = hashlib.sha256(), 0
while data := sock.recv(65536):
    found.update(data)
    size += len(data)
print(size, found.hexdigest())
"""
SEND_STREAM = f"""
import hashlib, random, socket
data = random.Random(1).randbytes({OCTETS})
with socket.create_connection(("{SINK}", {PORT})) as sock:
    sock.sendall(data)
print({OCTETS}, hashlib.sha256(data).hexdigest())
"""


@pytest.fixture
def lab(machine: Labctl) -> Iterator[Labctl]:
    yield machine
    machine("down", "--all")


def transfer(lab: Labctl, transform: str, receive: str, send: str) -> tuple[str, str, int]:
    """What the sink says, what the source says, and how many rekeys there were meanwhile."""
    (lab.folder / "topology.yml").write_text(TOPOLOGY.format(transform=transform))
    lab.up()
    before = group_of(lab, "ks1")["rekeys_sent"]
    sink = lab.start("exec", "h2", "--", "python3", "-c", receive)
    assert sink.stdout is not None
    assert sink.stdout.readline().strip() == "ready"
    sent = lab("exec", "h1", "--", "python3", "-c", send)
    answer, _ = sink.communicate(timeout=TIMEOUT)
    return answer, sent.stdout, group_of(lab, "ks1")["rekeys_sent"] - before


@pytest.mark.parametrize("transform", ["esp-gcm 128", "esp-aes 128 esp-sha-hmac"])
def test_datagrams_all_arrive_and_keep_the_order_of_their_flow(lab: Labctl, transform: str) -> None:
    answer, _, rekeys = transfer(lab, transform, RECEIVE_DATAGRAMS, SEND_DATAGRAMS)
    flows = json.loads(answer)
    assert flows == [list(range(DATAGRAMS // FLOWS))] * FLOWS
    assert rekeys > 5


def test_a_tcp_stream_arrives_octet_for_octet(lab: Labctl) -> None:
    answer, sent, _ = transfer(lab, "esp-gcm 256", RECEIVE_STREAM, SEND_STREAM)
    assert answer.split() == sent.split()
