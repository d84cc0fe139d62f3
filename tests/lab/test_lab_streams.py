"""Streams between hosts of a real lab while its keys turn over: every octet arrives, once and in order."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
from lab_command import TIMEOUT, Labctl, finish
from lab_group import group_of, until

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
DATAGRAMS, FLOWS, PAUSE_EVERY, PAUSE = 8_000, 4, 20, 0.02
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


def start(lab: Labctl, transform: str) -> None:
    (lab.folder / "topology.yml").write_text(TOPOLOGY.format(transform=transform))
    lab.up()


def transfer(lab: Labctl, receive: str, send: str) -> tuple[str, str]:
    """What the sink says, and what the source says."""
    sink = lab.start("exec", "h2", "--", "python3", "-c", receive)
    assert sink.stdout is not None
    assert sink.stdout.readline().strip() == "ready"
    sent = lab("exec", "h1", "--", "python3", "-c", send)
    answer, _ = sink.communicate(timeout=TIMEOUT)
    return answer, sent.stdout


@pytest.mark.parametrize("transform", ["esp-gcm 128", "esp-aes 128 esp-sha-hmac"])
def test_datagrams_all_arrive_and_keep_the_order_of_their_flow(lab: Labctl, transform: str) -> None:
    start(lab, transform)
    before = group_of(lab, "ks1")["rekeys_sent"]
    answer, _ = transfer(lab, RECEIVE_DATAGRAMS, SEND_DATAGRAMS)
    flows = json.loads(answer)
    assert flows == [list(range(DATAGRAMS // FLOWS))] * FLOWS
    assert group_of(lab, "ks1")["rekeys_sent"] - before > 5


def test_a_tcp_stream_arrives_octet_for_octet_and_a_capture_shows_packets(lab: Labctl) -> None:
    from scapy.layers.inet import TCP
    from scapy.utils import PcapNgReader

    start(lab, "esp-gcm 256")
    # Where a member's kernel and its agent hand each other many packets as one.
    file = lab.folder / "inside.pcapng"
    capture = lab.start("capture", "ce2:eth0", "--side", "inside", "-w", str(file))
    until(lambda: file.exists() and file.stat().st_size > 0, "the capture listens")
    answer, sent = transfer(lab, RECEIVE_STREAM, SEND_STREAM)
    finish(capture, signal.SIGINT)
    assert answer.split() == sent.split()
    with PcapNgReader(str(file)) as reader:
        frames = [frame for frame in reader if TCP in frame and frame[TCP].dport == PORT]
    assert sum(len(frame[TCP].payload) for frame in frames) > OCTETS / 2  # not all: a busy machine drops some
    assert max(map(len, frames)) <= 1514
    for frame in frames[:: len(frames) // 100]:
        again = frame.copy()
        del again[TCP].chksum
        assert bytes(again) == bytes(frame)
