"""The multicast router of a node: table, sockets and kernel on the event loop (docs/multicast.md).

The kernel asks about every new flow (an upcall); we look up the way to its source, answer with an entry, and forget it
when nothing has come for a while. Entries follow the table and the routes.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from labctl.configuration import Interface
from labctl.kernel.links import LinkState, list_links
from labctl.kernel.lookups import RouteWatch, Way, way_to
from labctl.kernel.netlink import RouteSocket
from labctl.node.multicast import igmp, pim
from labctl.node.multicast.kernel import (
    MAX_INTERFACES,
    Heard,
    LinkSocket,
    MulticastForwarding,
    Upcall,
    UpstreamMemberships,
)
from labctl.node.multicast.table import (
    HELLO_INTERVAL,
    HOLDTIME,
    LAST_MEMBER_INTERVAL,
    QUERY_INTERVAL,
    QUERY_RESPONSE,
    ROBUSTNESS,
    Flow,
    MulticastTable,
)

# A flow that brought nothing for so long is forgotten (RFC 7761 4.11, Keepalive_Timer); how often we look.
IDLE = 210.0
IDLE_CHECK = 60.0

# What senders can make a router remember. The kernel's own queue of unresolved flows is shorter.
MAX_FLOWS = 4096

# Packets taken at once before the rest of the node has its turn.
BATCH = 64

# The first queries of a router that starts follow each other this fast (RFC 3376 8.6).
STARTUP_QUERY_INTERVAL = QUERY_INTERVAL / 4

# Hellos follow each other at this distance, then at twice that and so on, after a link comes up: its other end may not
# listen yet.
FIRST_HELLO = 0.1

_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_LINK_SCOPED = (igmp.ALL_SYSTEMS, igmp.ALL_ROUTERS, igmp.ALL_V3_ROUTERS)


class MulticastFailure(Exception):
    """This node cannot route multicast: why."""


@dataclass(slots=True)
class _Port:
    """An interface that multicast is routed on. Moments are the loop's."""

    name: str
    index: int
    vif: int
    address: IPv4Address
    # New whenever we start on the link: neighbours that knew us before say again what we forgot (RFC 7761 4.3.1).
    generation: int = field(default_factory=lambda: random.SystemRandom().getrandbits(32))
    hello_at: float = 0.0
    query_at: float = 0.0
    hello_interval: float = FIRST_HELLO
    # Queries that still follow each other fast.
    startup: int = ROBUSTNESS - 1
    carries: bool = False


@dataclass(slots=True)
class _Flow:
    """An entry of the kernel: from one interface (None: dropped) to others."""

    way: Way | None
    arrived: int
    incoming: int
    outgoing: frozenset[int]
    packets: int = 0
    active: float = 0.0


@dataclass(slots=True)
class MulticastCounters:
    """Messages and flows since the start."""

    hellos_sent: int = 0
    hellos_heard: int = 0
    queries_sent: int = 0
    queries_heard: int = 0
    reports_heard: int = 0
    asserts_sent: int = 0
    asserts_heard: int = 0
    malformed: int = 0
    flows_made: int = 0
    flows_refused: int = 0
    wrong_interface: int = 0


@dataclass(slots=True)
class _Sockets:
    route: RouteSocket
    watch: RouteWatch
    forwarding: MulticastForwarding
    neighbours: LinkSocket
    memberships: UpstreamMemberships = field(default_factory=UpstreamMemberships)


