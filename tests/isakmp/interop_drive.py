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
from collections.abc import Callable, Sequence
from dataclasses import asdict
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from isakmp_parties import Recorder
from pki_material import DAY, Authority, Issued, trustpoint

from labctl.configuration import (
    Authentication,
    DhGroup,
    IsakmpPolicy,
    IsakmpSettings,
    Keepalive,
    PreSharedKey,
    Trustpoint,
)
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
  dpdaction=clear
  dpddelay=1s
  dpdtimeout=20s
  auto=add
"""
# One more for each kind of key: charon calls itself by its domain name with RSA, by its subject with ECDSA.
SIGNING = """
conn {kind}
  keyexchange=ikev1
  authby={authby}
  ike=aes256-sha256-modp2048!
  esp=aes128-sha1!
  left={left}
  leftcert={kind}.pem
  leftid="{own}"
  leftsendcert=always
  right={right}
  rightid="{peer}"
  rightikeport={port}
  keyingtries=1
  auto=add
"""
# The kind of key: our method, charon's name for it, its identity, ours.
KINDS = {
    "rsa": (Authentication.RSA_SIG, "rsasig", "charon.lab.example", "ce1.lab.example"),
    "256": (Authentication.ECDSA_SIG, "ecdsasig", "O=lab, CN=charon-256", "O=lab, CN=ce1-256"),
    # SHA-256 is negotiated, and SHA-384 belongs to the curve.
    "384": (Authentication.ECDSA_SIG, "ecdsasig", "O=lab, CN=charon-384", "O=lab, CN=ce1-384"),
}
PLUGINS = (
    "random nonce openssl sha1 sha2 aes hmac gmp kdf pem pkcs1 pkcs8 x509 revocation constraints pubkey stroke "
    "socket-default kernel-libipsec kernel-netlink"
)
SETTINGS = f"""
charon {{
  load = {PLUGINS}
  filelog {{ stderr {{ default = 1

 }} }}
}}
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

    def __init__(
        self,
        sock: socket.socket,
        policies: Sequence[IsakmpPolicy] = (IsakmpPolicy(), IsakmpPolicy(20, group=DhGroup.MODP1024, key_bits=128)),
        trustpoints: Sequence[Trustpoint] = (),
        settings: IsakmpSettings | None = None,
    ) -> None:
        self.seen = Recorder()
        self._sock = sock
        self.isakmp = IsakmpEndpoint(
            self.seen,
            policies=policies,
            pre_shared_keys=[PreSharedKey(CHARON.address, SECRET)],
            trustpoints=trustpoints,
            started=time.time() - time.monotonic(),
            random=os.urandom,
            settings=settings,
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
            "proven": [sa.proven_identity for sa in self.seen.established],
            "doi": [int(sa.doi) for sa in self.seen.established],
            "exchanges": [received.header.exchange for _, received in self.seen.exchanges],
            "failures": [failure.reason for failure in self.seen.failures],
            "deleted": [reason for _, reason in self.seen.deleted],
            "counts": asdict(self.isakmp.counts),
        }


def pem(issued: Issued, folder: Path, kind: str) -> str:
    """Give charon a certificate and its key; returns the line of its secrets."""
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "private" / f"{kind}.pem").write_bytes(issued.key.private_bytes(*form))
    (folder / "certs" / f"{kind}.pem").write_bytes(issued.certificate.public_bytes(form[0]))
    return f": {'RSA' if kind == 'rsa' else 'ECDSA'} {kind}.pem\n"


def make_certificates(folder: Path) -> tuple[str, dict[str, Trustpoint]]:
    """charon's certificates and keys, on disk, with the lines of its secrets; and ours, below a CA between."""
    for name in ("cacerts", "certs", "private", "crls", "acerts", "aacerts", "ocspcerts"):
        (folder / name).mkdir(parents=True)
    # charon knows no lab's clock: these are valid from 2020 on.
    long_ago = {"begins": -3650 * DAY}
    root = Authority(**long_ago)  # type: ignore[arg-type]  # times
    region = Authority("CN=REGION-CA,O=lab", number=2, parent=root, **long_ago)  # type: ignore[arg-type]  # as above
    (folder / "cacerts" / "ca.pem").write_bytes(root.certificate.public_bytes(serialization.Encoding.PEM))
    crls = [item.crl(updated=-3650 * DAY) for item in (root, region)]
    for number, crl in enumerate(crls):
        (folder / "crls" / f"{number}.crl").write_bytes(crl)
    lines, ours = "", {}
    for number, kind in enumerate(KINDS):
        other = {"kind": kind, "number": number, **long_ago}
        # charon finds its key by its identity, so no two certificates share one.
        fqdns = ("charon.lab.example",) if kind == "rsa" else ()
        theirs = root.issue(f"CN=charon-{kind},O=lab", fqdns=fqdns, **other)  # type: ignore[arg-type]  # as above
        lines += pem(theirs, folder, kind)
        own = region.issue(f"CN=ce1-{kind},O=lab", fqdns=("ce1.lab.example",), **other)  # type: ignore[arg-type]  # as above
        ours[kind] = trustpoint(root, own, crls=crls, fqdn="ce1.lab.example" if kind == "rsa" else None)
    return lines, ours


