"""The containers of labs: what each may do, and how they are made, found and removed. Blocking: docker.py has threads.

Everything made carries the labels below; what is left of a lab is found by them, never by name patterns. No network,
volume or file is made, so containers are all there is to remove.

Facts: Docker Engine API 1.41; containers(7) capabilities(7). An engine reserves a container's name when a request to
make it begins, and lists the container when that request ends.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl.runtime.docker_client import Gone, engine_failures
from labctl.runtime.image import IMAGE
from labctl.runtime.protocol import LabPaths, RuntimeFailure
from labctl.topology.plan import PlannedNode

LAB_LABEL = "labctl.lab"
NODE_LABEL = "labctl.node"
# The lab's directory: two users, or two state folders, may have labs of one name on one engine.
STATE_LABEL = "labctl.state"

FABRIC = "_fabric"  # no node can have this name

NODE_CAPABILITIES = ["NET_ADMIN", "NET_RAW"]
FABRIC_CAPABILITIES = ["SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "NET_RAW"]

# Limits of one container: an agent needs a fraction; the rest is for what users start in it.
PIDS_LIMIT = 512
MEMORY_LIMIT = 512 * 1024 * 1024

# A read-only root needs room where programs expect it. The engine adds noexec.
_SMALL = "rw,nosuid,nodev,size=16m"
FABRIC_TMPFS = {"/run": f"{_SMALL},mode=755", "/tmp": "rw,nosuid,nodev,size=64m,mode=1777"}
NODE_TMPFS = FABRIC_TMPFS | {"/root": f"{_SMALL},mode=700", "/var/tmp": f"{_SMALL},mode=1777", "/var/log": _SMALL}

LAST_WORDS = 3

# How long a request of somebody who was killed may still run in the engine, and how often to look.
RESERVED_SECONDS = 60.0
RESERVED_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a lab."""

    identity: str
    node: str
    state_folder: str

    def __str__(self) -> str:
        return f"{self.node} ({self.identity[:12]})"

    @property
    def is_owned(self) -> bool:
        """True while the directory of the lab that made it exists on this machine."""
        return _exists(self.state_folder)


