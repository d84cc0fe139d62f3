"""An engine of containers in memory, with the parts of the client library's API that the runtime uses.

As Engine 20.10 does: a name is taken when a request to make a container begins, the container is listed when it ends.
"""

from __future__ import annotations

import threading
from typing import Any

from docker.errors import APIError, ImageNotFound, NotFound

LAB, NODE, STATE = "labctl.lab", "labctl.node", "labctl.state"


class EngineInMemory:
    """`hold` a name, and the request that makes its container goes no further until `release`."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, Any]] = {}
        self.names: set[str] = set()
        self.refusals: dict[str, Exception] = {}
        self.has_image = True
        self.began = threading.Semaphore(0)
        self._gates: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._count = 0

    def hold(self, name: str) -> None:
        self._gates[name] = threading.Event()

    def release(self, name: str) -> None:
        self._gates[name].set()

    def nodes(self) -> set[str]:
        return {item["Labels"][NODE] for item in self.made.values()}

    def containers(self, *, all: bool, filters: dict[str, str]) -> list[dict[str, Any]]:
        assert all, "stopped containers are containers"
        key, _, value = filters["label"].partition("=")
        return [item for item in self.made.values() if item["Labels"].get(key) == value]

    def create_container(self, image: str, command: Any = None, *, name: str, labels: dict[str, str], **_: Any) -> Any:
        if not self.has_image:
            raise ImageNotFound("404", explanation=f"No such image: {image}")
        if name in self.refusals:
            raise self.refusals[name]
        with self._lock:
            if name in self.names:
                raise APIError("409", explanation=f'Conflict. The container name "/{name}" is already in use')
            self.names.add(name)
            self._count += 1
            identity = f"{self._count:064x}"
        self.began.release()
        if name in self._gates:
            assert self._gates[name].wait(10)
        item = {"Id": identity, "Name": name, "Labels": labels, "Image": image}
        item["State"] = {"Running": False, "Pid": 0, "ExitCode": 0}
        self.made[identity] = item
        return {"Id": identity}

    def create_host_config(self, **settings: Any) -> dict[str, Any]:
        return settings

    def start(self, identity: str) -> None:
        self._find(identity)["State"] |= {"Running": True, "Pid": 1000 + int(identity, 16)}

    def inspect_container(self, identity: str) -> dict[str, Any]:
        return self._find(identity)

    def remove_container(self, identity: str, *, force: bool, v: bool) -> None:
        self.names.discard(self._find(identity)["Name"])
        del self.made[identity]

    def _find(self, identity: str) -> dict[str, Any]:
        if identity not in self.made:
            raise NotFound("404", explanation=f"No such container: {identity}")
        return self.made[identity]
