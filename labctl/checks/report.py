"""Results for people, programs and CI. Pure.

JUnit: the common ground of its readers (Jenkins, GitLab, GitHub actions): testsuite with counts, testcase with time,
`failure` for a statement that was refuted, `error` for one that could not be tested.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from labctl.checks.result import CheckResult, Verdict

HEADER = ("CHECK", "VERDICT", "SECONDS", "SEEN")

# Characters that XML 1.0 (2.2) has no way to write.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def rows(results: Sequence[CheckResult]) -> list[tuple[str, str, str, str]]:
    """One row a check, for a table under HEADER."""
    return [(result.name, result.verdict.value, f"{result.seconds:.2f}", result.reason) for result in results]


def to_json(results: Sequence[CheckResult]) -> dict[str, Any]:
    """Counts and every result."""
    return {
        "passed": _number(results, Verdict.PASSED),
        "failed": _number(results, Verdict.FAILED),
        "inconclusive": _number(results, Verdict.INCONCLUSIVE),
        "checks": [
            {
                "name": result.name,
                "kind": result.kind.value,
                "verdict": result.verdict.value,
                "reason": result.reason,
                "seconds": result.seconds,
                "details": list(result.details),
            }
            for result in results
        ],
    }


def junit(results: Sequence[CheckResult], lab: str) -> str:
    """A JUnit XML document."""
    suite = ElementTree.Element(
        "testsuite",
        name=_text(lab),
        tests=str(len(results)),
        failures=str(_number(results, Verdict.FAILED)),
        errors=str(_number(results, Verdict.INCONCLUSIVE)),
        skipped="0",
        time=f"{max((result.seconds for result in results), default=0.0):.3f}",
    )
    for result in results:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=_text(f"{lab}.{result.kind.value}"),
            name=_text(result.name),
            time=f"{result.seconds:.3f}",
        )
        details = _text("\n".join(result.details))
        if result.verdict is Verdict.PASSED:
            ElementTree.SubElement(case, "system-out").text = details
        else:
            tag = "failure" if result.verdict is Verdict.FAILED else "error"
            ElementTree.SubElement(case, tag, message=_text(result.reason), type=result.kind.value).text = details
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _number(results: Sequence[CheckResult], verdict: Verdict) -> int:
    return sum(result.verdict is verdict for result in results)


def _text(text: str) -> str:
    return _NOT_XML.sub("?", text)
