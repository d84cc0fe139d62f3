"""The grammar: what a line is, how short it may be, and what IOS says of one that is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.ios.grammar.arguments import Integer, InterfaceName, Refused, ios_interface
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.language import GLOBAL, Language, Tree
from labctl.ios.grammar.reader import AmbiguousCommand, IncompleteCommand, InvalidInput, LineError
from labctl.ios.running import NotSupported, Running
from labctl.ios.text import LANGUAGE

RETRANSMIT = Command(
    "rekey retransmit {interval} number {count}",
    {"interval": Integer(10, 60), "count": Integer(1, 10)},
    helps={"rekey": "Rekey parameters"},
)
KEEPALIVE = Command(
    "crypto keepalive {interval} [{retry}] [periodic | on-demand]",
    {"interval": Integer(10, 3600, "Seconds"), "retry": Integer(2, 60)},
)
SMALL = Language([Tree({GLOBAL: (RETRANSMIT, KEEPALIVE, Command("rekey transport unicast"))})])


def values(line: str) -> dict[str, Any]:
    return SMALL.read([GLOBAL], line).match.values


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rekey retransmit 10 number 2", {"interval": 10, "count": 2}),
        ("rek ret 10 n 2", {"interval": 10, "count": 2}),
        ("REKEY  Retransmit 10   number 2 ", {"interval": 10, "count": 2}),
        ("c k 10", {"interval": 10}),
        ("c k 10 p", {"interval": 10, "periodic": True}),
        ("c k 10 3 on-demand", {"interval": 10, "retry": 3, "on-demand": True}),
        ("rekey tr u", {"unicast": True}),
    ],
)
def test_words_may_be_shortened(line: str, said: dict[str, Any]) -> None:
    if "unicast" in said:
        assert values(line) == {}  # the command itself says it
    else:
        assert values(line) == said


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("rekey", "% Incomplete command."),
        ("rekey retransmit 10", "% Incomplete command."),
        ("rekey retransmit 10 number", "% Incomplete command."),
        ("no", "% Incomplete command."),
        ("c", "% Incomplete command."),
    ],
)
def test_a_line_that_ends_too_early(line: str, answer: str) -> None:
    with pytest.raises(IncompleteCommand) as caught:
        values(line)
    assert str(caught.value) == answer


def test_a_word_that_may_be_several_is_shown_up_to_there() -> None:
    ambiguous = Language([Tree({GLOBAL: (RETRANSMIT, Command("rekey reset"))})])
    with pytest.raises(AmbiguousCommand) as caught:
        ambiguous.read([GLOBAL], "rekey re 10 number 2")
    assert str(caught.value) == '% Ambiguous command:  "rekey re"'


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("xyz", 0),
        ("rekex retransmit", 4),
        ("rekey retransmitt 10", 16),
        ("rekey retransmit 9 number 2", 17),
        ("rekey retransmit 10 number 11", 27),
        ("  rekey retransmit 10 nummer", 25),
        ("rekey retransmit 10 number 2 3", 29),
        ("no rekey transsport", 14),
        ("crypto keepalive 10 sometimes", 20),
    ],
)
def test_the_caret_is_under_the_first_character_that_is_wrong(line: str, column: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        values(line)
    assert caught.value.column == column
    assert caught.value.marked(4) == " " * (4 + column) + "^\n% Invalid input detected at '^' marker."


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("", ["crypto", "default", "no", "rekey"]),
        ("re", ["rekey"]),
        ("rekey ", ["retransmit", "transport"]),
        ("rekey t", ["transport"]),
        ("rekey retransmit ", ["<10-60>"]),
        ("rekey retransmit 10 number 2 ", ["<cr>"]),
        ("cr k 10 ", ["<2-60>", "on-demand", "periodic", "<cr>"]),
        ("no rekey retransmit ", ["<10-60>", "<cr>"]),
    ],
)
def test_the_question_mark_shows_what_may_stand_next(line: str, shown: list[str]) -> None:
    assert [item.shown for item in SMALL.suggest(GLOBAL, line)] == shown


def test_the_question_mark_explains() -> None:
    assert [item.help for item in SMALL.suggest(GLOBAL, "rek")] == ["Rekey parameters"]
    assert [item.help for item in SMALL.suggest(GLOBAL, "crypto keepalive ")] == ["Seconds"]


def test_a_line_of_the_mode_around_is_taken_there() -> None:
    said = Running(LANGUAGE)
    said.enter("crypto isakmp policy 10")
    said.enter("hash sha256")
    assert said.prompt == "config-isakmp"
    said.enter("interface gi0/1")
    assert said.prompt == "config-if"
    said.enter("crypto isakmp policy 10")
    said.enter("group 14")
    assert said.lines() == [
        "crypto isakmp policy 10",
        " hash sha256",
        " group 14",
        "!",
        "interface GigabitEthernet0/1",
    ]


def test_no_takes_back_and_default_does_too() -> None:
    said = Running(LANGUAGE)
    for line in (
        "crypto gdoi group G",
        "server local",
        "rekey transport unicast",
        "rekey lifetime seconds 600",
        "rekey retransmit 20 number 3",
        "no rekey acknowledgement",
    ):
        said.enter(line)
    shown = said.lines()
    assert shown[2:] == [
        "  rekey lifetime seconds 600",
        "  rekey retransmit 20 number 3",
        "  rekey transport unicast",
        "  no rekey acknowledgement",
    ]
    for line in ("no rekey transport unicast", "no rekey lifetime", "default rekey retransmit", "rekey ack cisco"):
        said.enter(line)
    assert said.lines() == ["crypto gdoi group G", " server local"]
    assert "  rekey lifetime seconds 86400" in said.lines(defaults=True)
    said.home()
    said.enter("no crypto gdoi group G")
    assert said.lines() == []


def test_a_list_keeps_its_order_and_its_numbers() -> None:
    said = Running(LANGUAGE)
    for line in (
        "ip access-list extended L",
        "permit ip any any",
        "deny tcp any any eq bgp",
        "permit ip any any",
        "5 deny ospf any any",
        "no 20",
        "deny pim any any",
    ):
        said.enter(line)
    entries = said.lines()[1:]
    assert entries == [" deny ospf any any", " permit ip any any", " deny pim any any"]
    said.enter("no permit ip any any")
    assert said.lines()[1:] == [" deny ospf any any", " deny pim any any"]


def test_what_labctl_does_not_do_is_said() -> None:
    said = Running(LANGUAGE)
    said.enter("crypto gdoi group G")
    said.enter("server local")
    with pytest.raises(NotSupported) as caught:
        said.enter("redundancy")
    assert str(caught.value) == "% 'redundancy' is not supported by labctl"


@pytest.mark.parametrize("word", ["GigabitEthernet0/1", "gi0/1", "Gig0/1", "g0/1", "eth1", "gi1"])
def test_interfaces_may_be_shortened(word: str) -> None:
    assert InterfaceName().read(word) == "eth1"
    assert ios_interface("eth1") == "GigabitEthernet0/1"


@pytest.mark.parametrize("word", ["Serial0/1", "gi", "gi0/x", "0/1", ""])
def test_what_is_no_interface(word: str) -> None:
    with pytest.raises(Refused):
        InterfaceName().read(word)


def test_a_blank_may_stand_before_an_interfaces_number() -> None:
    said = Running(LANGUAGE)
    said.enter("interface GigabitEthernet 0/1")
    assert said.lines() == ["interface GigabitEthernet0/1"]


COMMANDS = [(mode.name, command) for mode in LANGUAGE.modes.values() for command in mode.commands]


@pytest.mark.parametrize(("mode", "command"), COMMANDS, ids=lambda item: getattr(item, "pattern", item))
def test_every_keyword_and_argument_is_explained(mode: str, command: Command) -> None:
    for line in prefixes(command):
        for item in LANGUAGE.suggest(mode, line):
            assert item.help or item.shown == "<cr>" or not item.shown.isalpha(), (line, item.shown)


def prefixes(command: Command) -> list[str]:
    """The command's keywords before its first argument, one more each."""
    words = command.pattern.split()
    plain = words[: next((number for number, word in enumerate(words) if not word.isalpha()), len(words))]
    return [" ".join(plain[:count]) + " " for count in range(len(plain))] or [""]


WORDS = sorted({word for _, command in COMMANDS for word in command.pattern.replace("|", " ").split()})


@given(
    st.lists(st.sampled_from([*WORDS, "10", "10.1.1.1", "any", "no", "exit", "?", "G", "gi0/1"]), max_size=9),
    st.text(max_size=9),
)
def test_any_text_is_an_effect_or_an_answer_of_ios(words: list[str], text: str) -> None:
    said = Running(LANGUAGE)
    for line in (" ".join(words), text, f"{' '.join(words[:3])} {text}"):
        try:
            said.enter(line)
        except LineError as error:
            assert str(error).startswith("% ")
        for mode in LANGUAGE.modes:
            try:
                LANGUAGE.suggest(mode, line)
            except LineError as error:
                assert str(error).startswith("% ")
        said.lines(defaults=True)
