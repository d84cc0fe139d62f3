"""A namespaces lab comes up as any user, can be found again, and leaves nothing when it dies, however it dies."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain import Paths, chain, execute
from running_lab import AGENT, InLab, Lab

import labctl
from labctl.configuration import to_json
from labctl.runtime import SUPERVISOR_LOG, LabNotRunning, RuntimeFailure
from labctl.runtime.namespaces import NamespacesRuntime
from labctl.runtime.process import ProcessIdentity
from labctl.runtime.remedies import remedy
from labctl.topology.plan import Plan

NOBODY = 65534
EMPTY = Plan("chain", "namespaces", (), (), (), (), ())


def as_nobody(directory: Path) -> list[str]:
    """What makes a command run as an ordinary user who owns `directory`."""
    if os.geteuid() != 0:
        return []
    shutil.chown(directory, NOBODY, NOBODY)
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def public_interpreter() -> str:
    """A Python that an ordinary user may run: this one, unless it lies in root's own home."""
    for candidate in (Path(sys.executable).resolve(), Path("/usr/bin/python3").resolve()):
        if candidate.exists() and all(part.stat().st_mode & 0o001 for part in (candidate, *candidate.parents)):
            return str(candidate)
    pytest.fail(f"{sys.executable} cannot be run by an ordinary user, and there is no /usr/bin/python3")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder with a copy of labctl that an ordinary user may read: pytest's own, and a checkout in root's home, are
    closed to other users."""
    home = Path("/tmp") / f"labctl-test-{os.getpid()}"
    home.mkdir(mode=0o755)
    shutil.copytree(Path(labctl.__file__).parent, home / "labctl", ignore=shutil.ignore_patterns("__pycache__"))
    yield home
    shutil.rmtree(home)


def host_state(folder: Path) -> tuple[str, list[str]]:
    """The host's links, and what is mounted of a lab's: other tests, which run beside this one, mount as well."""
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    ours = [line for line in mounts if str(folder) in line or "/run/labctl/" in line]
    return json.dumps(sorted(link["ifname"] for link in links)), ours


@pytest.mark.lab
def test_five_nodes_in_a_row_reach_each_other_from_end_to_end(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        reported = await lab.build(chain(5))
        assert {item["node"] for item in reported} == {f"n{number}" for number in range(5)}
        assert (await lab.door.call("wait", timeout=10))["ready"]
        status, printed = await execute(lab.door, "n0", "ping", "-c", "1", "-W", "5", "n4")
        assert status == 0, printed
        assert "ttl=61" in printed  # three routers on the way

    in_lab(body)


@pytest.mark.lab
def test_an_ordinary_user_gets_the_same_lab(public_folder: Path) -> None:
    for name in ("ordinary_user.py", "chain.py", "standin_agent.py"):
        shutil.copy(Path(__file__).with_name(name), public_folder / name)
    script, state = public_folder / "ordinary_user.py", public_folder / "state"
    command = [*as_nobody(public_folder), public_interpreter(), str(script), str(state)]
    environment = {**os.environ, "PYTHONPATH": str(public_folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["ping"] == 0
    assert answer["user_map"].split() == ["0", str(answer["uid"]), "1"]
    assert answer["uid"] != 0
    assert answer["left"] == []


@pytest.mark.lab
def test_a_node_costs_less_than_twelve_megabytes(in_lab: InLab, capsys: pytest.CaptureFixture[str]) -> None:
    async def body(lab: Lab) -> None:
        await lab.build(chain(10))
        total = 0
        for pid in lab.processes():
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
            assert found is not None
            total += int(found[1])
        with capsys.disabled():
            print(f"\n10 nodes and their supervisor: {total} kB proportional set size, {total / 10:.0f} kB a node")
        assert total / 10 < 12 * 1024

    in_lab(body)


@pytest.mark.lab
def test_the_door_is_for_its_owner_alone(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        assert stat.S_IMODE(lab.paths.door.stat().st_mode) == 0o600
        log = lab.paths.logs / "_supervisor.log"
        assert stat.S_IMODE(log.stat().st_mode) == 0o600

    in_lab(body)


@pytest.mark.lab
def test_a_killed_supervisor_takes_everything_with_it(in_lab: InLab, tmp_path: Path) -> None:
    before = host_state(tmp_path)

    async def body(lab: Lab) -> None:
        await lab.build(chain(4))
        # A process that left its node's session and its agent's sight is still one of the lab's.
        await execute(lab.door, "n1", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
        processes = lab.processes()
        assert len(processes) >= 7
        network_namespaces = {Path(f"/proc/{pid}/ns/net").stat().st_ino for pid in processes}
        supervisor = ProcessIdentity.of(lab.supervisor)
        pidfd = supervisor.open()
        assert pidfd is not None
        os.kill(lab.supervisor, signal.SIGKILL)
        await asyncio.wait_for(lab.door.wait_closed(), 10)
        await until_ended(pidfd)
        assert [pid for pid in processes if Path(f"/proc/{pid}").exists() and not is_zombie(pid)] == []
        left = {inode for inode in map(namespace_of, every_pid()) if inode in network_namespaces}
        assert left == set()
        assert await lab.runtime.leftovers(lab.paths, lab.paths.journal) == []
        with pytest.raises(LabNotRunning):
            await lab.runtime.connect(lab.paths)

    in_lab(body)
    assert host_state(tmp_path) == before


@pytest.mark.lab
def test_destroy_waits_for_a_supervisor_that_no_journal_knows(tmp_path: Path) -> None:
    """As a labctl leaves it that is killed between the founder's word and the journal's entry."""
    paths = Paths("chain", tmp_path)
    held = "import sys, time; print(flush=True); sys.stdin.read(); time.sleep(0.3)"
    with (paths.logs / SUPERVISOR_LOG).open("wb") as log:
        fcntl.flock(log, fcntl.LOCK_SH)
        unknown = subprocess.Popen(
            [sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[log.fileno()]
        )
    try:
        assert unknown.stdout is not None and unknown.stdin is not None
        unknown.stdout.readline()
        unknown.stdin.close()  # as labctl's end of the socket, when it dies
        assert asyncio.run(NamespacesRuntime().destroy(paths, [])) == []
        state = Path(f"/proc/{unknown.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "Z", "it has ended, and only its parent has yet to hear of it"
    finally:
        unknown.kill()
        unknown.wait()
        assert unknown.stdout is not None
        unknown.stdout.close()


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def every_pid() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def namespace_of(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0


async def until_ended(pidfd: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), 10)
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


@pytest.mark.lab
def test_a_supervisor_whose_labctl_dies_before_the_journal_is_written_ends_by_itself(tmp_path: Path) -> None:
    async def main() -> None:
        paths = Paths("chain", tmp_path)
        seen: list[int] = []

        def killed_here(entry: dict[str, object]) -> None:
            seen.append(int(str(entry["pid"])))
            raise KeyboardInterrupt

        pidfd = -1
        try:
            await NamespacesRuntime(AGENT).start(paths, EMPTY, killed_here)
        except KeyboardInterrupt:
            try:
                pidfd = os.pidfd_open(seen[0])
            except ProcessLookupError:
                return  # it was faster than we were
        await until_ended(pidfd)
        assert not paths.door.exists()

    asyncio.run(main())


@pytest.mark.lab
def test_destroy_ends_a_lab_and_does_nothing_the_second_time(tmp_path: Path) -> None:
    async def main() -> None:
        paths, runtime = Paths("chain", tmp_path), NamespacesRuntime(AGENT)
        await runtime.start(paths, EMPTY, paths.journal.append)
        found = await runtime.leftovers(paths, paths.journal)
        assert [(item.kind, item.lab) for item in found] == [("supervisor", "chain")]
        assert await runtime.destroy(paths, paths.journal) == found
        assert await runtime.destroy(paths, paths.journal) == []
        assert await runtime.leftovers(paths, paths.journal) == []

    asyncio.run(main())


def test_destroy_never_touches_a_process_that_only_has_the_same_pid(tmp_path: Path) -> None:
    async def main() -> None:
        bystander = await asyncio.create_subprocess_exec("sleep", "100")
        entry = {"kind": "supervisor", **ProcessIdentity.of(bystander.pid).to_json()}
        paths, runtime = Paths("chain", tmp_path), NamespacesRuntime()
        for other in ({"started": entry["started"] - 1}, {"boot": "another boot"}):
            assert await runtime.destroy(paths, [{**entry, **other}]) == []
        assert bystander.returncode is None
        bystander.kill()
        await bystander.wait()

    asyncio.run(main())


@pytest.mark.lab
def test_a_second_supervisor_does_not_take_the_door_of_a_lab_that_runs(in_lab: InLab) -> None:
    async def body(lab: Lab) -> None:
        journal: list[dict[str, object]] = []
        with pytest.raises(RuntimeFailure, match="ended at its start") as failure:
            await lab.runtime.start(lab.paths, EMPTY, journal.append)
        assert "somebody serves" in failure.value.hint
        assert (await lab.door.call("status"))["nodes"] == {}

    in_lab(body)


@pytest.mark.lab
def test_an_agent_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        paths, runtime = Paths("chain", tmp_path), NamespacesRuntime("no_such_agent:run")
        try:
            door = await runtime.start(paths, EMPTY, paths.journal.append)
            result = await door.call("build", plan=to_json(chain(2)))
            assert {state["state"] for state in result["nodes"].values()} == {"failed"}
            assert "fork server" in result["nodes"]["n0"]["reason"]
            assert "no_such_agent" in (paths.logs / "_supervisor.log").read_text()
            await door.close()
        finally:
            await runtime.destroy(paths, paths.journal)

    asyncio.run(main())


@pytest.mark.lab
def test_the_probe_says_that_this_machine_can() -> None:
    answer = asyncio.run(NamespacesRuntime().probe())
    assert answer.available, answer


@pytest.mark.lab
def test_where_user_namespaces_are_forbidden_the_remedy_is_told(public_folder: Path) -> None:
    # In a user namespace of its own, an account of no capability and a limit of 0 user namespaces.
    script = (
        "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all --inh-caps=-all "
        f"{public_interpreter()} -m labctl.fabric --probe"
    )
    command = [*as_nobody(public_folder), "unshare", "--user", "--map-root-user", "sh", "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(public_folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment, check=False, timeout=30)
    assert done.stdout, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["step"], done.returncode) == ("make a user namespace", 1)
    assert "user.max_user_namespaces" in remedy(answer["step"], answer["errno"])


def test_connecting_to_a_door_nobody_opens_says_so(tmp_path: Path) -> None:
    paths = Paths("chain", tmp_path)
    with pytest.raises(LabNotRunning, match="lab chain is not running"):
        asyncio.run(NamespacesRuntime().connect(paths))
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(paths.door))
    stale.close()
    with pytest.raises(LabNotRunning):
        asyncio.run(NamespacesRuntime().connect(paths))
