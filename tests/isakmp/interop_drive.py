"""Run inside network and mount namespaces of its own: our endpoint against strongSwan's charon and against ike-scan.

`python interop_drive.py FOLDER` prints one JSON object. Two hosts are two network namespaces joined by a veth.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from isakmp_parties import Recorder

from labctl.configuration import DhGroup, IsakmpPolicy, PreSharedKey
from labctl.isakmp.datagram import Datagram, Endpoint
from labctl.isakmp.endpoint import IsakmpEndpoint
from labctl.isakmp.header import Doi
from labctl.kernel.namespaces import in_network_namespace, open_network_namespace

CHARON = Endpoint(IPv4Address("10.77.0.1"), 500)
OURS = Endpoint(IPv4Address("10.77.0.2"), 848)
SECRET = b"LabPsk1"

CONNECTION = f"""
conn lab
  keyexchange=ikev1
  authby=psk
  ike=aes256-sha256-modp2048!
  esp=aes128-sha1!
  left={CHARON.address}
  right={OURS.address}
  rightikeport={OURS.port}
  keyingtries=1
  auto=add
"""
SETTINGS = """
charon {
  load = random nonce openssl sha1 sha2 aes hmac gmp kdf pem pkcs1 stroke socket-default kernel-libipsec kernel-netlink
  filelog { stderr { default = 1 } }
}
"""


def sh(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def second_host() -> tuple[int, int]:
    """Another network namespace with our address: its descriptor, and the process that keeps it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.set_inheritable(writer, True)
        os.execvp("unshare", ["unshare", "-n", "sh", "-c", f"echo up >&{writer}; exec sleep 60"])
    os.close(writer)
    os.read(reader, 8)
    os.close(reader)
    sh("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1", "netns", str(child))
    sh("ip", "address", "add", f"{CHARON.address}/24", "dev", "veth0")
    for name in ("lo", "veth0"):
        sh("ip", "link", "set", name, "up")
    enter = ("nsenter", f"--net=/proc/{child}/ns/net")
    sh(*enter, "ip", "address", "add", f"{OURS.address}/24", "dev", "veth1")
    sh(*enter, "ip", "link", "set", "veth1", "up")
    return open_network_namespace(child), child


class Host:
    """Our endpoint on a real socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.seen = Recorder()
        self._sock = sock
        self.isakmp = IsakmpEndpoint(
            self.seen,
            policies=[IsakmpPolicy(), IsakmpPolicy(20, group=DhGroup.MODP1024, key_bits=128)],
            pre_shared_keys=[PreSharedKey(CHARON.address, SECRET)],
            random=os.urandom,
        )

    def serve(self, seconds: float, done: Callable[[], bool]) -> None:
        """Until `done` or the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not done():
            self._send()
            if select.select([self._sock], [], [], 0.1)[0]:
                data, (address, port) = self._sock.recvfrom(65_535)
                source = Endpoint(IPv4Address(address), port)
                self.isakmp.receive(Datagram(data, source, OURS), time.monotonic())
            self.isakmp.handle_timer(time.monotonic())
        self._send()

    def _send(self) -> None:
        for datagram in self.isakmp.datagrams_to_send():
            self._sock.sendto(datagram.data, (str(datagram.destination.address), datagram.destination.port))

    def result(self) -> dict[str, Any]:
        return {
            "established": [str(sa.peer_identity) for sa in self.seen.established],
            "doi": [int(sa.doi) for sa in self.seen.established],
            "exchanges": [received.header.exchange for _, received in self.seen.exchanges],
            "failures": [failure.reason for failure in self.seen.failures],
        }


def with_charon(folder: Path, sock: socket.socket) -> dict[str, Any]:
    files = {"ipsec.conf": CONNECTION, "strongswan.conf": SETTINGS}
    files["ipsec.secrets"] = f'{CHARON.address} {OURS.address} : PSK "{SECRET.decode()}"\n'
    for name, text in files.items():
        (folder / name).write_text(text)
        sh("mount", "--bind", str(folder / name), f"/etc/{name}")
    sh("mount", "-t", "tmpfs", "none", "/run")
    with (folder / "charon.log").open("w") as log:
        starter = subprocess.Popen(
            ["/usr/lib/ipsec/starter", "--daemon", "charon", "--nofork"], stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: b"lab" in subprocess.run(["ipsec", "statusall"], capture_output=True, check=False).stdout)
        responder = Host(sock)
        asking = subprocess.Popen(["ipsec", "up", "lab"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        responder.serve(10, lambda: bool(responder.seen.established and responder.seen.exchanges))
        asking.kill()
        asking.wait()
        initiator = Host(sock)
        initiator.isakmp.initiate(OURS, CHARON, time.monotonic(), doi=Doi.IPSEC)
        initiator.serve(10, lambda: bool(initiator.seen.established))
        return {"responder": responder.result(), "initiator": initiator.result()}
    finally:
        starter.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            starter.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(starter.pid, signal.SIGKILL)


def with_ike_scan(sock: socket.socket) -> dict[str, Any]:
    """ike-scan offers DOI 1, AES-128, SHA-256, pre-shared key, group 2."""
    host = Host(sock)
    transform = "--trans=(1=7,14=128,2=4,3=1,4=2)"
    scan = subprocess.Popen(
        ["ike-scan", "--retry=1", "--sport=0", f"--dport={OURS.port}", transform, str(OURS.address)],
        stdout=subprocess.PIPE,
        text=True,
    )
    host.serve(10, lambda: scan.poll() is not None)
    return {"output": scan.communicate()[0]}


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("charon did not come up")
        time.sleep(0.05)


def main(folder: Path) -> None:
    namespace, child = second_host()
    try:
        with in_network_namespace(namespace):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((str(OURS.address), OURS.port))
        print(json.dumps({"charon": with_charon(folder, sock), "ike-scan": with_ike_scan(sock)}))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
