"""The agent: serves the door, boots from a node configuration, plays its roles (docs/internals.md, The agent)."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from labctl.configuration import (
    ConfigurationError,
    NodeConfiguration,
    NodeKind,
    RsaKeyPair,
    Trustpoint,
    changes_live,
    from_json,
)
from labctl.door import Call, Connection, DoorClosed, DoorError
from labctl.kernel.mss import mss_ruleset
from labctl.kernel.ruleset import RulesetFailure, load_ruleset, ruleset
from labctl.node.arguments import bad_argument
from labctl.node.capture import capture
from labctl.node.children import Children
from labctl.node.clock import Clock
from labctl.node.execute import execute
from labctl.node.key_listeners import KeyListeners
from labctl.node.links import read_counters, read_links
from labctl.node.log import log_event
from labctl.node.outbox import Outbox
from labctl.node.probe import Probes, respond

if TYPE_CHECKING:
    from labctl.node.multicast.router import MulticastRouter
    from labctl.node.roles.play import Roles

T = TypeVar("T")

Operation = Callable[[Call], Awaitable[dict[str, Any]]]

# Imported only by nodes with a part in a group: it brings the ciphers.
ROLES = "labctl.node.roles.play"
# Imported only by routers of labs with multicast.
MULTICAST = "labctl.node.multicast.router"

ADJUSTING = "adjustment of TCP's segment size"

# Events that wait for the fabric while it is away.
MAX_UNHEARD = 1000


class Agent:
    """One node. Every connection gets every event; what nobody heard is kept for the next that comes."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.children = Children()
        self._outboxes: dict[Connection, Outbox] = {}
        self._unheard: deque[dict[str, Any]] = deque(maxlen=MAX_UNHEARD)
        self._configuration: NodeConfiguration | None = None
        self._roles: Roles | None = None
        self._multicast: MulticastRouter | None = None
        self._started = False
        self._failure = ""
        self._keys = KeyListeners()
        self._told: tuple[str, str, list[dict[str, Any]]] = ("booting", "", [])
        self._since = time.time()
        self._operations: dict[str, Operation] = {
            "boot": self._boot,
            "configure": self._configure,
            "status": self._status,
            "exec": lambda call: execute(call, self.children),
            "capture": lambda call: capture(call, self._configuration),
            "probe": Probes().probe,
            "respond": respond,
            "counters": self._counters,
            "gdoi": self._gdoi,
            "trustpoints": self._trustpoints,
            "rsa-keys": self._rsa_keys,
            "isakmp": self._isakmp,
            "keylog": self._keylog,
            "shutdown": self._shutdown,
        }

    async def attend(self, sock: socket.socket) -> None:
        """Serve one connection until it ends."""
        connection = await Connection.over(sock, handler=self.serve, hello={"agent": os.getpid()})
        self._outboxes[connection] = outbox = Outbox(connection)
        while self._unheard:
            outbox.put(self._unheard.popleft())
        try:
            await connection.wait_closed()
        finally:
            del self._outboxes[connection]
            outbox.close()

    async def serve(self, call: Call) -> dict[str, Any]:
        """The handler of every request. Raises DoorError."""
        operation = self._operations.get(call.op)
        if operation is None:
            raise DoorError(
                "unknown-op", f"an agent has no operation {call.op!r}", f"it has {', '.join(self._operations)}"
            )
        try:
            return await operation(call)
        except DoorError:
            raise
        except OSError as error:
            raise DoorError("system", f"{call.op}: {error.strerror or error}") from None
        except Exception as error:
            # A bug of ours. The requester must not wait for ever, and the node's log has the traceback.
            traceback.print_exc()
            raise DoorError(
                "internal", f"{call.op}: {type(error).__name__}: {error}", "this is a bug; the node's log says more"
            ) from error

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event to whoever listens."""
        if not self._outboxes:
            self._unheard.append(event)
        for outbox in self._outboxes.values():
            outbox.put(event)

    async def close(self) -> None:
        """Leave the groups, end every command, and say what there is to say."""
        await self._stop_roles()
        self.children.kill_all()
        for outbox in list(self._outboxes.values()):
            await outbox.flush()
        for connection in list(self._outboxes):
            await connection.close()

    async def _boot(self, call: Call) -> dict[str, Any]:
        configuration = _configuration_of(call)
        if self._configuration is not None:
            # A fabric that came back; certificates may have been replaced since.
            if replace(configuration, trustpoints=self._configuration.trustpoints) == self._configuration:
                return {}
            raise DoorError("already-booted", f"the node runs as {self._configuration.name} already", "remove it first")
        self._configuration = configuration
        await self._start_roles(configuration)
        return {}

    async def _configure(self, call: Call) -> dict[str, Any]:
        """Another configuration while the node runs, as far as it can take one (configuration/live.py)."""
        configuration = _configuration_of(call)
        if self._configuration is None or not changes_live(self._configuration, configuration):
            raise DoorError(
                "needs-boot", "this configuration counts from a node's start on", "remove it, start it anew"
            )
        try:
            if configuration.adjust_mss != self._configuration.adjust_mss:
                self._adjust_mss(configuration)
            if self._roles is not None and configuration.trustpoints != self._configuration.trustpoints:
                self._roles.set_trustpoints(configuration.trustpoints)
            groups = [] if self._roles is None else self._roles.reconfigure(configuration)
        except (ValueError, RulesetFailure) as error:
            raise DoorError("bad-configuration", str(error)) from None
        self._configuration = configuration
        self._changed()
        return {"groups": groups}

    async def _start_roles(self, configuration: NodeConfiguration) -> None:
        self._changed()
        try:
            load_ruleset(ruleset(configuration))
        except RulesetFailure as error:
            # Without it packets would leave as they must not.
            self._failure = str(error)
            self._started = True
            self._changed()
            return
        if configuration.multicast_routing:
            self._start_multicast(configuration)
        crypto_map = any(interface.crypto_map for interface in configuration.interfaces)
        if configuration.key_server_groups or configuration.memberships or crypto_map:
            play = importlib.import_module(ROLES)
            clock = Clock(configuration.clock_scale, configuration.started)
            roles: Roles = play.Roles(configuration, clock, self.tell, self._changed, self._keys)
            try:
                await roles.start()
            except play.RoleFailure as error:
                # The agent lives on, so that one can look at the node.
                await roles.stop()
                self._failure = str(error)
            else:
                self._roles = roles
        try:
            if configuration.adjust_mss and not self._failure:
                self._adjust_mss(configuration)
        except RulesetFailure as error:
            self._failure = str(error)
        self._started = True
        self._changed()

    def _adjust_mss(self, configuration: NodeConfiguration) -> None:
        """By the kernel, or else by the crypto maps, for what passes them. Raises RulesetFailure without any."""
        own = None
        try:
            load_ruleset(mss_ruleset(configuration.adjust_mss), ADJUSTING)
        except RulesetFailure as error:
            if self._roles is None or not configuration.memberships:
                raise
            own = min((item.size for item in configuration.adjust_mss), default=None)
            if own is not None:
                self.tell(log_event("LABCTL", 4, "ADJUST_MSS", f"{error}; the crypto map does it for what passes it"))
        if self._roles is not None:
            self._roles.adjust_mss(own)

    def _start_multicast(self, configuration: NodeConfiguration) -> None:
        routing = importlib.import_module(MULTICAST)
        core = configuration.kind in (NodeKind.PE, NodeKind.P)
        router: MulticastRouter = routing.MulticastRouter(configuration.interfaces, core=core)
        try:
            router.start()
        except routing.MulticastFailure as error:
            # Rekeys do not arrive then; members register again before their keys end, as in any network without it.
            self.tell(log_event("LABCTL", 3, "MULTICAST", str(error)))
        else:
            self._multicast = router

    async def _stop_roles(self) -> None:
        router, self._multicast = self._multicast, None
        if router is not None:
            router.stop()
        roles, self._roles = self._roles, None
        if roles is not None:
            await roles.stop()

    def _state(self) -> tuple[str, str, list[dict[str, Any]]]:
        """State, reason, groups."""
        groups = [] if self._roles is None else self._roles.groups()
        if self._failure:
            return "failed", self._failure, groups
        if self._configuration is None:
            return "booting", "it has no configuration yet", groups
        if not self._started:
            return "booting", "its roles start", groups
        unready = "" if self._roles is None else self._roles.unready()
        return ("booting" if unready else "ready"), unready, groups

    def _changed(self) -> None:
        """Tell the state, if it is another than was told last."""
        current = self._state()
        if current == self._told:
            return
        state, reason, groups = current
        now = time.time()
        if state != self._told[0]:
            self._since = now
        self._told = current
        self.tell({"type": "state", "time": now, "state": state, "reason": reason, "groups": groups})

    async def _status(self, call: Call) -> dict[str, Any]:
        state, reason, groups = self._state()
        configuration = self._configuration
        links = read_links()
        interfaces = [] if configuration is None else configuration.interfaces
        multicast = {} if self._multicast is None else {"multicast": self._multicast.status()}
        return {
            "name": "" if configuration is None else configuration.name,
            "kind": "" if configuration is None else configuration.kind.value,
            "state": state,
            "reason": reason,
            "since": self._since,
            "groups": groups if self._roles is None else self._roles.status(),
            "interfaces": [
                {
                    "name": interface.name,
                    "addresses": [str(address) for address in interface.addresses],
                    "crypto_map": interface.crypto_map,
                    **links.get(interface.name, {"mac": interface.mac, "mtu": interface.mtu, "up": False}),
                }
                for interface in interfaces
            ],
            **multicast,
        }

    async def _counters(self, call: Call) -> dict[str, Any]:
        interfaces = {name: asdict(counters) for name, counters in read_counters().items()}
        roles = {"crypto": {}, "gdoi_port": {}} if self._roles is None else self._roles.counters()
        multicast = {} if self._multicast is None else {"multicast": asdict(self._multicast.counters)}
        return {"interfaces": interfaces, **roles, **multicast}

    async def _gdoi(self, call: Call) -> dict[str, Any]:
        """An order to the node's key server or memberships: `action`, `group` (all if it is left out), and its own."""
        action, group = call.args.get("action"), call.args.get("group")
        if not isinstance(action, str) or not (group is None or isinstance(group, str)):
            raise DoorError("bad-request", "gdoi: action is a text, group a text or left out")
        if self._roles is None:
            raise DoorError("not-served", "this node is in no group", "key servers and group members are")
        try:
            return {"groups": self._roles.order(action, group, call.args)}
        except LookupError as error:
            raise DoorError("not-served", *error.args) from None
        except (KeyError, ValueError) as error:
            raise DoorError("bad-request", f"gdoi {action}: {error}") from None

    async def _trustpoints(self, call: Call) -> dict[str, Any]:
        """Replace certificates, CAs and CRLs while the roles run: all of the node's, as its configuration has them."""
        trustpoints = _all_of(Trustpoint, call, "trustpoints")
        if self._roles is None or self._configuration is None:
            raise DoorError("not-served", "this node is in no group", "key servers and group members are")
        try:
            self._roles.set_trustpoints(trustpoints)
        except ValueError as error:
            raise bad_argument("trustpoints", "trustpoints", str(error)) from None
        self._configuration = replace(self._configuration, trustpoints=trustpoints)
        return {}

    async def _rsa_keys(self, call: Call) -> dict[str, Any]:
        """Replace the key server's labelled pairs while it runs: all of the node's, as its configuration has them."""
        pairs = _all_of(RsaKeyPair, call, "rsa_keys")
        try:
            served = self._roles is not None and self._roles.set_rsa_keys(pairs)
        except ValueError as error:
            raise bad_argument("rsa-keys", "rsa_keys", str(error)) from None
        if not served or self._configuration is None:
            raise DoorError("not-served", "this node is no key server", "key servers sign rekeys")
        self._configuration = replace(self._configuration, rsa_keys=pairs)
        return {}

    async def _isakmp(self, call: Call) -> dict[str, Any]:
        """Phase 1 of the node: its SAs and exchanges under way, and what its parties have counted."""
        if self._roles is None:
            raise DoorError("not-served", "this node is in no group", "key servers and group members are")
        return self._roles.isakmp()

    async def _keylog(self, call: Call) -> dict[str, Any]:
        """The keys that the node holds, and those that come, while the requester listens."""
        return await self._keys.serve(call, [] if self._roles is None else self._roles.held_keys())

    async def _shutdown(self, call: Call) -> dict[str, Any]:
        await self._stop_roles()
        # Whoever waits for it runs after this answer has been written.
        self.stopped.set()
        return {}


