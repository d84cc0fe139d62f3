"""What users see: output of several nodes told apart, progress for terminals and pipes, the table of `ps`."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from labctl.cli.output import Direct, Prefixed, outputs_for
from labctl.cli.progress import LiveProgress, PlainProgress, progress_display
from labctl.cli.rendering import event_line, lab_statuses, log_line, up_report
from labctl.lab.changes import Changes
from labctl.lab.progress import NodeChanged, Note, PhaseBegan, PhaseEnded
from labctl.lab.ps import GroupStatus, LabStatus, NodeStatus
from labctl.lab.up import UpReport

GOLDEN = Path(__file__).parent / "golden"


def shown(render: object, *arguments: object, width: int = 140) -> str:
    stream = io.StringIO()
    assert callable(render)
    render(*arguments, Console(file=stream, width=width, highlight=False, emoji=False, markup=False))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


SERVING = GroupStatus("GETVPN_LAB", "ks", "serving", "", "")

LAB = LabStatus(
    name="two-sites",
    runtime="namespaces",
    state="up",
    topology="/labs/two-sites.yml",
    hint="",
    phases={},
    nodes=(
        NodeStatus(
            "ks1", "ks", "ready", "", 11, ("10.255.0.1",), (GroupStatus("GETVPN_LAB", "ks", "serving", "", ""),)
        ),
        NodeStatus(
            "ce1",
            "ce",
            "ready",
            "",
            12,
            ("172.16.0.2", "10.1.1.1"),
            (GroupStatus("GETVPN_LAB", "gm", "registered", "10.255.0.1", ""),),
        ),
        NodeStatus(
            "ce2",
            "ce",
            "booting",
            "GETVPN_LAB: no answer from key server 10.255.0.1",
            13,
            ("172.16.0.6", "10.1.2.1"),
            (GroupStatus("GETVPN_LAB", "gm", "registering", "10.255.0.1", "no answer from key server 10.255.0.1"),),
        ),
        NodeStatus("h1", "host", "failed", "the agent was killed by SIGKILL", 14, ("10.1.1.2",), ()),
        NodeStatus("h2", "host", "down", "not started", None, ("10.1.2.2",), ()),
    ),
    links=(),
)
DEAD = LabStatus(
    "old", "namespaces", "dead", "", "lab old does not answer. 'labctl down' removes what is left of it", {}, (), ()
)


def test_ps_shows_labs_as_the_golden_file_does() -> None:
    text = shown(lab_statuses, [LAB, DEAD])
    golden = GOLDEN / "ps.txt"
    if os.environ.get("LABCTL_WRITE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_ps_without_a_lab_says_how_to_get_one() -> None:
    assert shown(lab_statuses, []) == "No lab is up. 'labctl up TOPOLOGY' starts one.\n"


def test_ps_has_no_column_that_says_nothing() -> None:
    node = NodeStatus("h1", "host", "ready", "", None, ("10.1.1.1",), ())
    text = shown(lab_statuses, [LabStatus("x", "namespaces", "up", "", "", {}, (node,), ())])
    assert text.splitlines()[1].split() == ["NODE", "KIND", "STATE", "ADDRESSES"]


def test_names_with_brackets_are_no_markup() -> None:
    node = NodeStatus("h1", "host", "failed", "[red]it broke[/red]", None, (), ())
    lab = LabStatus("x", "namespaces", "up", "", "", {}, (node,), ())
    assert "[red]it broke[/red]" in shown(lab_statuses, [lab])


def test_a_long_reason_is_folded_and_never_cut() -> None:
    reason = "GETVPN_LAB: " + "key server 10.255.0.1 refused: NO-PROPOSAL-CHOSEN, " * 3
    node = NodeStatus("ce1", "ce", "booting", reason, None, ("10.1.1.1",), ())
    text = shown(lab_statuses, [LabStatus("x", "namespaces", "up", "", "", {}, (node,), ())], width=80)
    assert "…" not in text
    assert re.sub(r"\s", "", reason) in re.sub(r"\s", "", text.replace("ce1", "", 1)) or text.count("NO-PROPOSAL") >= 1


def test_up_ends_with_the_time_of_each_phase() -> None:
    report = UpReport("x", "namespaces", False, {"start": 0.101, "build": 0.5, "ready": 1.25}, 1.9, ("a", "b"))
    text = shown(up_report, report)
    assert re.search(r"starting the lab +0\.10", text)
    assert re.search(r"waiting for readiness +1\.25", text)
    assert re.search(r"all +1\.90", text)
    assert "Lab x is up on namespaces: 2 nodes." in text


def test_up_with_nothing_to_do_says_so() -> None:
    report = UpReport("x", "namespaces", True, {"ready": 0.01}, 0.02, (), Changes())
    assert shown(up_report, report) == "Lab x is up as its topology says: nothing to do.\n"


def test_output_of_several_nodes_is_told_apart_line_by_line() -> None:
    stream = io.BytesIO()
    one, two = Prefixed(stream, b"a  | "), Prefixed(stream, b"bb | ")
    one.write(b"first\nsec")
    two.write(b"other\n")
    one.write(b"ond\nrest")
    one.close()
    two.close()
    assert stream.getvalue() == b"a  | first\nbb | other\na  | second\na  | rest\n"


def test_output_of_one_node_is_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    Direct(stream).write(b"\x00raw\xff no newline")
    assert stream.getvalue() == b"\x00raw\xff no newline"
    assert isinstance(outputs_for(["a"])["a"].stdout, Direct)
    assert list(outputs_for(["b", "a", "b"])) == ["b", "a"]


def test_progress_in_a_log_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    progress = progress_display(["a"])
    assert isinstance(progress, PlainProgress)
    with progress:
        progress(PhaseBegan("start"))
        progress(PhaseEnded("start", 0.1))
        progress(NodeChanged("a", "booting", "", 0.1))
        progress(NodeChanged("a", "ready", "", 0.25))
        progress(NodeChanged("b", "failed", "the agent died", 0.3))
        progress(Note("rolling back"))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "starting the lab\na: ready (0.25 s)\nb: failed: the agent died (0.30 s)\nrolling back\n"


def drawn_before(leader: int, end: str) -> str:
    """What a terminal was sent up to a text: one read has what the display's own thread wrote so far, or less."""
    drawn = b""
    while end.encode() not in drawn:
        drawn += os.read(leader, 65536)
    return drawn.decode()


