"""`labctl simulate`: a design's month from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_outcome import Labctl

from labctl.gdoi.policy import PolicyRule


def test_a_shipped_topology_lives_a_day(labctl: Labctl) -> None:
    done = labctl("simulate", "rekey-unicast", "--hours", "24", "--members", "5")
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith("rekey-unicast: 5 members, 1 key servers, 24 hours, seed 1\nTEK 3600 s, KEK 86400 s")
    assert "5 of 5" in done.stdout and done.stdout.rstrip().endswith("Everything held.")


def test_the_same_command_prints_the_same(labctl: Labctl) -> None:
    words = ("simulate", "chaos", "--seed", "12", "--hours", "200", "--routine")
    assert labctl(*words).stdout == labctl(*words).stdout


def test_options_change_the_design_and_orders_come_at_their_time(labctl: Labctl) -> None:
    words = ("--tek", "600", "--transport", "none", "--hours", "5", "--at", "2h cut m2 30m", "--at", "4h evict m1")
    answer = json.loads(labctl("simulate", "getvpn-basic", *words, "--loss", "1%", "--json").stdout)
    assert answer["rekeys_sent"] == 0 and answer["counts"]["registrations"] > 3 * 20
    assert answer["violations"] == [] and answer["network"]["lost"] > 0 and answer["network"]["cut"] > 0
    said = [(line["at"], line["text"]) for line in answer["timeline"]]
    assert (7200.0, "m2 cut off for 1800 s") in said and (9000.0, "m2 back") in said
    assert answer["messages"]["KS_GM_REVOKED"] > 0


def test_a_sweep_adds_up_and_names_the_seeds_that_failed(labctl: Labctl, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("simulate", "chaos", "--seeds", "4", "--seed", "5", "--hours", "200", "--jobs")
    done = labctl(*words, "2")
    assert done.status == 0 and "4 seeds" in done.stdout and "Everything held." in done.stdout
    monkeypatch.setattr(PolicyRule, "sending", lambda rule, *_: rule.spis[-1])
    done = labctl(*words, "1")
    assert done.status == 3 and "decrypt each other" in done.stdout
    assert "'labctl simulate chaos --seed " in done.stdout
    failed = json.loads(labctl(*words, "1", "--json").stdout)["failed"]
    assert failed and failed[0]["violations"][0]["invariant"] == "decrypt"


def test_a_sweep_that_was_stopped_goes_on_where_it_was(labctl: Labctl, tmp_path: Path) -> None:
    record = tmp_path / "seeds.jsonl"
    words = ("simulate", "chaos", "--hours", "100", "--jobs", "1", "--record", str(record), "--json", "--seeds")
    whole = json.loads(labctl(*words, "4").stdout)
    lines = record.read_text().splitlines(keepends=True)
    assert [json.loads(line)["seed"] for line in lines] == [1, 2, 3, 4]
    # Killed in the middle of its third line.
    record.write_text("".join(lines[:2]) + lines[2][:30])
    assert json.loads(labctl(*words, "4").stdout) == whole
    assert record.read_text().splitlines(keepends=True) == lines
    # Nothing is left to do, and a failure of before is told again.
    failed = {**json.loads(lines[0]), "violations": [{"invariant": "LIFE", "at": 1.0, "what": "m1 was late"}]}
    record.write_text(json.dumps(failed) + "\n")
    done = labctl("simulate", "chaos", "--hours", "100", "--record", str(record), "--seeds", "1")
    assert done.status == 3 and "seed 1: no key is used past its life: m1 was late" in done.stdout


def test_a_sweep_that_is_interrupted_keeps_what_is_done_and_says_so_in_one_line(tmp_path: Path) -> None:
    record = tmp_path / "seeds.jsonl"
    words = ("simulate", "chaos", "--seeds", "100000", "--hours", "24", "--jobs", "2", "--record", str(record))
    labctl = subprocess.Popen(
        [str(Path(sys.executable).parent / "labctl"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (record.exists() and record.read_text().count("\n") >= 4):
        assert labctl.poll() is None
        time.sleep(0.05)
    # As a terminal does it: to every process.
    os.killpg(labctl.pid, signal.SIGINT)
    out, said = labctl.communicate()
    assert (out, said.splitlines()[-1]) == ("", "labctl: interrupted.") and "Traceback" not in said
    assert all(json.loads(line)["violations"] == [] for line in record.read_text().splitlines())


def test_a_record_of_another_sweep_is_not_added_up(labctl: Labctl, tmp_path: Path) -> None:
    record = tmp_path / "seeds.jsonl"
    words = ("simulate", "chaos", "--seeds", "1", "--record", str(record), "--hours")
    assert labctl(*words, "50").status == 0
    done = labctl(*words, "60")
    assert done.status == 2 and f"{record}:1: a result of chaos over 50 hours, not of chaos over 60" in done.stderr
    record.write_text("anything\n")
    assert f"{record}:1: no result of a seed" in labctl(*words, "50").stderr
    done = labctl("simulate", "chaos", "--hours", "50", "--record", str(record))
    assert done.status == 2 and "--record is for sweeps" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("open-network",), "topology open-network has no group"),
        (("getvpn-basic", "--group", "LUB"), "has no group 'LUB'. It has GETVPN_LAB"),
        (("getvpn-basic", "--loss", "3"), "'3' is no share"),
        (("getvpn-basic", "--delay", "fast"), "'fast' is no duration"),
        (("getvpn-basic", "--at", "2h cut m2"), "cut needs duration"),
        (("getvpn-basic", "--at", "2h rekey ks1 5m"), "rekey has no duration"),
        (("getvpn-basic", "--at", "2h rekey m1"), "'m1' cannot rekey. One of ks1"),
        (("getvpn-basic", "--at", "2h cut m9 5m"), "'m9' cannot cut. One of ks1, m1, m2, m3"),
        (("getvpn-basic", "--at", "soon"), "'soon' is no order"),
        (("getvpn-basic", "--tek", "7200", "--kek", "3600"), "traffic keys live 7200 s"),
        (("no-such-lab",), "no-such-lab"),
    ],
)
def test_what_cannot_be_simulated_is_said(labctl: Labctl, words: tuple[str, ...], said: str) -> None:
    done = labctl("simulate", *words)
    assert (done.status, done.stdout) == (2, "")
    assert said in done.stderr.replace("\n", " ")