class Containers:
    """The containers of one engine."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def of(self, lab: LabPaths) -> list[Container]:
        """The lab's own, the fabric first. A lab without a directory owns what nobody else's directory stands for."""
        own, lost = _folder(lab), not _exists(_folder(lab))
        return [item for item in self.named(lab.name) if item.state_folder == own or (lost and not item.is_owned)]

    def named(self, lab: str) -> list[Container]:
        """All that carry the lab's name, whoever made them, the fabric first."""
        with engine_failures(f"look for containers of lab {lab}"):
            found = self._client.containers(all=True, filters={"label": f"{LAB_LABEL}={lab}"})
        made = [
            Container(item["Id"], item["Labels"].get(NODE_LABEL, ""), item["Labels"].get(STATE_LABEL, ""))
            for item in found
        ]
        return sorted(made, key=lambda item: (item.node != FABRIC, item.node))

    def refuse_foreign(self, lab: LabPaths) -> None:
        """Raises RuntimeFailure if another state folder has a lab of this name on the engine."""
        for item in self.named(lab.name):
            if item.state_folder == _folder(lab):
                continue
            remedy = f"'labctl down {lab.name}' removes it"
            if item.is_owned:
                remedy = f"LABCTL_STATE={Path(item.state_folder).parent.parent} labctl down {lab.name}"
            raise RuntimeFailure(
                f"this engine has a lab {lab.name} already, whose state is in {item.state_folder or 'no folder'}",
                f"give this one another name, or take that one down: {remedy}",
            )

    def fabric(self, lab: LabPaths) -> Container:
        """The fabric's container. Raises Gone."""
        for item in self.of(lab):
            if item.node == FABRIC:
                return item
        raise Gone(f"lab {lab.name} has no fabric container")

    def image_of(self, item: Container) -> str:
        """The identity of the image a container was made from."""
        with engine_failures(f"look at container {item}"):
            return str(self._client.inspect_container(item.identity)["Image"])

    def check_alive(self, lab: LabPaths, item: Container) -> None:
        """Raises RuntimeFailure with the container's last words if it has ended."""
        with engine_failures(f"look at {item.node} of lab {lab.name}"):
            state = self._client.inspect_container(item.identity)["State"]
        if not state["Running"]:
            raise self._ended(lab, item.node, item.identity, state)

    def start_fabric(self, lab: LabPaths, image: str) -> None:
        """Make and start the container of the lab's fabric."""
        self._start(lab, FABRIC, image, self._fabric_settings(lab.name))

    def start_node(self, lab: LabPaths, node: PlannedNode, image: str) -> int:
        """Make and start the container of a node; its pid as the engine's host numbers it."""
        return self._start(lab, node.name, image, self._node_settings(node))

    def remove(self, item: Container) -> None:
        """Remove a container, running or not; one that is gone, or going, is fine: look again afterwards."""
        try:
            with engine_failures(f"remove container {item}"):
                self._client.remove_container(item.identity, force=True, v=True)
        except Gone:
            return
        except RuntimeFailure as error:
            if "already in progress" not in error.message:
                raise

    def settle(self, lab: LabPaths, node: str) -> Container | None:
        """Wait for the end of a request for `node` whose sender was killed, and return what it made, if anything.

        While such a request runs its container is in no list, but its name is taken. So we take the name ourselves:
        who gets it knows that nothing is under way.
        """
        deadline = time.monotonic() + RESERVED_SECONDS
        while time.monotonic() < deadline:
            try:
                with engine_failures("reserve a name"):
                    made = self._client.create_container(
                        IMAGE, name=_name(lab.name, node), labels=_labels(lab, node), network_disabled=True
                    )
            except Gone:
                return None  # without an image nothing can have been made
            except RuntimeFailure as error:
                if "already in use" not in error.message:
                    raise
            else:
                return Container(made["Id"], node, _folder(lab))
            named = [item for item in self.named(lab.name) if item.node == node]
            if named:
                return next((item for item in named if item in self.of(lab)), None)
            time.sleep(RESERVED_POLL)
        raise RuntimeFailure(f"the engine is still busy with the container of {node}", "'labctl down' again")

    def _start(self, lab: LabPaths, node: str, image: str, settings: dict[str, Any]) -> int:
        with engine_failures(f"make the container of {node} in lab {lab.name}"):
            made = self._client.create_container(
                image,
                name=_name(lab.name, node),
                labels=_labels(lab, node),
                environment={"LABCTL_LAB": lab.name},
                **settings,
            )
            self._client.start(made["Id"])
            state = self._client.inspect_container(made["Id"])["State"]
        if not state["Running"]:
            raise self._ended(lab, node, made["Id"], state)
        return int(state["Pid"])

    def _ended(self, lab: LabPaths, node: str, identity: str, state: dict[str, Any]) -> RuntimeFailure:
        with engine_failures(f"read the log of {node} in lab {lab.name}"):
            words = self._client.logs(identity, tail=LAST_WORDS).decode(errors="replace").strip()
        why = "it ran out of memory" if state.get("OOMKilled") else words or state.get("Error") or "it said nothing"
        who = "fabric" if node == FABRIC else node
        return RuntimeFailure(f"the container of {who} in lab {lab.name} ended with status {state['ExitCode']}", why)

    def _node_settings(self, node: PlannedNode) -> dict[str, Any]:
        return {
            "hostname": node.name,
            "host_config": self._host_config(
                cap_add=NODE_CAPABILITIES,
                security_opt=["no-new-privileges"],
                tmpfs=NODE_TMPFS,
                sysctls={"net.ipv4.ip_forward": "1" if node.kind.forwards else "0"},
                extra_hosts=[
                    f"{name}:{address}"
                    for hosts in (node.configuration.hosts, node.configuration.hosts6)
                    for name, address in hosts.items()
                ],
            ),
        }

    def _fabric_settings(self, lab: str) -> dict[str, Any]:
        return {
            "hostname": "fabric",
            "command": ["python3", "-m", "labctl.fabric", "--lab", lab],
            "host_config": self._host_config(
                cap_add=FABRIC_CAPABILITIES,
                pid_mode="host",
                # It mounts a /proc of its own and enters namespaces: the engine's AppArmor profile forbids mounts even
                # with the capability, its seccomp filter allows what the capabilities do.
                security_opt=["apparmor=unconfined", "no-new-privileges"],
                tmpfs=FABRIC_TMPFS,
            ),
        }

    def _host_config(self, **settings: Any) -> Any:
        return self._client.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            read_only=True,
            pids_limit=PIDS_LIMIT,
            mem_limit=MEMORY_LIMIT,
            # A lab is private: the host's name servers could only time out. Nobody listens here, and says so at once.
            dns=["127.0.0.1"],
            dns_search=["."],
            log_config={"type": "json-file", "config": {"max-size": "1m", "max-file": "1"}},
            **settings,
        )


def _name(lab: str, node: str) -> str:
    return f"labctl-{lab}-{'fabric' if node == FABRIC else node}"


def _labels(lab: LabPaths, node: str) -> dict[str, str]:
    return {LAB_LABEL: lab.name, NODE_LABEL: node, STATE_LABEL: _folder(lab)}


def _folder(lab: LabPaths) -> str:
    return str(lab.path.absolute())


def _exists(folder: str) -> bool:
    """Whether there is such a directory; one that we may not look at is somebody's."""
    try:
        return bool(folder) and Path(folder).exists()
    except PermissionError:
        return True
