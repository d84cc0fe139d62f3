"""The labs' pages in docs/, run as they are written: every command of a section, in a folder of its own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab_command import TIMEOUT, Labctl

ROOT = Path(__file__).resolve().parents[2]
SHELL = set("|&;<>()$`\\*?[]~#{}")  # what words of a shell can be made of, but for quotes
PROGRAMS = ("labctl", "sed", "cp")


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and how it ended."""

    command: str
    status: int
    out: str
    err: str


class Page:
    """A page of docs/, for a lab of `machine`."""

    def __init__(self, machine: Labctl, name: str) -> None:
        self._machine = machine
        sections = re.split(r"^## (.+)\n", (ROOT / "docs" / f"{name}.md").read_text(), flags=re.MULTILINE)
        self._sections = dict(zip(sections[1::2], sections[2::2], strict=True))
        shim = machine.folder / "bin"
        shim.mkdir(exist_ok=True)
        program = shim / "labctl"
        # The page lets labctl choose the runtime; the test says which.
        program.write_text(
            "#!/bin/sh\n"
            f'[ "$1" = up ] && set -- "$@" --runtime {machine.runtime}\n'
            f'exec {shlex.quote(sys.executable)} -m labctl "$@"\n'
        )
        program.chmod(0o755)
        topologies = machine.folder / "topologies"
        if not topologies.exists():
            topologies.symlink_to(ROOT / "topologies")
        self._environment = {**machine.environment(), "PATH": f"{shim}:{os.environ['PATH']}"}

    def commands(self, section: str) -> list[str]:
        """The commands of a section, in order; a block that begins with no program is what one prints."""
        blocks = re.findall(r"^```(\w*)\n(.*?)^```$", self._sections[section], flags=re.MULTILINE | re.DOTALL)
        lines = [block.splitlines() for kind, block in blocks if not kind and block.split()[0] in PROGRAMS]
        return [line for block in lines for line in block]

    def run(
        self, section: str, *, status: Mapping[str, int] | None = None, before: str = "", since: str = ""
    ) -> list[Said]:
        """Run them, or those before or since the first with these words; one that never ends is left out.

        `status` has words of the commands that do not end with 0.
        """
        commands = self.commands(section)
        places = {words: next(n for n, command in enumerate(commands) if words in command) for words in (before, since)}
        commands = commands[places[since] : places[before] if before else None]
        commands = [command for command in commands if " ping -i " not in command]
        left = dict(status or {})
        found = []
        for command in commands:
            done = self._done(command)
            words = next((words for words in left if words in command), None)
            wanted = 0 if words is None else left.pop(words)
            assert done.returncode == wanted, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
            found.append(Said(command, done.returncode, done.stdout, done.stderr))
        assert found and not left, f"no command of {section!r} has {', '.join(left)}"
        return found

    def _done(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run one in a shell; a plain one of labctl, in which a shell would find nothing to do, without it."""
        words = shlex.split(command)
        if words[0] == "labctl" and not set(command) & SHELL:
            if words[1] == "up":
                words += ["--runtime", self._machine.runtime]
            return self._machine(*words[1:], status=None)
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self._machine.folder,
            env=self._environment,
            text=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
