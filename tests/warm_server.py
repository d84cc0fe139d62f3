"""A process that has labctl imported and forks for each command line: the program behind `warm_labctl`.

A child has the arguments, folder, environment and standard files of its request. What a verb does there is what it does
in a process of its own, but for the fifth of a second of a processor that Python needs to begin and to end.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import threading
from importlib import import_module
from types import FrameType
from typing import NoReturn

ROOMS = ("labctl.cli", "labctl.lab", "labctl.lab.pki", "labctl.runtime", "labctl.checks", "labctl.topology")
# What those import when a verb needs it.
ELSEWHERE = ("labctl.fabric.supervisor", "docker", "rich.live", "rich.table")
# Octets of a request: the arguments and the environment, as JSON.
LARGEST = 1 << 17


def import_all() -> None:
    """Every module that a verb may want, so that no child has to."""
    for room in ROOMS:
        for module in pkgutil.iter_modules(import_module(room).__path__):
            if not module.name.startswith("__"):
                import_module(f"{room}.{module.name}")
    for name in ELSEWHERE:
        import_module(name)
    gc.freeze()  # a collection in a child would write to, and so copy, every page


def serve(control: socket.socket) -> bool:
    """Fork for each request until the other end goes away. True in a child, which is to run labctl now.

    A request is JSON with `argv`, `cwd` and `env`, and four open files: standard input, output and error, and one that
    is told the child's pid and, on a second line, its exit status as `subprocess` has it.
    """
    told: dict[int, int] = {}
    wake, awake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(awake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _nothing)
    while True:
        readable, _, _ = select.select([control.fileno(), wake], [], [])
        if wake in readable:
            os.read(wake, 4096)
            _reap(told)
        if control.fileno() not in readable:
            continue
        request, files, _, _ = socket.recv_fds(control, LARGEST, 4)
        if not request:
            return False
        pid = os.fork()
        if pid == 0:
            for file in (control.detach(), wake, awake, files[3], *told.values()):
                os.close(file)
            _become(json.loads(request), files[:3])
            return True
        told[pid] = files[3]
        _tell(files[3], pid)
        for file in files[:3]:
            os.close(file)


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler, so that the signal wakes the loop."""


def _reap(told: dict[int, int]) -> None:
    while told:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        _tell(told[pid], os.waitstatus_to_exitcode(status))
        os.close(told.pop(pid))


def _tell(file: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody may want to know any more
        os.write(file, f"{number}\n".encode())


def _become(request: dict[str, object], files: list[int]) -> None:
    """A process like one that was started with this request."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 # they last as long as the process
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    argv, cwd, env = request["argv"], request["cwd"], request["env"]
    assert isinstance(argv, list) and isinstance(cwd, str) and isinstance(env, dict)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["labctl", *argv]


def run() -> NoReturn:
    """labctl, to the end of its threads. The interpreter is not cleared up: that would copy every page of it."""
    from labctl.__main__ import main

    status = 0
    try:
        main()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 0
    threading._shutdown()  # type: ignore[attr-defined] # what multiprocessing does at the end of its forks
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal it is for the commands
    import_all()
    if serve(socket.socket(fileno=int(sys.argv[1]))):
        run()