def connections() -> str:
    """charon's configuration."""
    return CONNECTION + "".join(
        SIGNING.format(
            kind=kind,
            authby=authby,
            left=CHARON.address,
            own=own,
            right=OURS.address,
            peer=peer,
            port=OURS.port,
        )
        for kind, (_, authby, own, peer) in KINDS.items()
    )


def both_ways(name: str, responder: Host, initiator: Host) -> dict[str, Any]:
    """charon begins, then we do."""
    asking = subprocess.Popen(["ipsec", "up", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    responder.serve(10, lambda: bool(responder.seen.established and responder.seen.exchanges))
    asking.kill()
    asking.wait()
    initiator.isakmp.initiate(OURS, CHARON, time.monotonic(), doi=Doi.IPSEC)
    initiator.serve(10, lambda: bool(initiator.seen.established))
    # What charon still holds must not answer for the next.
    subprocess.run(["ipsec", "down", f"{name}{{*}}"], capture_output=True, check=False)
    subprocess.run(["ipsec", "down", f"{name}[*]"], capture_output=True, check=False)
    return {"responder": responder.result(), "initiator": initiator.result()}


def life(sock: socket.socket, log: Path) -> dict[str, Any]:
    """charon begins and leaves; then we begin, each asks whether the other lives, and we leave."""
    responder = Host(sock)
    asking = subprocess.Popen(["ipsec", "up", "lab"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    responder.serve(10, lambda: bool(responder.seen.established and responder.seen.exchanges))
    asking.kill()
    asking.wait()
    leaving = subprocess.Popen(["ipsec", "down", "lab"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    responder.serve(10, lambda: bool(responder.seen.deleted))
    leaving.kill()
    leaving.wait()
    initiator = Host(sock, settings=IsakmpSettings(keepalive=Keepalive(1, 1, periodic=True)))
    initiator.isakmp.initiate(OURS, CHARON, time.monotonic(), doi=Doi.IPSEC)
    counts = initiator.isakmp.counts
    initiator.serve(10, lambda: min(counts.keepalives_sent, counts.keepalives_answered) >= 2)
    initiator.serve(0.5, lambda: False)
    for sa in initiator.isakmp.associations:
        initiator.isakmp.delete(sa, time.monotonic(), "the test is over")
    initiator.serve(1, lambda: b"received DELETE for IKE_SA" in log.read_bytes())
    return {"responder": responder.result(), "initiator": initiator.result()}


def with_charon(folder: Path, sock: socket.socket) -> dict[str, Any]:
    lines, ours = make_certificates(folder / "ipsec.d")
    files = {"ipsec.conf": connections(), "strongswan.conf": SETTINGS}
    files["ipsec.secrets"] = f'{CHARON.address} {OURS.address} : PSK "{SECRET.decode()}"\n{lines}'
    for name, text in files.items():
        (folder / name).write_text(text)
        sh("mount", "--bind", str(folder / name), f"/etc/{name}")
    sh("mount", "--bind", str(folder / "ipsec.d"), "/etc/ipsec.d")
    sh("mount", "-t", "tmpfs", "none", "/run")
    with (folder / "charon.log").open("w") as log:
        starter = subprocess.Popen(
            ["/usr/lib/ipsec/starter", "--daemon", "charon", "--nofork"], stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: b"lab" in subprocess.run(["ipsec", "statusall"], capture_output=True, check=False).stdout)
        results = {"psk": both_ways("lab", Host(sock), Host(sock)), "life": life(sock, folder / "charon.log")}
        for kind, (method, *_) in KINDS.items():
            policies = [IsakmpPolicy(authentication=method)]
            hosts = [Host(sock, policies, [ours[kind]]) for _ in range(2)]
            results[kind] = both_ways(kind, *hosts)
        return results
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
