"""The reference page of the configuration language, from the grammar itself: `python -m labctl.ios.reference`."""

from __future__ import annotations

from collections.abc import Iterator

from labctl.ios.grammar.command import Command
from labctl.ios.grammar.pattern import Choice, Keyword, Optional, Pattern, Sequence, Slot
from labctl.ios.text import LANGUAGE

_HEAD = """# Configuration commands

Made from the grammar by `python -m labctl.ios.reference > docs/ios-commands.md`; [ios.md](ios.md) says how it is used.
Everything may be taken back with `no`. A command without a default is off until it is said.
"""


def reference_page() -> str:
    """Markdown: a table for each mode."""
    return "\n".join(_page()) + "\n"


def syntax(command: Command) -> str:
    """A command as IOS documentation writes it: `rekey retransmit <10-60> number <1-10>`."""
    return " ".join(_words(command, command.tree))


def _page() -> Iterator[str]:
    yield _HEAD
    opened = {command.mode: command for mode in LANGUAGE.modes.values() for command in mode.commands if command.mode}
    for name, mode in LANGUAGE.modes.items():
        entered = f", entered by `{syntax(opened[name])}`" if name in opened else ""
        yield f"## ({mode.prompt})\n\nPrompt `({mode.prompt})#`{entered}.\n"
        yield "| command | default |"
        yield "|---|---|"
        for command in mode.commands:
            yield f"| `{_escaped(syntax(command))}` | {_default(command)} |"
        yield ""


def _default(command: Command) -> str:
    if command.unsupported:
        return "not supported by labctl"
    return "" if command.default is None else f"`{_escaped(command.spelled(command.default))}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _words(command: Command, pattern: Pattern) -> list[str]:
    if isinstance(pattern, Keyword):
        return [pattern.text]
    if isinstance(pattern, Slot):
        metavar = command.arguments[pattern.name].metavar
        return [metavar if metavar.startswith("<") else pattern.name.upper()]
    if isinstance(pattern, Sequence):
        return [word for item in pattern.items for word in _words(command, item)]
    if isinstance(pattern, Optional):
        inner = " ".join(_words(command, pattern.item))
        return [f"[{inner[1:-1] if isinstance(pattern.item, Choice) else inner}]"]
    branches = (" ".join(_words(command, branch)) for branch in pattern.branches)
    return [f"{{{' | '.join(branches)}}}"]


if __name__ == "__main__":
    print(reference_page(), end="")
