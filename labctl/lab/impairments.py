"""Impairments of a lab that is up: who is asked, and what the words of the user mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labctl.configuration import Impairment, from_json, to_json
from labctl.impairment.reading import RuleWords, read_rule
from labctl.impairment.words import describe
from labctl.lab.directory import LabDirectory
from labctl.lab.errors import BadRequest
from labctl.lab.links import link_named
from labctl.lab.session import opened
from labctl.lab.standing import standing_plan


@dataclass(frozen=True, slots=True)
class ImpairedLink:
    """A link with its rules in words, and by sender what they did to its frames (labctl.fabric.impairments)."""

    name: str
    rules: tuple[str, ...]
    senders: dict[str, Any]


async def impair(directory: LabDirectory, word: str, rule: RuleWords, *, add: bool) -> ImpairedLink:
    """Give a link a rule: the only one, or with `add` before those it has. Raises BadRequest, NoSuchLab, DoorError."""
    link = link_named(standing_plan(directory), word)
    read, misfits = read_rule(rule, [end.node for end in link.ends])
    if misfits:
        raise BadRequest(f"--{misfits[0].key}: {misfits[0].problem}", misfits[0].hint)
    async with opened(directory) as connection:
        rules = [to_json(read)]
        if add:
            rules += (await connection.call("impairments"))["links"].get(link.name, {"rules": []})["rules"]
        await connection.call("impair", link=link.name, rules=rules)
    return ImpairedLink(link.name, _described(rules), {})


async def clear(directory: LabDirectory, word: str | None) -> list[str]:
    """Make a link (None: every link) a bare wire again; those that were impaired. Raises BadRequest, NoSuchLab."""
    name = None if word is None else link_named(standing_plan(directory), word).name
    async with opened(directory) as connection:
        impaired = (await connection.call("impairments"))["links"]
        wanted = [link for link in impaired if name in (None, link)]
        for link in wanted:
            await connection.call("impair", link=link, rules=[])
    return wanted


async def impaired_links(directory: LabDirectory) -> list[ImpairedLink]:
    """Every impaired link. Raises NoSuchLab."""
    async with opened(directory) as connection:
        found = (await connection.call("impairments"))["links"]
    return [ImpairedLink(name, _described(item["rules"]), item["senders"]) for name, item in found.items()]


def _described(rules: list[Any]) -> tuple[str, ...]:
    return tuple(describe(from_json(Impairment, rule)) for rule in rules)
