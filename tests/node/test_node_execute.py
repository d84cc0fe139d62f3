"""`exec`: commands of a node on pipes and on terminals, their ends, and what is left of them."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from node_requests import Node, agent, descriptors, encoded, outcome, read_until, run

from labctl.door import Call, DoorError


async def started(node: Node, script: str, first: str = ":") -> Call:
    """A shell script that has done its `first` step."""
    call = await node.open("exec", argv=["sh", "-c", f"{first}; echo up; {script}"])
    await read_until(call, b"up")
    return call


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def members_of(group: int) -> list[int]:
    """Processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                found.append(int(path.parent.name))
    return found


async def until_gone(pid: int) -> None:
    """Wait for the end of a process, which need not be a child of ours."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(watch, ended.cancel)
    with suppress(asyncio.CancelledError):
        await ended
    asyncio.get_running_loop().remove_reader(watch)
    os.close(watch)


def test_output_and_errors_arrive_apart_with_the_exit_status() -> None:
    async def main() -> None:
        async with agent() as node:
            assert await node.execute("sh", "-c", "echo out; echo err >&2; exit 7") == (b"out\n", b"err\n", 7)

    run(main())


def test_standard_input_reaches_the_command_and_ends() -> None:
    async def main() -> None:
        async with agent() as node:
            data = os.urandom(300_000)
            assert (await node.execute("cat", stdin=data))[0] == data
            assert (await node.execute("cat"))[0] == b""

    run(main())


def test_a_command_that_closes_its_input_is_not_hurt_by_more_of_it() -> None:
    async def main() -> None:
        async with agent() as node:
            output, _, status = await node.execute("sh", "-c", "exec <&-; sleep 0.1; echo done", stdin=bytes(1 << 20))
            assert (output, status) == (b"done\n", 0)

    run(main())


def test_ten_megabytes_of_output_arrive_whole() -> None:
    async def main() -> None:
        async with agent() as node:
            output, _, status = await node.execute("sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' x")
            assert (len(output), output.count(b"x"), status) == (10_000_000, 10_000_000, 0)

    run(main())


@pytest.mark.parametrize(("name", "number"), [("KILL", 9), ("TERM", 15), ("HUP", 1)])
def test_a_command_that_a_signal_ended_exits_as_a_shell_says_it(name: str, number: int) -> None:
    async def main() -> None:
        async with agent() as node:
            assert (await node.execute("sh", "-c", f"kill -{name} $$"))[2] == 128 + number

    run(main())


@pytest.mark.parametrize("name", ["INT", "SIGINT", int(signal.SIGINT)])
def test_a_signal_of_the_requester_reaches_the_command(name: str | int) -> None:
    async def main() -> None:
        async with agent() as node:
            call = await started(node, "while :; do sleep 0.05; done", first="trap 'echo caught; exit 3' INT")
            await call.send({"signal": name})
            output, _, status = await outcome(call)
            assert (output, status) == (b"caught\n", 3)

    run(main())


def test_a_signal_that_does_not_exist_is_passed_over() -> None:
    async def main() -> None:
        async with agent() as node:
            call = await started(node, "read line; echo $line")
            nonsensical: list[Any] = ["NONSENSE", 4711, None, [], "DFL"]
            for nonsense in nonsensical:
                await call.send({"signal": nonsense})
            await call.send({"stdin_b64": encoded(b"unharmed\n")})
            assert (await outcome(call))[0] == b"unharmed\n"

    run(main())


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("no-such-program", "command-not-found", "no-such-program: command not found"),
        ("/dev/null", "not-executable", "/dev/null: Permission denied"),
        ("/etc", "not-executable", "/etc: Permission denied"),
    ],
)
def test_a_program_that_cannot_run_is_an_error_of_its_own(program: str, code: str, words: str) -> None:
    async def main() -> None:
        async with agent() as node:
            with pytest.raises(DoorError) as caught:
                await node.execute(program)
            assert (caught.value.code, caught.value.message) == (code, words)

    run(main())


def test_commands_see_the_requesters_variables_and_nothing_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "of the user")

    async def main() -> None:
        async with agent() as node:
            output, _, _ = await node.execute("env", environment={"COLOUR": "blue"})
            lines = output.decode().splitlines()
            assert "COLOUR=blue" in lines
            assert "MY_SECRET" not in output.decode()
            assert any(line.startswith("PATH=") and "/usr/sbin" in line for line in lines)

    run(main())


def test_a_terminal_has_the_size_that_was_asked_for_and_follows_it() -> None:
    async def main() -> None:
        async with agent() as node:
            call = await node.open("exec", argv=["sh"], tty=True, rows=33, cols=101, environment={"PS1": "", "ENV": ""})
            await call.send({"stdin_b64": encoded(b"stty size\n")})
            await read_until(call, b"33 101")
            await call.send({"rows": 50, "cols": 132})
            await call.send({"stdin_b64": encoded(b"stty size; tty; exit 5\n")})
            output, _, status = await outcome(call)
            assert b"50 132" in output
            assert b"/dev/pts/" in output
            assert status == 5

    run(main())


def test_ctrl_c_on_a_terminal_ends_the_foreground_command_and_not_the_shell() -> None:
    async def main() -> None:
        async with agent() as node:
            call = await node.open("exec", argv=["sh", "-i"], tty=True, environment={"PS1": "$ ", "ENV": ""})
            await read_until(call, b"$ ")
            await call.send({"stdin_b64": encoded(b"sh -c 'echo ru\"\"ns; exec sleep 100'\n")})
            await read_until(call, b"runs")
            await call.send({"stdin_b64": encoded(b"\x03")})
            await read_until(call, b"$ ")
            await call.send({"stdin_b64": encoded(b"echo still he''re; exit\n")})
            output, _, _ = await outcome(call)
            assert b"still here" in output

    run(main())


def test_the_end_of_input_ends_a_shell_on_a_terminal() -> None:
    async def main() -> None:
        async with agent() as node:
            call = await node.open("exec", argv=["cat"], tty=True)
            await call.send({"stdin_b64": encoded(b"line\n")})
            await read_until(call, b"line\r\nline\r\n")
            await call.send({"stdin_eof": True})
            assert (await outcome(call))[2] == 0

    run(main())


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("script", ["sleep 100", "trap '' TERM HUP; sleep 100 & wait; sleep 100"])
def test_cancelling_ends_the_whole_process_group_even_a_stubborn_one(tty: bool, script: str) -> None:
    async def main() -> None:
        async with agent() as node:
            call = await node.open("exec", argv=["sh", "-c", f"echo pid $$; {script}"], tty=tty)
            output = await read_until(call, b"\n")
            pid = int(output.split()[1])
            group = os.getpgid(pid)
            await call.cancel()
            assert (await outcome(call))[2] in (128 + 1, 128 + 9, 128 + 15)
            await until_gone(pid)
            assert group == pid
            for other in members_of(group):
                await until_gone(other)

    run(main())


def test_a_command_dies_with_the_connection_that_asked_for_it() -> None:
    async def main() -> None:
        async with agent() as node:
            call = await node.open("exec", argv=["sh", "-c", "echo pid $$; sleep 100"])
            pid = int((await read_until(call, b"\n")).split()[1])
            await node.connection.close()
            await until_gone(pid)

    run(main())


def test_what_a_command_leaves_running_does_not_hold_its_end() -> None:
    async def main() -> None:
        async with agent() as node:
            output, _, status = await node.execute("sh", "-c", "sleep 3 & echo pid $!")
            assert status == 0
            pid = int(output.split()[1])
            assert not gone(pid)  # started on purpose: it lives on
            os.kill(pid, signal.SIGKILL)

    run(main(), seconds=2.5)


def test_what_a_command_leaves_writing_does_not_hold_its_end() -> None:
    async def main() -> None:
        async with agent() as node:
            call = await node.open("exec", argv=["sh", "-c", "(exec yes) & echo $! >&2"])
            output, errors, status = await outcome(call)
            assert status == 0
            assert len(output) < 64 << 20
            await until_gone(int(errors))  # nobody reads it any more: SIGPIPE

    run(main())


def test_fifty_commands_at_once_do_not_mix() -> None:
    async def main() -> None:
        async with agent() as node:
            found = await asyncio.gather(*(node.execute("sh", "-c", f"echo {n}; exit {n}") for n in range(50)))
            assert found == [(f"{n}\n".encode(), b"", n) for n in range(50)]

    run(main())


def test_commands_leave_no_descriptor_behind() -> None:
    async def main() -> None:
        async with agent() as node:
            await node.execute("true")
            before = descriptors()
            for tty in (False, True):
                await node.execute("true", tty=tty)
                with pytest.raises(DoorError):
                    await node.execute("no-such-program", tty=tty)
            assert descriptors() == before

    run(main())
