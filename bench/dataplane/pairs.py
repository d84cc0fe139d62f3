"""Pairs of gateways: ours, strongSwan's in user space, WireGuard's in user space, and the kernel alone."""

from __future__ import annotations

import shutil
import socket
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from labctl.measure.pairs import Pair, kernel, members
from labctl.measure.world import NETWORKS, OTHER, WIRE, World, sh, until

CHARON = Path("/usr/lib/ipsec/charon")
LIBIPSEC = Path("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so")
ROOM_FOR_ESP = 1400
WIREGUARD_PORT = 51820


class Missing(Exception):
    """What a pair needs is not here; the text names it."""


def strongswan(world: World) -> str:
    """Two charon with kernel-libipsec: ESP in UDP through a TUN device, AES-GCM-128."""
    if not CHARON.exists() or not LIBIPSEC.exists() or shutil.which("swanctl") is None:
        raise Missing("apt-get install strongswan-charon strongswan-swanctl libcharon-extra-plugins")
    world.join_gateways()
    world.address_gateways("wire", routes=False)
    for name, address in WIRE.items():
        other = OTHER[name]
        world.ip(name, f"route add {NETWORKS[other]}.0/24 via {WIRE[other]}")
        door = world.folder / f"{name}.vici"
        settings, connection = world.folder / f"{name}.conf", world.folder / f"{name}.swanctl"
        settings.write_text(_SETTINGS.format(door=door))
        connection.write_text(
            _CONNECTION.format(
                own=address,
                peer=WIRE[other],
                network=NETWORKS[name],
                network_of_peer=NETWORKS[other],
                name=name,
                other=other,
            )
        )
        world.start(
            name, "unshare", "--mount", "sh", "-c", f"mount -t tmpfs tmpfs /run && exec {CHARON}",
            agent=True, environment=[("STRONGSWAN_CONF", str(settings))],
        )  # fmt: skip
        until(door.exists, "strongSwan's door")
        sh("swanctl", "--load-all", "--file", str(connection), "--uri", f"unix://{door}")
    sh("swanctl", "--initiate", "--child", "net", "--uri", f"unix://{world.folder / 'one.vici'}")
    return "two strongSwan gateways"


def wireguard(world: World) -> str:
    """Two wireguard-go, set up through their sockets (wireguard.com/xplatform)."""
    if shutil.which("wireguard-go") is None:
        raise Missing("apt-get install wireguard-go")
    world.join_gateways()
    world.address_gateways("wire", routes=False)
    keys = {name: X25519PrivateKey.generate() for name in WIRE}
    for name in WIRE:
        other = OTHER[name]
        interface = f"wg-{name}"
        world.start(name, "wireguard-go", "-f", interface, agent=True, environment=[("LOG_LEVEL", "error")])
        door = Path(f"/run/wireguard/{interface}.sock")
        until(door.exists, "wireguard-go's door")
        request = (
            f"set=1\nprivate_key={keys[name].private_bytes_raw().hex()}\nlisten_port={WIREGUARD_PORT}\n"
            f"public_key={keys[other].public_key().public_bytes_raw().hex()}\n"
            f"endpoint={WIRE[other]}:{WIREGUARD_PORT}\nallowed_ip={NETWORKS[other]}.0/24\n\n"
        )
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(door))
            control.sendall(request.encode())
            answer = control.recv(4096)
        if b"errno=0" not in answer:
            raise RuntimeError(f"wireguard-go took no configuration: {answer.decode().strip()}")
        world.ip(name, f"link set {interface} up", f"route add {NETWORKS[other]}.0/24 dev {interface}")
    return "two wireguard-go"


def scapy(world: World) -> str:
    """Two programs around scapy's IPsec layer."""
    members(world, "esp-gcm 128", program="bench.dataplane.scapy_member", large=False)
    for name in WIRE:
        world.ip(name, f"link set wire mtu {ROOM_FOR_ESP}")
    return "two programs with scapy"


_SETTINGS = """
charon {{
  load = random nonce openssl kdf vici socket-default kernel-libipsec kernel-netlink
  plugins {{
    vici {{
      socket = unix://{door}
    }}
  }}
  filelog {{
    stderr {{
      default = 1
    }}
  }}
}}
"""

_CONNECTION = """
connections {{
  pair {{
    version = 2
    local_addrs = {own}
    remote_addrs = {peer}
    encap = yes
    proposals = aes128-sha256-ecp256
    local {{
      auth = psk
      id = {name}.bench
    }}
    remote {{
      auth = psk
      id = {other}.bench
    }}
    children {{
      net {{
        local_ts = {network}.0/24
        remote_ts = {network_of_peer}.0/24
        esp_proposals = aes128gcm128
        rekey_time = 0
      }}
    }}
  }}
}}
secrets {{
  ike-pair {{
    secret = "not a secret"
  }}
}}
"""

PAIRS: dict[str, Pair] = {
    "kernel": kernel,
    "labctl": partial(members, transform="esp-gcm 128"),
    "labctl aes-cbc": partial(members, transform="esp-aes 128 esp-sha-hmac"),
    "strongSwan libipsec": strongswan,
    "wireguard-go": wireguard,
    "scapy, for scale": scapy,
}
