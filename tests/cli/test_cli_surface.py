"""The command line's face: help on one screen, quick, every verb reachable, one way to say an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_outcome import Labctl

from labctl.cli import group
from labctl.cli.status import ExitStatus
from labctl.door import DoorClosed, DoorError
from labctl.lab import errors
from labctl.runtime import LabNotRunning, RuntimeFailure
from labctl.topology import Problem, TopologyErrors

FAULT = "a fault of labctl itself: "

ROOT = Path(__file__).resolve().parents[2]


def process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """labctl as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "labctl", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_help_fits_a_screen_of_80_by_24_with_a_prompt_below_it(labctl: Labctl) -> None:
    for words in (("--help",), ("-h",)):
        shown = labctl(*words)
        assert shown.status == 0
        lines = shown.stdout.splitlines()
        assert len(lines) <= 23
        assert max(map(len, lines)) <= 80


def test_no_word_at_all_is_answered_with_the_help(labctl: Labctl) -> None:
    shown = labctl()
    assert (shown.status, shown.stdout) == (ExitStatus.INPUT, "")
    assert shown.stderr == labctl("--help").stdout


@pytest.mark.parametrize("verb", group.VERBS)
def test_every_verb_has_help_of_at_most_a_screen(labctl: Labctl, verb: str) -> None:
    shown = labctl(verb, "--help")
    assert shown.status == 0, shown.stderr
    assert shown.stdout.startswith(f"Usage: labctl {verb}")
    assert len(shown.stdout.splitlines()) <= 40


def test_every_module_of_a_verb_is_a_verb_of_the_help() -> None:
    modules = {path.stem for path in (ROOT / "labctl/cli").glob("*.py") if "\ndef command(" in path.read_text()}
    assert modules == set(group.VERBS)


def imported(words: list[str], libraries: set[str]) -> set[str]:
    """Which of the libraries a labctl process imported to do what it was told."""
    code = f"""
import sys
sys.argv = ["labctl", *{words!r}]
from labctl.__main__ import main
try:
    main()
except SystemExit:
    pass
print(*{{name.split(".")[0] for name in sys.modules}}, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split()) & libraries


def test_the_version_comes_before_anything_heavy_is_imported() -> None:
    assert imported(["--version"], {"click", "rich", "asyncio", "pydantic", "docker", "json"}) == set()


def test_help_imports_no_verb_and_no_heavy_library() -> None:
    heavy = {"rich", "pydantic", "docker", "pyroute2", "asyncio", "cryptography"}
    assert imported(["--help"], heavy) == set()
    assert imported(["ps", "--help"], heavy) == set()


def test_a_mistyped_verb_is_answered_with_the_likely_one(labctl: Labctl) -> None:
    shown = labctl("shel", "ce1")
    assert shown.status == ExitStatus.INPUT
    assert shown.stderr == "labctl: no verb 'shel'. Did you mean 'labctl shell'? 'labctl --help' tells how.\n"


def test_a_wrong_option_says_where_the_help_is(labctl: Labctl) -> None:
    shown = labctl("ps", "--jsno")
    assert shown.status == ExitStatus.INPUT
    assert shown.stderr.endswith("'labctl ps --help' tells how.\n")
    assert "--jsno" in shown.stderr


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (errors.BadRequest("no node 'x'", "did you mean 'y'?"), 2, "labctl: no node 'x'. Did you mean 'y'?\n"),
        (errors.LabError("cannot make /x", "set LABCTL_STATE"), 4, "labctl: cannot make /x. Set LABCTL_STATE.\n"),
        (errors.NoSuchLab("no lab is up", "start one"), 5, "labctl: no lab is up. Start one.\n"),
        (errors.LabDead("lab x does not answer", "say down"), 5, "labctl: lab x does not answer. Say down.\n"),
        (errors.NotReady("ce1: waits"), 6, "labctl: ce1: waits.\n"),
        (errors.TopologyChanged("it changed", "--apply"), 7, "labctl: it changed. --apply.\n"),
        (errors.LabBusy("lab x is being changed"), 8, "labctl: lab x is being changed.\n"),
        (RuntimeFailure("no engine", "start it"), 4, "labctl: no engine. Start it.\n"),
        (LabNotRunning("not running", "up"), 5, "labctl: not running. Up.\n"),
        (DoorError("node-down", "the agent died"), 6, "labctl: the agent died.\n"),
        (DoorError("command-not-found", "foo: no such command"), 127, "labctl: foo: no such command.\n"),
        (DoorError("system", "no room", "make some"), 4, "labctl: no room. Make some.\n"),
        (DoorClosed("gone"), 5, "labctl: the lab went away: gone. 'labctl ps' says what is left.\n"),
        (TopologyErrors([Problem("t.yml", 3, 5, "no such node", "ce1?")]), 2, "t.yml:3:5: no such node. ce1?\n"),
        (PermissionError(13, "Permission denied", "/t.yml"), 2, "labctl: /t.yml: Permission denied.\n"),
        (ZeroDivisionError("oops"), 1, f"labctl: {FAULT}ZeroDivisionError: oops. LABCTL_DEBUG=1 shows where.\n"),
        (KeyboardInterrupt(), 130, "labctl: interrupted.\n"),
        (SystemExit(143), 143, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_exception_has_its_exit_status_and_words(
    labctl: Labctl, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, text: str
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(group.labctl, "main", fail)
    shown = labctl("ps")
    assert (shown.status, shown.stderr) == (status, text)
    assert status in list(ExitStatus)


def test_a_traceback_is_for_who_asks_for_it(labctl: Labctl, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(group.labctl, "main", fail)
    assert "Traceback" not in labctl("ps").stderr
    monkeypatch.setenv("LABCTL_DEBUG", "1")
    assert "Traceback" in labctl("ps").stderr


def test_every_exit_status_is_documented() -> None:
    page = (ROOT / "docs/commands.md").read_text()
    section = page[page.index("## Exit status") :]
    for status in ExitStatus:
        assert f"| {status.value} |" in section, status


def test_every_verb_and_every_option_is_documented() -> None:
    import click

    page = (ROOT / "docs/commands.md").read_text()
    context = click.Context(group.labctl)
    for verb in group.VERBS:
        assert f"## labctl {verb}" in page
        command = group.labctl.get_command(context, verb)
        assert command is not None
        section = page[page.index(f"## labctl {verb}") :].split("\n## ")[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                long = max(parameter.opts, key=len)
                assert f"`{long}" in section or f"{long}`" in section or long in ("--lab", "--json"), f"{verb} {long}"


def test_a_reader_that_left_is_no_error_to_talk_about() -> None:
    shown = subprocess.run(
        f"{sys.executable} -m labctl schema | true; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert shown.stderr == ""
    assert shown.stdout.strip() in ("0", str(int(ExitStatus.BROKEN_PIPE)))


def test_what_a_capture_cannot_do_at_once_is_said_before_a_lab_is_asked(labctl: Labctl) -> None:
    refused = {
        ("-w", "-", "--decrypt"): "-w FILE keeps the keys beside FILE",
        ("--decrypt",): "--live shows packets",
        ("-w", "-", "--live"): "standard output is the program's",
        ("-w", "x", "--decrypt", "-s", "96"): "leave --snaplen out",
    }
    for words, said in refused.items():
        outcome = labctl("capture", "ce1:eth0", *words)
        assert outcome.status == ExitStatus.INPUT and said in outcome.stderr.replace("Leave", "leave"), words
    assert labctl("capture", "ce1:eth0", "-w", "x", "--decrypt").status == ExitStatus.NO_LAB
    assert not Path("x.keys").exists()
