"""Measures in namespaces of its own: no interface, address or process of it is ever beside the user's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from labctl.measure.traffic import SIZES, Effort, Figures

# Under a minute for one pair beside plain forwarding: what a user waits for.
QUICK = Effort(rates=(20_000, 45_000, 90_000, 180_000), seconds=1.0, streams=3.0, echoes=200)

# Program -> the package of Debian that has it.
PROGRAMS = {"unshare": "util-linux", "mount": "mount", "ip": "iproute2", "ping": "iputils-ping", "sysctl": "procps"}

LAST_WORDS = 300


class Unmeasurable(Exception):
    """What stands in the way; `hint` says what helps."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Measured:
    """The best of each figure of a pair. `transform` is what its members encrypt with; empty for plain forwarding."""

    transform: str
    figures: Figures


def measure_pairs(
    transforms: Sequence[str], tell: Callable[[str], None], *, rounds: int = 1, effort: Effort = QUICK
) -> list[Measured]:
    """Plain forwarding, and a pair of members for each transform set. Raises Unmeasurable."""
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            raise Unmeasurable(f"{program} is not installed", f"apt install {package}")
    found: dict[str, list[Figures]] = {"": [], **{text: [] for text in transforms}}
    asked = {"transforms": list(transforms), "rounds": rounds, "effort": asdict(effort)}
    for item in _inside(asked):
        name = item["transform"] or "plain forwarding"
        if "doing" in item:
            again = f" ({item['round']} of {rounds})" if rounds > 1 else ""
            tell(f"{name}{again}: {item['doing']}")
        else:
            found[item["transform"]].append(_figures(item["figures"]))
    return [Measured(transform, _best(figures)) for transform, figures in found.items()]


def _inside(asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    isolate = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid():
        isolate += ["--user", "--map-root-user"]
    words = [*isolate, sys.executable, "-m", "labctl.measure", json.dumps(asked)]
    with tempfile.TemporaryFile() as said, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield json.loads(line)
        except BaseException:
            process.kill()  # and, by unshare's --kill-child, everything inside
            raise
        if process.wait():
            said.seek(0)
            text = said.read().decode(errors="replace").strip()
            raise Unmeasurable(
                f"the benchmark could not run: {(text.splitlines() or ['it said nothing'])[-1][:LAST_WORDS]}",
                "'labctl doctor' says what this machine can do",
            )


def _figures(item: dict[str, Any]) -> Figures:
    packets, cpu = ({size: float(item[name][str(size)]) for size in SIZES} for name in ("packets", "cpu"))
    return Figures(packets, cpu, float(item["tcp"]), float(item["ping"]), float(item.get("tcp_cpu", 0)))


def _best(figures: Sequence[Figures]) -> Figures:
    """What the machine can do where nothing else took its time."""
    return Figures(
        {size: max(item.packets[size] for item in figures) for size in SIZES},
        {size: min(item.cpu[size] for item in figures) for size in SIZES},
        max(item.tcp for item in figures),
        min(item.ping for item in figures),
        min(item.tcp_cpu for item in figures),
    )
