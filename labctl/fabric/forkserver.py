"""Imports the agent once and forks one agent a node, so that nodes share memory and start in milliseconds.

It is a process of its own, beside the supervisor, for three reasons: it stays single-threaded and without an event
loop, so that forking is safe; its children carry nothing of the supervisor; both import their halves at the same time.

The supervisor asks over a SOCK_SEQPACKET pair, one JSON request a datagram with the agent's socket attached:

    {"name", "hosts", "hosts6", "log", "modules"} + descriptor -> {"name", "pid"}, later {"pid", "exited": wait status}

`modules` are what this node needs beside the agent: imported here by the first that does, and shared by all.

The new node says on its agent's socket, before the agent does, that it stands: one JSON line `{}` with a descriptor of
its network namespace attached, or `{"error": text}`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from labctl.fabric import container
from labctl.kernel.namespaces import close_all_but, open_network_namespace
from labctl.kernel.signals import forget_inherited_signals

RunAgent = Callable[[socket.socket], None]

REQUEST_OCTETS = 1 << 18


def serve(requests: socket.socket, agent: str) -> None:
    """Fork nodes until the other end of `requests` closes. `agent` is `module:function`, given a connected socket."""
    wakeup, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    module, _, function = agent.partition(":")
    loaded = importlib.import_module(module)
    run: RunAgent = getattr(loaded, function)
    # What key servers and members need beside it: imported here once, it is shared; imported by each, it is not.
    preload: Callable[[], None] | None = getattr(loaded, "preload", None)
    if preload is not None:
        preload()
    # What exists now is shared by all nodes: collecting it in each would copy it.
    gc.collect()
    gc.freeze()
    while True:
        readable, _, _ = select.select([requests.fileno(), wakeup], [], [])
        if wakeup in readable:
            os.read(wakeup, 4096)
            _report_exits(requests)
        if requests.fileno() in readable:
            data, descriptors, _, _ = socket.recv_fds(requests, REQUEST_OCTETS, 1)
            if not data:
                return
            request = json.loads(data)
            if missing := [name for name in request["modules"] if name not in sys.modules]:
                for name in missing:
                    importlib.import_module(name)
                gc.collect()
                gc.freeze()
            pid = _fork(request, descriptors[0], run)
            os.close(descriptors[0])
            requests.send(json.dumps({"name": request["name"], "pid": pid}).encode())


def _report_exits(requests: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        requests.send(json.dumps({"pid": pid, "exited": status}).encode())


def _fork(request: dict[str, object], descriptor: int, run: RunAgent) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _become_node(request, descriptor, run)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # never back into the fork server's loop


def _become_node(request: dict[str, object], descriptor: int, run: RunAgent) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    forget_inherited_signals()
    name, hosts, hosts6 = str(request["name"]), request["hosts"], request["hosts6"]
    assert isinstance(hosts, dict) and isinstance(hosts6, dict)
    os.setsid()
    os.umask(0o022)
    log = os.open(str(request["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    close_all_but(0, 1, 2, descriptor)
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    try:
        container.enter(name, hosts, hosts6)
    except OSError as error:
        with suppress(OSError):
            sock.send(json.dumps({"error": str(error)}).encode() + b"\n")
        raise
    namespace = open_network_namespace()
    socket.send_fds(sock, [b"{}\n"], [namespace])
    os.close(namespace)
    run(sock)
