"""Results as rows, JSON and JUnit XML."""

from __future__ import annotations

from xml.etree import ElementTree

from labctl.checks import HEADER, CheckResult, Verdict, junit, rows, to_json
from labctl.topology.checks import CheckKind

RESULTS = [
    CheckResult("reachable: any", CheckKind.REACHABLE, Verdict.PASSED, "6 pairs answered", 0.25, ("h1 -> h2: 3 of 3",)),
    CheckResult(
        "encrypted: h1 -> h2", CheckKind.ENCRYPTED, Verdict.FAILED, "3 packets <in clear>\x00", 1.5, ("a", "b")
    ),
    CheckResult("no-plain-text: any", CheckKind.NO_PLAIN_TEXT, Verdict.INCONCLUSIVE, "nothing passed"),
]


def test_rows_stand_under_the_header() -> None:
    table = rows(RESULTS)
    assert all(len(row) == len(HEADER) for row in table)
    assert table[0] == ("reachable: any", "passed", "0.25", "6 pairs answered")


def test_json_has_counts_and_every_reason() -> None:
    value = to_json(RESULTS)
    assert (value["passed"], value["failed"], value["inconclusive"]) == (1, 1, 1)
    assert value["checks"][1]["details"] == ["a", "b"]


def test_junit_is_xml_that_ci_counts_as_we_do() -> None:
    root = ElementTree.fromstring(junit(RESULTS, "my-lab"))
    suite = root.find("testsuite")
    assert suite is not None
    assert (suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("errors")) == (
        "my-lab",
        "3",
        "1",
        "1",
    )
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [result.name for result in RESULTS]
    failure = cases[1].find("failure")
    assert failure is not None and failure.get("message") == "3 packets <in clear>?"
    assert failure.text == "a\nb"
    assert cases[2].find("error") is not None
    assert cases[0].find("failure") is None and cases[0].find("error") is None


def test_no_results_are_a_document_too() -> None:
    assert ElementTree.fromstring(junit([], "empty")).find("testsuite") is not None
    assert rows([]) == []