class MulticastRouter:
    """Routes multicast between the IPv4 interfaces of a node. `core`: a provider's router, where every flow goes."""

    def __init__(self, interfaces: Iterable[Interface], *, core: bool) -> None:
        self.counters = MulticastCounters()
        self.table = MulticastTable(core=core)
        self._addresses = {
            item.name: address.ip
            for item in interfaces
            for address in [next((one for one in item.addresses if isinstance(one.ip, IPv4Address)), None)]
            if address is not None and isinstance(address.ip, IPv4Address)
        }
        self._ports: dict[str, _Port] = {}
        self._by_index: dict[int, _Port] = {}
        self._flows: dict[Flow, _Flow] = {}
        self._doubtful: list[tuple[float, str, IPv4Address]] = []
        self._idle_at = 0.0
        self._sockets: _Sockets | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._refreshing = False

    def start(self) -> None:
        """Take over the multicast routing of this network namespace. Raises MulticastFailure."""
        try:
            self._sockets = self._open()
        except OSError as error:
            missing = error.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL)
            why = "the kernel is built without it (CONFIG_IP_MROUTE)" if missing else error.strerror
            raise MulticastFailure(f"multicast routing does not start: {why}") from None
        loop = asyncio.get_running_loop()
        self._idle_at = loop.time() + IDLE_CHECK
        loop.add_reader(self._sockets.watch.fileno(), self._kernel_changed)
        loop.add_reader(self._sockets.forwarding.fileno(), self._membership_packets)
        loop.add_reader(self._sockets.neighbours.fileno(), self._neighbour_packets)
        self._scan()
        self._tick()

    def stop(self) -> None:
        """Say farewell and give multicast routing back. Fine if it never started."""
        sockets, self._sockets = self._sockets, None
        if self._timer is not None:
            self._timer.cancel()
        if sockets is None:
            return
        for port in self._ports.values():
            farewell = pim.hello(pim.Hello(0, port.generation, 255))
            sockets.neighbours.send(port.index, port.address, pim.ALL_PIM_ROUTERS, farewell)
        loop = asyncio.get_running_loop()
        for item in (sockets.watch, sockets.forwarding, sockets.neighbours):
            loop.remove_reader(item.fileno())
            item.close()
        sockets.memberships.close()
        sockets.route.close()

    def status(self) -> dict[str, Any]:
        """JSON: `level`, `neighbours`, `groups` with the interfaces that want each, `flows` as the kernel has them."""
        names = {port.vif: port.name for port in self._ports.values()}
        groups: dict[str, list[str]] = {}
        for link in self.table.links.values():
            for group in link.groups:
                groups.setdefault(str(group), []).append(link.name)
        return {
            "level": self.table.level,
            "neighbours": [
                {"interface": link.name, "address": str(address), "level": item.level}
                for link in self.table.links.values()
                for address, item in sorted(link.neighbours.items())
            ],
            "groups": {group: sorted(groups[group]) for group in sorted(groups)},
            "flows": [
                {
                    "source": str(source),
                    "group": str(group),
                    "incoming": names.get(flow.incoming),
                    "outgoing": sorted(names[vif] for vif in flow.outgoing if vif in names),
                    "packets": self._packets(source, group),
                }
                for (source, group), flow in self._flows.items()
            ],
        }

    def _packets(self, source: IPv4Address, group: IPv4Address) -> int:
        counts = None if self._sockets is None else self._sockets.forwarding.counts(source, group)
        return 0 if counts is None else counts.packets

    # Interfaces.

    def _open(self) -> _Sockets:
        forwarding = MulticastForwarding()
        try:
            neighbours = LinkSocket(pim.PROTOCOL)
            return _Sockets(RouteSocket(), RouteWatch(), forwarding, neighbours)
        except OSError:
            forwarding.close()
            raise

    def _scan(self) -> None:
        """Follow the interfaces that there are."""
        assert self._sockets is not None
        links = list_links(self._sockets.route)
        for name, address in self._addresses.items():
            link, port = links.get(name), self._ports.get(name)
            if port is not None and (link is None or link.index != port.index):
                self._remove(port)
            if link is not None:
                self._add(link, address)

    def _add(self, link: LinkState, address: IPv4Address) -> None:
        assert self._sockets is not None
        port = self._ports.get(link.name)
        if port is None:
            port = self._new_port(link, address)
        carries = link.flags & (_IFF_UP | _IFF_RUNNING) == _IFF_UP | _IFF_RUNNING
        if port is None or carries == port.carries:
            return
        port.carries = carries
        if carries:
            port.hello_at = port.query_at = asyncio.get_running_loop().time()
            port.hello_interval, port.startup = FIRST_HELLO, ROBUSTNESS - 1

    def _new_port(self, link: LinkState, address: IPv4Address) -> _Port | None:
        assert self._sockets is not None
        free = sorted(set(range(MAX_INTERFACES)) - {port.vif for port in self._ports.values()})
        if not free:
            return None
        try:
            self._sockets.forwarding.add_interface(free[0], link.index)
            self._sockets.forwarding.listen_to(link.index, *_LINK_SCOPED)
            self._sockets.neighbours.listen_to(link.index, pim.ALL_PIM_ROUTERS)
        except OSError:
            return None  # it went while we looked; its coming back wakes us
        port = _Port(link.name, link.index, free[0], address)
        self._ports[link.name] = self._by_index[link.index] = port
        self.table.add(link.name, address)
        return port

    def _remove(self, port: _Port) -> None:
        assert self._sockets is not None
        self._sockets.forwarding.remove_interface(port.vif)
        del self._ports[port.name], self._by_index[port.index]
        self.table.remove(port.name)
        # The kernel keeps entries whose interface is gone; the number may be another's next.
        for flow in [key for key, item in self._flows.items() if port.vif in (item.incoming, *item.outgoing)]:
            self._forget(flow)

    def _kernel_changed(self) -> None:
        assert self._sockets is not None
        self._sockets.watch.drain()
        self._scan()
        for (source, _), flow in self._flows.items():
            flow.way = way_to(self._sockets.route, source)
        self._changed()
        self._tick()

    # Time.

    def _tick(self) -> None:
        """Do what is due, and sleep until the next."""
        if self._sockets is None:
            return
        now = asyncio.get_running_loop().time()
        if self.table.expire(now):
            self._changed()
        for port in self._ports.values():
            if now >= port.hello_at:
                self._hello(port, now)
            if now >= port.query_at:
                self._query(port, now)
        due, self._doubtful = self._doubtful, []
        for item in due:
            if now < item[0]:
                self._doubtful.append(item)
            elif item[1] in self._ports:
                self._ask_for(self._ports[item[1]], item[2])
        if now >= self._idle_at:
            self._forget_idle(now)
        self._sleep()

    def _sleep(self) -> None:
        moments = [self._idle_at, *(item[0] for item in self._doubtful)]
        moments += [moment for port in self._ports.values() for moment in (port.hello_at, port.query_at)]
        if (expiry := self.table.next_expiry()) is not None:
            moments.append(expiry)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(min(moments), self._tick)

    def _hello(self, port: _Port, now: float) -> None:
        assert self._sockets is not None
        message = pim.hello(pim.Hello(HOLDTIME, port.generation, self.table.level))
        if self._sockets.neighbours.send(port.index, port.address, pim.ALL_PIM_ROUTERS, message):
            self.counters.hellos_sent += 1
        port.hello_at = now + port.hello_interval
        port.hello_interval = min(2 * port.hello_interval, HELLO_INTERVAL)

    def _query(self, port: _Port, now: float) -> None:
        assert self._sockets is not None
        port.query_at = now + QUERY_INTERVAL
        if not self.table.asks(port.name, now):
            port.startup = ROBUSTNESS - 1
            return
        message = igmp.query(None, QUERY_RESPONSE, QUERY_INTERVAL, ROBUSTNESS)
        if not self._sockets.forwarding.send(port.index, port.address, igmp.ALL_SYSTEMS, message):
            port.query_at = now + 1.0
            return
        self.counters.queries_sent += 1
        if port.startup:
            port.startup -= 1
            port.query_at = now + STARTUP_QUERY_INTERVAL

    def _ask_for(self, port: _Port, group: IPv4Address) -> None:
        assert self._sockets is not None
        message = igmp.query(group, LAST_MEMBER_INTERVAL, QUERY_INTERVAL, ROBUSTNESS)
        if self._sockets.forwarding.send(port.index, port.address, group, message):
            self.counters.queries_sent += 1

    # What is heard.

    def _neighbour_packets(self) -> None:
        assert self._sockets is not None
        for heard in self._sockets.neighbours.receive(BATCH):
            if isinstance(heard, Heard) and (port := self._port_of(heard)) is not None:
                self._heard_neighbour(port, heard)
        self._sleep()

    def _membership_packets(self) -> None:
        assert self._sockets is not None
        for heard in self._sockets.forwarding.receive(BATCH):
            if isinstance(heard, Upcall):
                self._asked(heard)
            elif (port := self._port_of(heard)) is not None:
                self._heard_membership(port, heard)
        self._sleep()

    def _port_of(self, heard: Heard) -> _Port | None:
        """The interface of a packet of its link; None for what came from further away, or from ourselves."""
        port = self._by_index.get(heard.interface)
        return None if port is None or heard.ttl != 1 or heard.source in self._addresses.values() else port

    def _heard_neighbour(self, port: _Port, heard: Heard) -> None:
        now = asyncio.get_running_loop().time()
        message = pim.parse(heard.body)
        if isinstance(message, pim.Hello):
            self.counters.hellos_heard += 1
            level = self.table.level
            changed, new = self.table.heard_hello(port.name, heard.source, message, now)
            if self.table.level != level:
                for other in self._ports.values():
                    self._hello(other, now)
            elif new:
                self._hello(port, now)
            if changed:
                self._changed()
        elif isinstance(message, pim.Assert):
            self.counters.asserts_heard += 1
            flow = self._flows.get((message.source, message.group))
            if flow is None or port.vif not in flow.outgoing:
                return
            changed, object_ = self.table.heard_assert(port.name, heard.source, message, _metric(flow.way), now)
            if changed:
                self._changed()
            if object_:
                self._assert(port, (message.source, message.group), flow)
        else:
            self.counters.malformed += 1

    def _heard_membership(self, port: _Port, heard: Heard) -> None:
        now = asyncio.get_running_loop().time()
        message = igmp.parse(heard.body)
        if message is None:
            self.counters.malformed += 1
        elif isinstance(message, igmp.Query):
            self.counters.queries_heard += 1
            self.table.heard_query(port.name, heard.source, message, now)
        else:
            self.counters.reports_heard += 1
            changed, doubtful = self.table.heard_memberships(port.name, heard.source, message, now)
            waiting = {(name, group) for _, name, group in self._doubtful}
            for group in doubtful:
                if (port.name, group) in waiting:
                    continue
                self._ask_for(port, group)
                self._doubtful.append((now + LAST_MEMBER_INTERVAL, port.name, group))
            if changed:
                self._changed()

    # Flows.

    def _asked(self, upcall: Upcall) -> None:
        assert self._sockets is not None
        flow = (upcall.source, upcall.group)
        known = self._flows.get(flow)
        if upcall.wrong:
            self.counters.wrong_interface += 1
            port = next((port for port in self._ports.values() if port.vif == upcall.vif), None)
            if known is not None and port is not None and port.vif in known.outgoing:
                self._assert(port, flow, known)
            return
        if known is None and len(self._flows) >= MAX_FLOWS:
            self.counters.flows_refused += 1
            return
        way = way_to(self._sockets.route, upcall.source)
        made = _Flow(way, upcall.vif, *self._path(flow, way, upcall.vif), active=asyncio.get_running_loop().time())
        self._flows[flow] = made
        self.counters.flows_made += 1
        self._set(flow, made)

    def _path(self, flow: Flow, way: Way | None, arrived: int) -> tuple[int, frozenset[int]]:
        """Where a flow comes in, by the way to its source, and where it goes. Nowhere, if we know no way."""
        if way is not None and way.local:
            port = next((port for port in self._ports.values() if port.vif == arrived), None)
        else:
            port = None if way is None else self._by_index.get(way.interface)
        if port is None:
            return arrived, frozenset()
        outgoing = self.table.outgoing(flow, port.name)
        return port.vif, frozenset(self._ports[name].vif for name in outgoing)

    def _set(self, key: Flow, flow: _Flow) -> None:
        assert self._sockets is not None
        try:
            self._sockets.forwarding.set_entry(*key, flow.incoming, flow.outgoing)
        except OSError:
            self._flows.pop(key, None)  # an interface is going; the next packet asks again

    def _forget(self, key: Flow) -> None:
        assert self._sockets is not None
        self._sockets.forwarding.remove_entry(*key)
        self._flows.pop(key, None)

    def _assert(self, port: _Port, key: Flow, flow: _Flow) -> None:
        assert self._sockets is not None
        message = pim.assertion(pim.Assert(*key, *_metric(flow.way)))
        if self._sockets.neighbours.send(port.index, port.address, pim.ALL_PIM_ROUTERS, message):
            self.counters.asserts_sent += 1

    def _forget_idle(self, now: float) -> None:
        assert self._sockets is not None
        self._idle_at = now + IDLE_CHECK
        for key, flow in list(self._flows.items()):
            counts = self._sockets.forwarding.counts(*key)
            packets = 0 if counts is None else counts.packets + counts.wrong
            if counts is not None and packets != flow.packets:
                flow.packets, flow.active = packets, now
            elif counts is None or now - flow.active >= IDLE:
                self._forget(key)

    def _changed(self) -> None:
        """Have flows and memberships follow the table: once, however much has changed until then."""
        if not self._refreshing:
            self._refreshing = True
            asyncio.get_running_loop().call_soon(self._refresh)

    def _refresh(self) -> None:
        self._refreshing = False
        if self._sockets is None:
            return
        for key, flow in list(self._flows.items()):
            incoming, outgoing = self._path(key, flow.way, flow.arrived)
            if (incoming, outgoing) != (flow.incoming, flow.outgoing):
                flow.incoming, flow.outgoing = incoming, outgoing
                self._set(key, flow)
        wanted = {(self._ports[name].index, group) for name, group in self.table.joins() if name in self._ports}
        self._sockets.memberships.become(wanted)


def _metric(way: Way | None) -> tuple[int, int]:
    """Preference and metric of our way to a source, for an Assert: less is better (RFC 7761 4.6.3)."""
    if way is None:
        return (1 << 31) - 1, (1 << 32) - 1
    return (0 if way.connected else 1), way.metric
