"""Tables and closing lines, from reports and statuses; nothing here asks a lab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from labctl.cli.progress import PHASES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from labctl.checks import CheckResult
    from labctl.lab.doctor import Diagnosis
    from labctl.lab.down import DownReport
    from labctl.lab.ps import LabStatus, NodeStatus
    from labctl.lab.up import UpReport

COLUMNS = ("NODE", "KIND", "STATE", "GROUP", "ROLE", "KEY SERVER", "ADDRESSES", "WHY")
ALWAYS = ("NODE", "KIND", "STATE", "ADDRESSES")

STATE_STYLES = {"ready": "green", "failed": "bold red", "up": "green", "dead": "bold red", "gone": "bold red"}


def up_report(report: UpReport, console: Console) -> None:
    """How `up` ended: what it changed, the time of each phase, what to do next."""
    if report.was_up and not report.started and report.changes.nothing:
        console.print(f"Lab {report.lab} is up as its topology says: nothing to do.")
        return
    for line in report.changes.lines():
        console.print(line)
    table = plain_table("PHASE", "SECONDS")
    table.columns[1].justify = "right"
    for name, seconds in report.phases.items():
        table.add_row(PHASES.get(name, name), f"{seconds:.2f}")
    table.add_row("all", f"{report.seconds:.2f}")
    console.print(table)
    count = len(report.started)
    nodes = f"{count} node{'' if count == 1 else 's'}" + (" started" if report.was_up else "")
    console.print(f"Lab {report.lab} is up on {report.runtime}: {nodes}.")
    console.print("'labctl test' proves it, 'labctl ps' shows it, 'labctl down' ends it.")


def down_reports(reports: Sequence[DownReport], console: Console) -> None:
    """What `down` took down."""
    if not reports:
        console.print("No lab is up: nothing to take down.")
    for report in reports:
        if report.was_there:
            console.print(f"Lab {report.lab} is down, nothing of it is left.")
        else:
            console.print(f"Lab {report.lab} was not up: nothing to take down.")


def lab_statuses(labs: Sequence[LabStatus], console: Console) -> None:
    """`ps`: each lab's head line and its nodes."""
    if not labs:
        console.print("No lab is up. 'labctl up TOPOLOGY' starts one.")
    for number, lab in enumerate(labs):
        if number:
            console.print()
        _lab(lab, console)


def _lab(lab: LabStatus, console: Console) -> None:
    from rich.text import Text

    style = STATE_STYLES.get(lab.state, "yellow")
    head = Text.assemble((lab.name, "bold"), f" on {lab.runtime or '?'}: ", (lab.state, style))
    if lab.nodes:
        ready = sum(node.state == "ready" for node in lab.nodes)
        head.append(f", {ready} of {len(lab.nodes)} nodes ready")
    if lab.topology:
        head.append(f"  ({lab.topology})", style="dim")
    console.print(head)
    if lab.hint:
        console.print(lab.hint)
    if not lab.nodes:
        return
    rows = [row for node in lab.nodes for row in _node_rows(node)]
    # A column that says nothing takes room from those that do.
    shown = [index for index, title in enumerate(COLUMNS) if title in ALWAYS or any(row[index] for row in rows)]
    table = plain_table(*(COLUMNS[index] for index in shown))
    for row in rows:
        table.add_row(*(_cell(row[index], COLUMNS[index]) for index in shown))
    console.print(table)
    if lab.impaired:
        links = plain_table("IMPAIRED LINK", "WHAT IT DOES")
        for name, rules in lab.impaired:
            for place, rule in enumerate(rules):
                links.add_row("" if place else name, rule)
        console.print()
        console.print(links)


