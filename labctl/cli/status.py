"""The exit statuses of labctl, all of them; docs/commands.md describes them to users."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """What `$?` says after labctl. `exec` and `shell` exit as the command in the node did."""

    OK = 0
    INTERNAL = 1  # a fault of labctl's own: report it
    INPUT = 2  # the command line or the topology is wrong; nothing was touched
    CHECK_FAILED = 3  # `test`: the lab does not do what its topology states
    ENVIRONMENT = 4  # this machine lacks something; `labctl doctor` says what
    NO_LAB = 5  # no such lab, or it is not up
    NOT_READY = 6  # a node failed or was not ready in time
    CHANGED = 7  # the topology differs from the lab that is up; `--apply` was not given
    BUSY = 8  # another labctl is at work on the same lab
    NOT_EXECUTABLE = 126  # `exec`: the node has the command but cannot run it, as a shell says it
    NOT_FOUND = 127  # `exec`: the node has no such command
    INTERRUPTED = 130  # Ctrl-C (128 + SIGINT)
    BROKEN_PIPE = 141  # whoever read our output went away (128 + SIGPIPE)
    TERMINATED = 143  # 128 + SIGTERM