def test_progress_on_a_terminal_has_a_line_a_node_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = progress_display(["a", "b"])
        assert isinstance(progress, LiveProgress)
        with progress:
            progress(PhaseBegan("build"))
            progress(NodeChanged("a", "ready", "", 0.25))
            progress(NodeChanged("b", "booting", "waits for 10.0.0.1", 0.3))
        drawn = drawn_before(leader, "\x1b[?25h")
    os.close(leader)
    assert "waits for 10.0.0.1" in drawn
    assert "1/2" in drawn
    assert "wiring and booting nodes" in drawn
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", drawn), "NO_COLOR is honoured"
    assert "\x1b[2K" in drawn, "the live lines are wiped at the end"


def test_log_and_event_lines_say_when_who_and_what() -> None:
    item = {"seq": 1, "time": 0.5, "node": "ks1", "text": "%GDOI-5-KS_REKEY: sent"}
    assert re.fullmatch(r"\d\d:\d\d:00\.500  ks1       %GDOI-5-KS_REKEY: sent", log_line(item))
    event = {"seq": 2, "time": 0.5, "node": "ce1", "type": "state", "state": "booting", "reason": "waits", "groups": []}
    assert event_line(event).endswith("ce1       state   booting, waits")
    group = {"name": "G", "role": "gm", "state": "registered", "attempts": 1}
    assert event_line({**event, "state": "ready", "reason": "", "groups": [group]}).endswith("ready, G gm registered")
    assert "3 lines are lost" in log_line({"lost": 3})
