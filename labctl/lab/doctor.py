"""What this machine can do for labctl, what is missing, and how to get it. Found out by trying."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from labctl.lab.directory import LONGEST_SOCKET_PATH, LabDirectory, state_root
from labctl.lab.errors import LabError
from labctl.lab.runtimes import NAMES, runtime_named

# Trying takes milliseconds; a kernel that hangs in it must not hang the doctor.
TRIAL_TIMEOUT = 20.0

# Program -> what one misses without it, Debian package. Under namespaces nodes use the machine's own programs.
PROGRAMS = {
    "ping": ("'ping' in nodes of the namespaces runtime", "iputils-ping"),
    "ip": ("'ip' in nodes of the namespaces runtime", "iproute2"),
    "nft": ("labs that translate addresses or mark packets, under namespaces", "nftables"),
    "tcpdump": ("'tcpdump' in nodes of the namespaces runtime", "tcpdump"),
    "tshark": ("reading captures in words", "tshark"),
}

LIMITS = {"/proc/sys/user/max_user_namespaces": 16, "/proc/sys/user/max_net_namespaces": 64}


class Verdict(Enum):
    """OK; MISSING something optional; or BROKEN: something that labs need."""

    OK = "ok"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, and the runtimes that can carry a lab here."""

    findings: tuple[Finding, ...]
    runtimes: tuple[str, ...]

    @property
    def can_run_labs(self) -> bool:
        """True if at least one runtime works and nothing that labs need is broken."""
        return bool(self.runtimes) and all(item.verdict is not Verdict.BROKEN for item in self.findings)


async def diagnose() -> Diagnosis:
    """Look at everything. Touches nothing that outlives the call."""
    findings = [_python(), _kernel()]
    runtimes = []
    for name in NAMES:
        finding = await _runtime(name)
        findings.append(finding)
        if finding.verdict is Verdict.OK:
            runtimes.append(name)
    findings += await _features(needed="namespaces" in runtimes)
    findings += _limits()
    findings.append(_state())
    findings += _programs()
    return Diagnosis(tuple(findings), tuple(runtimes))


def _python() -> Finding:
    return Finding("python", Verdict.OK, f"{platform.python_version()} at {sys.executable}")


def _kernel() -> Finding:
    if platform.system() != "Linux":
        return Finding("kernel", Verdict.MISSING, platform.system(), "without Linux, only the docker runtime works")
    return Finding("kernel", Verdict.OK, f"Linux {platform.release()} {platform.machine()}")


async def _runtime(name: str) -> Finding:
    found = await runtime_named(name).probe()
    if found.available:
        return Finding(f"runtime {name}", Verdict.OK, found.reason or "usable")
    return Finding(f"runtime {name}", Verdict.MISSING, found.reason, found.remedy)


async def _features(*, needed: bool) -> list[Finding]:
    """What the kernel does in a network namespace of our own, tried in a child process (kernel_trial.py)."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "labctl.lab.kernel_trial", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT):
            out, err = await child.communicate()
        results: dict[str, str] = json.loads(out)
    except TimeoutError:
        child.kill()
        await child.wait()
        return [Finding("kernel features", Verdict.MISSING, f"trying them took over {TRIAL_TIMEOUT:.0f} s")]
    except ValueError:
        said = err.decode(errors="replace").strip().split("\n")[-1]
        return [Finding("kernel features", Verdict.MISSING, f"could not be tried: {said}")]
    bad = Verdict.BROKEN if needed else Verdict.MISSING
    return [
        Finding(
            feature, bad if problem else Verdict.OK, problem or "works", _feature_remedy(feature) if problem else ""
        )
        for feature, problem in results.items()
    ]


def _feature_remedy(feature: str) -> str:
    module = {"veth": "veth", "bridge": "bridge", "packet sockets": "af_packet"}.get(feature)
    if module:
        return f"load the kernel module: sudo modprobe {module}"
    if feature == "sysctls":
        return "/proc/sys must be writable: give this container --security-opt systempaths=unconfined, or use docker"
    return "see the namespaces runtime above"


def _limits() -> list[Finding]:
    findings = []
    for path, least in LIMITS.items():
        try:
            value = int(Path(path).read_text())
        except (OSError, ValueError):
            continue  # a kernel without this limit
        name = path.rsplit("/", 1)[1]
        if value < least:
            key = path.removeprefix("/proc/sys/").replace("/", ".")
            findings.append(Finding(name, Verdict.MISSING, str(value), f"sudo sysctl -w {key}=15000"))
        else:
            findings.append(Finding(name, Verdict.OK, str(value)))
    return findings


def _state() -> Finding:
    root = state_root()
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding("state", Verdict.BROKEN, f"{there} is not writable", "set LABCTL_STATE to a folder of yours")
    try:
        door = LabDirectory("x" * 20, root).door
    except LabError as error:
        return Finding("state", Verdict.BROKEN, error.what, error.hint)
    fits = len(os.fsencode(root / "labs" / "x" / "door.sock")) <= LONGEST_SOCKET_PATH
    return Finding("state", Verdict.OK, str(root) if fits else f"{root} (a long path: doors are in {door.parent})")


def _programs() -> list[Finding]:
    findings = []
    for program, (use, package) in PROGRAMS.items():
        where = shutil.which(program)
        if where:
            findings.append(Finding(program, Verdict.OK, where))
        else:
            findings.append(
                Finding(program, Verdict.MISSING, f"not installed: no {use}", f"sudo apt-get install {package}")
            )
    return findings