def _configuration_of(call: Call) -> NodeConfiguration:
    """The argument `configuration`. Raises DoorError."""
    try:
        configuration = from_json(NodeConfiguration, call.args.get("configuration"))
    except ConfigurationError as error:
        raise DoorError("bad-configuration", f"the node's configuration does not fit: {error}") from None
    if not configuration.clock_scale > 0:
        raise DoorError("bad-configuration", "the node's configuration does not fit: $.clock_scale: not above 0")
    return configuration


def _all_of(cls: type[T], call: Call, name: str) -> tuple[T, ...]:
    """The list that is the only argument of a call. Raises DoorError."""
    given = call.args.get(name)
    if not isinstance(given, list) or set(call.args) != {name}:
        raise bad_argument(call.op, name, f"expected a list of {name}, and nothing else")
    try:
        return tuple(from_json(cls, item, f"{name}[{index}]") for index, item in enumerate(given))
    except ConfigurationError as error:
        raise bad_argument(call.op, error.path, error.problem) from None


def preload() -> None:
    """Import what a node may need, so that forks of this process share it."""
    importlib.import_module(ROLES)
    importlib.import_module(MULTICAST)


def run(sock: socket.socket) -> None:
    """Be the agent on one connected socket until it closes: the entry of a node of a namespaces lab."""
    asyncio.run(_attend_one(sock))


async def _attend_one(sock: socket.socket) -> None:
    agent = Agent()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, agent.stopped.set)
    attending = asyncio.create_task(agent.attend(sock))
    stopped = asyncio.create_task(agent.stopped.wait())
    await asyncio.wait({attending, stopped}, return_when=asyncio.FIRST_COMPLETED)
    await agent.close()
    with contextlib.suppress(DoorClosed):
        await attending
    stopped.cancel()


if sys.platform != "linux":  # pragma: no cover
    raise ImportError("agents run on Linux only")
