"""The IOS language: a long configuration, and the question mark."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.command import Labctl

# Seconds, milliseconds.
LOAD_GOAL, HELP_GOAL = 2.0, 20.0

ENTRIES, ROUTES, GROUPS = 2000, 2000, 1000
QUESTIONS = ("", "crypto ", "crypto isakmp ", "ip ", "no crypto gdoi ")

_PEER = """
import json, sys, time
from ciscoconfparse2 import CiscoConfParse
lines = open(sys.argv[1]).read().splitlines()
begin = time.process_time()
parsed = CiscoConfParse(lines, syntax="ios")
print(json.dumps(time.process_time() - begin))
"""


def configuration() -> str:
    """10,000 lines that a key server might have."""
    lines = ["ip access-list extended ENC_POLICY"]
    lines += [f" permit tcp 10.{number // 250}.{number % 250}.0 0.0.0.255 any eq 443" for number in range(ENTRIES)]
    lines += [f"ip route 10.{number // 250}.{number % 250}.0 255.255.255.0 10.0.0.1" for number in range(ROUTES)]
    for number in range(GROUPS):
        lines += [
            f"crypto isakmp key Secret{number} address 10.3.{number // 250}.{number % 250}",
            f"crypto gdoi group G{number}",
            f" identity number {number}",
            " server address ipv4 10.0.0.1",
            " server address ipv4 10.0.0.2",
            f"crypto map M {number + 1} gdoi",
        ]
    return "\n".join(lines) + "\n"


def ios(_: Labctl) -> None:
    """10,000 lines of configuration read and shown, and the question mark, beside ciscoconfparse2."""
    from labctl.ios.running import Running
    from labctl.ios.text import LANGUAGE

    text = configuration()
    said = Running(LANGUAGE)
    loading = _seconds(partial(said.load, text))
    showing = _seconds(said.lines)
    print(f"  {text.count(chr(10))} lines read in {loading:.2f} s, goal {LOAD_GOAL:.0f}; shown in {showing:.2f} s")
    slowest = max(_seconds(partial(LANGUAGE.suggest, "config", line)) for line in QUESTIONS)
    print(f"  '?' takes {slowest * 1000:.2f} ms at most, goal {HELP_GOAL:.0f}")
    theirs = _peer(text)
    if theirs is None:
        print("  ciscoconfparse2: left out, it could not be installed")
    else:
        print(f"  ciscoconfparse2 reads them in {theirs:.2f} s, without looking into them: {theirs / loading:.1f} x")


def _seconds(action: Callable[[], object]) -> float:
    begin = time.process_time()
    action()
    return time.process_time() - begin


def _peer(text: str) -> float | None:
    with tempfile.TemporaryDirectory(prefix="labctl-bench-") as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True)
        python = str(place / "venv" / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "ciscoconfparse2"], capture_output=True, check=False)
        (place / "router.cfg").write_text(text)
        done = subprocess.run(
            [python, "-c", _PEER, str(place / "router.cfg")], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(f"  {(done.stderr.strip().splitlines() or ['it failed'])[-1]}", file=sys.stderr)
            return None
        return float(json.loads(done.stdout.strip().splitlines()[-1]))
