"""`labctl pki`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from labctl.cli.options import chosen_lab, complete_nodes, json_option, lab_option
from labctl.cli.status import ExitStatus

if TYPE_CHECKING:
    from labctl.lab.pki.change import Told
    from labctl.lab.pki.orders import Changed, PkiReport

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Duration(click.ParamType[float]):
    """`90s`, `10m`, `12h`, `30d`: seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds, or a usage error."""
        text = str(value)
        number = text[:-1]
        if text[-1:] not in _UNITS or not number.isdigit() or int(number) == 0 or len(number) > 9:
            self.fail(f"{text!r} is no duration: 90s, 10m, 12h, 30d", param, ctx)
        return float(int(number) * _UNITS[text[-1]])


@click.group("pki")
def command() -> None:
    """Certificates of the lab: who has which of whom, new ones, revocation.

    Times are the lab's: with 'clock: {scale: 60}' a minute of yours is an hour of theirs.
    """


_node = click.argument("node", shell_complete=complete_nodes)
_trustpoint = click.option("--trustpoint", metavar="NAME", help="Which, where the node has several.")


@command.command("show")
@click.argument("node", required=False, shell_complete=complete_nodes)
@lab_option
@json_option
def show(node: str | None, lab: str | None, as_json: bool) -> ExitStatus:
    """Authorities and certificates of the lab, or what concerns NODE. --json has the certificates as PEM."""
    from labctl.cli.terminal import write_json
    from labctl.configuration import to_json
    from labctl.lab.pki import orders

    report = orders.show(chosen_lab(lab), node)
    if as_json:
        write_json(to_json(report))
    else:
        _print(report)
    return ExitStatus.OK


@command.command("issue")
@_node
@click.option("--fqdn", "fqdns", multiple=True, metavar="NAME", help="Its domain name; may be said again.")
@click.option("--valid", type=_Duration(), metavar="TIME", help="From now: 90s, 10m, 12h or 30d of the lab's time.")
@click.option("--authority", metavar="NAME", help="Who issues it; the lab's own if left out.")
@_trustpoint
@lab_option
@json_option
def issue(
    node: str,
    fqdns: tuple[str, ...],
    valid: float | None,
    authority: str | None,
    trustpoint: str | None,
    lab: str | None,
    as_json: bool,
) -> ExitStatus:
    """NODE gets a new certificate at once, and trusts who issued it.

    What is left out is as it should be: the lab's own authority, the node's own name, valid until the authority ends.
    """
    from labctl.lab.pki import orders

    wanted = orders.NewCertificate(trustpoint, authority, fqdns, valid)
    return _changed(lambda: orders.issue(chosen_lab(lab), node, wanted), "issued", as_json)


@command.command("revoke")
@_node
@_trustpoint
@lab_option
@json_option
def revoke(node: str, trustpoint: str | None, lab: str | None, as_json: bool) -> ExitStatus:
    """The certificate of NODE goes on its authority's revocation list, which every node gets at once."""
    from labctl.lab.pki import orders

    return _changed(lambda: orders.revoke(chosen_lab(lab), node, trustpoint), "revoked", as_json)


def _changed(order: Callable[[], Any], what: str, as_json: bool) -> ExitStatus:
    from labctl.cli.terminal import write_json, write_line
    from labctl.configuration import to_json
    from labctl.lab.loop import run

    changed: Changed = run(order())
    if as_json:
        write_json(to_json(changed))
        return ExitStatus.OK
    item = changed.certificate
    names = ", ".join(item.fqdns) or item.subject
    until = "" if what == "revoked" else f", valid until {moment(item.not_after)}"
    write_line(f"{item.node}: certificate {serial(item.serial)} of {item.authority} for {names} {what}{until}")
    tell(changed.told)
    return ExitStatus.OK


def tell(told: Told) -> None:
    """Who heard of it."""
    from labctl.cli.terminal import write_line

    if told.nodes:
        write_line(f"told {', '.join(told.nodes)}")
    if told.waiting:
        write_line(f"not up, will have it when started: {', '.join(told.waiting)}")


def moment(seconds: float) -> str:
    """A time of the lab, as certificates say theirs: UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def serial(number: int) -> str:
    """As routers show it: hex."""
    return f"{number:02X}"


def _print(report: PkiReport) -> None:
    from rich.text import Text

    from labctl.cli.rendering import plain_table
    from labctl.cli.terminal import console

    screen = console()
    if not report.certificates:
        screen.print("No node has a certificate: no group says 'authentication: rsa-sig' or 'ecdsa-sig'.")
        return
    screen.print(f"The lab's time is {moment(report.now)}.")
    if not report.check_revocation:
        screen.print("Nobody looks at revocation lists ('revocation-check: none').")
    authorities = plain_table("AUTHORITY", "KEY", "VALID UNTIL", "CRL", "REVOKED", "TRUSTED BY")
    for item in report.authorities:
        revoked = " ".join(map(serial, item.revoked)) or "-"
        trusting = " ".join(item.trusted_by) or "-"
        authorities.add_row(item.name, item.key, moment(item.not_after), str(item.crl_number), revoked, trusting)
    certificates = plain_table(
        "NODE", "TRUSTPOINT", "AUTHORITY", "SERIAL", "NAMES", "SUBJECT", "KEY", "VALID UNTIL", "STATUS"
    )
    styles = {"valid": "green"}
    for own in report.certificates:
        certificates.add_row(
            own.node,
            own.trustpoint,
            own.authority,
            serial(own.serial),
            " ".join(own.fqdns) or "-",
            own.subject,
            own.key,
            moment(own.not_after),
            Text(own.status, styles.get(own.status, "bold red")),
        )
    for table in (authorities, certificates):
        screen.print()
        screen.print(table)
    for own in report.certificates:
        if own.calls_itself not in (*own.fqdns, own.subject):
            screen.print(f"{own.node} calls itself {own.calls_itself}, which its certificate does not say.")
