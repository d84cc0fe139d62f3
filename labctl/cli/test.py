"""`labctl test`."""

from __future__ import annotations

from pathlib import Path

import click

from labctl.cli.options import chosen_lab, complete_checks, json_option, lab_option
from labctl.cli.status import ExitStatus


@click.command("test")
@click.argument("words", nargs=-1, metavar="[CHECK]...", shell_complete=complete_checks)
@lab_option
@json_option
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Also write JUnit XML.")
def command(words: tuple[str, ...], lab: str | None, as_json: bool, junit: Path | None) -> ExitStatus:
    """Prove with real packets that the lab does what its topology states.

    CHECK is a check's name or a kind (reachable, registered, encrypted, ...); without it, all of them, side by side.
    Exit status 3 if one fails or cannot be tested.
    """
    from labctl import checks
    from labctl.cli.rendering import check_results
    from labctl.cli.terminal import console, write_json
    from labctl.lab.loop import run
    from labctl.lab.session import opened
    from labctl.lab.standing import standing_plan

    directory = chosen_lab(lab)
    plan = standing_plan(directory)

    async def run_checks() -> list[checks.CheckResult]:
        async with opened(directory) as door:
            return await checks.run(plan, door, words)

    try:
        results = run(run_checks())
    except checks.UnknownCheck as error:
        raise click.UsageError(f"{error.what}: {error.hint}") from None
    if junit is not None:
        try:
            junit.write_text(checks.junit(results, plan.lab))
        except OSError as error:
            raise click.FileError(str(junit), error.strerror or str(error)) from None
    if as_json:
        write_json({"lab": plan.lab, **checks.to_json(results)})
    else:
        check_results(results, console())
    return ExitStatus.OK if all(result.passed for result in results) else ExitStatus.CHECK_FAILED
