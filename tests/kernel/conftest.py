"""Runs a function in a network namespace of its own, as root or not: in a child that takes it along when it ends."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from inside_namespace import Inside

from labctl.fabric.supervisor import found


def _child(writer: int, function: Callable[[], Any]) -> None:
    try:
        found()
        # The first child is the first process of the new pid namespace; with it the namespace would end.
        if pid := os.fork():
            os.waitpid(pid, 0)
            return
        answer = (True, function())
    except BaseException:
        answer = (False, traceback.format_exc())
    with os.fdopen(writer, "wb") as stream:
        pickle.dump(answer, stream)


@pytest.fixture
def inside() -> Inside:
    """`inside(function)` returns what `function` returned in the namespace, or fails as it failed."""

    def run(function: Callable[[], Any]) -> Any:
        reader, writer = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _child(writer, function)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            succeeded, answer = pickle.load(stream)
        os.waitpid(pid, 0)
        assert succeeded, answer
        return answer

    return run