def _node_rows(node: NodeStatus) -> list[tuple[str, ...]]:
    """One row a node; a node in several groups has one for each."""
    own = (node.name, node.kind, node.state)
    addresses = " ".join(node.addresses)
    if not node.groups:
        return [(*own, "", "", "", addresses, node.reason)]
    rows: list[tuple[str, ...]] = []
    for group in node.groups:
        said = f"{group.role} {group.state}".strip()
        server = group.key_server if group.role != "ks" else ""
        head = ("", "", "") if rows else own
        tail = ("", group.reason) if rows else (addresses, group.reason or node.reason)
        rows.append((*head, group.name, said, server, *tail))
    return rows


def _cell(text: str, title: str) -> Text | str:
    from rich.text import Text

    return Text(text, STATE_STYLES.get(text, "yellow")) if title == "STATE" else text


VERDICT_STYLES = {"passed": "green", "failed": "bold red", "inconclusive": "yellow"}


def check_results(results: Sequence[CheckResult], console: Console) -> None:
    """`test`: a row a check, what lies behind those that did not pass, and the sum."""
    from rich.text import Text

    from labctl.checks import HEADER, rows

    table = plain_table(*HEADER)
    for name, verdict, seconds, seen in rows(results):
        table.add_row(name, Text(verdict, VERDICT_STYLES[verdict]), seconds, seen)
    console.print(table)
    for result in results:
        if not result.passed and result.details:
            console.print(f"\n{result.name}:")
            for line in result.details:
                console.print(f"  {line}")
    passed = sum(result.passed for result in results)
    console.print(f"{passed} of {len(results)} checks passed.")


def diagnosis_table(diagnosis: Diagnosis, console: Console) -> None:
    """`doctor`: each finding, its remedy under it, and the sum."""
    from rich.text import Text

    marks = {"ok": Text("ok", "green"), "missing": Text("missing", "yellow"), "broken": Text("broken", "bold red")}
    table = plain_table("", "WHAT", "FOUND")
    for item in diagnosis.findings:
        table.add_row(marks[item.verdict.value], item.name, item.found)
        if item.remedy:
            table.add_row("", "", Text(f"-> {item.remedy}", "cyan"))
    console.print(table)
    console.print()
    if diagnosis.can_run_labs:
        console.print(f"This machine can run labs on {' and '.join(diagnosis.runtimes)}.")
    else:
        console.print("This machine cannot run labs yet; what is missing is above.")


def log_line(item: Mapping[str, Any]) -> str:
    """`ks1  12:03:04.567  %GDOI-5-...`."""
    if "lost" in item:
        return f"... {item['lost']} lines are lost ..."
    return f"{clock(item['time'])}  {item['node']:<8}  {item['text']}"


def event_line(item: Mapping[str, Any]) -> str:
    """An event for eyes: its time, node, type, and the rest as key=value."""
    if "lost" in item:
        return f"... {item['lost']} events are lost ..."
    if item.get("type") == "log":
        said = f"%{item.get('facility')}-{item.get('severity')}-{item.get('mnemonic')}: {item.get('text')}"
    elif item.get("type") == "state":
        words = [item.get("state"), item.get("reason")]
        said = ", ".join(str(word) for word in [*words, *map(_group_words, item.get("groups") or [])] if word)
    else:
        rest = {key: value for key, value in item.items() if key not in ("seq", "time", "node", "type")}
        said = " ".join(f"{key}={value}" for key, value in rest.items() if value not in ("", None, [], {}))
    return f"{clock(item['time'])}  {item.get('node') or '-':<8}  {item.get('type', '?'):<6}  {said}"


def _group_words(group: Mapping[str, Any]) -> str:
    words = [group.get("name"), group.get("role"), group.get("state")]
    return " ".join(str(word) for word in words if word)


def clock(seconds: float) -> str:
    """Wall time of day with milliseconds, in the user's zone."""
    return datetime.fromtimestamp(float(seconds)).strftime("%H:%M:%S.%f")[:-3]


def plain_table(*columns: str) -> Table:
    """A table without a frame, so that its lines can be cut and grepped."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
