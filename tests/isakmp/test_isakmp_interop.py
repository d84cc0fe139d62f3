"""Oracles that we did not write: strongSwan's charon completes Main Mode with us either way, ike-scan sees us."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
NEEDED = ("/usr/lib/ipsec/charon", "/usr/lib/ipsec/starter", "ike-scan", "unshare", "nsenter", "ip")

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the drive reports. A missing program is a failure in CI, a skip elsewhere."""
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        message = f"not installed: {', '.join(missing)} (.ci/packages installs them)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("charon")
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = subprocess.run(
        ["unshare", *own, "--net", "--mount", sys.executable, str(HERE / "interop_drive.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    log = folder / "charon.log"
    assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")
    content: dict[str, Any] = json.loads(done.stdout)
    return {**content, "log": log.read_text()}


def test_charon_completes_main_mode_with_us_as_responder(results: dict[str, Any]) -> None:
    seen = results["charon"]["psk"]["responder"]
    assert seen["established"] == ["10.77.0.1"], seen
    assert seen["doi"] == [1]
    # charon goes on with Quick Mode at once, protected by the keys that both sides derived.
    assert 32 in seen["exchanges"]


def test_charon_completes_main_mode_with_us_as_initiator(results: dict[str, Any]) -> None:
    seen = results["charon"]["psk"]["initiator"]
    assert seen["established"] == ["10.77.0.1"], seen
    assert seen["failures"] == []


@pytest.mark.parametrize("kind", ["rsa", "256", "384"])
@pytest.mark.parametrize("side", ["responder", "initiator"])
def test_charon_and_we_believe_each_others_certificates(results: dict[str, Any], kind: str, side: str) -> None:
    """Ours is below a CA that charon learns of from our message alone."""
    seen = results["charon"][kind][side]
    assert seen["proven"] == [f"CN=charon-{kind},O=lab"], seen
    assert seen["established"] == ["charon.lab.example" if kind == "rsa" else f"CN=charon-{kind},O=lab"]
    assert seen["failures"] == []
    if side == "responder":
        # charon goes on with Quick Mode, so it believes us too.
        assert 32 in seen["exchanges"]


def test_charon_asks_whether_we_live_and_believes_our_answers(results: dict[str, Any]) -> None:
    assert results["charon"]["life"]["initiator"]["counts"]["keepalives_answered"] >= 2
    assert "DPD check timed out" not in results["log"]


def test_charon_answers_when_we_ask_whether_it_lives(results: dict[str, Any]) -> None:
    seen = results["charon"]["life"]["initiator"]
    assert seen["counts"]["keepalives_sent"] >= 2 and seen["counts"]["dead_peers"] == 0
    assert seen["deleted"] == ["the test is over"], "nothing else ended it"


def test_deletes_are_understood_both_ways(results: dict[str, Any]) -> None:
    assert results["charon"]["life"]["responder"]["deleted"] == ["deleted by the peer"]
    assert "received DELETE for IKE_SA lab" in results["log"]


def test_ike_scan_gets_a_handshake(results: dict[str, Any]) -> None:
    output = results["ike-scan"]["output"]
    assert "Main Mode Handshake returned" in output
    assert "1 returned handshake" in output
    assert "VID=afcad71368a1f1c96b8696fc77570100 (Dead Peer Detection v1.0)" in output
