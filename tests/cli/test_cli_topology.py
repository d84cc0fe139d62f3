"""Verbs that need no lab: check, plan, schema. They touch nothing, and a plan shows no key."""

from __future__ import annotations

import json
from pathlib import Path

from cli_outcome import Labctl

BAD = """\
name: bad
nodes: {ce1: ce, ce2: cee}
links:
  - ce1 -- ce3
"""

GOOD = """\
name: good
nodes: {ks1: ks, pe1: pe, ce1: ce, ce2: ce}
links: [ks1 -- pe1, ce1 -- pe1, ce2 -- pe1]
groups:
  G:
    identity: 1
    key-servers: [ks1]
    members: [ce1, ce2]
    policy: [permit ip 10.0.0.0/8 10.0.0.0/8]
    transform: esp-gcm 256
    pre-shared-keys: OurSecretWord
"""


def test_check_says_everything_that_is_wrong_and_where(labctl: Labctl, tmp_path: Path) -> None:
    Path("topology.yml").write_text(BAD)
    shown = labctl("check")
    assert shown.status == 2
    assert shown.stdout == ""
    lines = shown.stderr.splitlines()
    assert len(lines) == 2
    assert all(":2:" in line or ":4:" in line for line in lines)
    assert "Did you mean" in shown.stderr or "did you mean" in shown.stderr
    assert not (tmp_path / "state").exists(), "nothing was touched"


def test_check_for_programs_has_a_place_for_each_problem(labctl: Labctl) -> None:
    Path("topology.yml").write_text(BAD)
    shown = labctl("check", "--json")
    assert shown.status == 2
    problems = json.loads(shown.stdout)["errors"]
    assert [item["line"] for item in problems] == [2, 4]
    assert all(item["column"] and item["what"] for item in problems)


def test_check_of_a_good_topology_says_what_there_would_be(labctl: Labctl) -> None:
    shown = labctl("check", "two-sites")
    assert shown.status == 0
    assert "6 nodes, 5 links, 1 group" in shown.stdout
    assert json.loads(labctl("check", "two-sites", "--json").stdout)["errors"] == []


def test_up_of_a_bad_topology_touches_nothing(labctl: Labctl, tmp_path: Path) -> None:
    Path("topology.yml").write_text(BAD)
    assert labctl("up").status == 2
    assert not (tmp_path / "state").exists()


def test_a_file_that_is_not_there_is_named(labctl: Labctl) -> None:
    shown = labctl("up", "nowhere.yml")
    assert shown.status == 2
    assert "no topology file nowhere.yml" in shown.stderr


def test_plan_shows_everything_but_keys(labctl: Labctl, tmp_path: Path) -> None:
    Path("topology.yml").write_text(GOOD)
    shown = labctl("plan")
    assert shown.status == 0, shown.stderr
    for words in ("ks1:eth0--pe1:eth0", "esp-gcm 256", "permit ip 10.0.0.0/8 10.0.0.0/8", "(crypto map)"):
        assert words in shown.stdout
    as_json = labctl("plan", "--json").stdout
    keys = [key["secret"] for node in json.loads(as_json)["nodes"] for key in node["configuration"]["pre_shared_keys"]]
    assert keys
    assert len(set(keys)) == 1, "the same words for each, and not the key"
    for text in (shown.stdout, as_json):
        assert "OurSecretWord" not in text
        assert b"OurSecretWord".hex() not in text
    assert not (tmp_path / "state").exists(), "nothing was touched"


def test_a_table_down_a_pipe_has_no_blanks_at_its_right(labctl: Labctl) -> None:
    lines = labctl("plan", "two-sites").stdout.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []


def test_plan_shows_certificates_with_what_is_wrong_and_key_pairs(labctl: Labctl) -> None:
    shown = {tuple(line.split()) for line in labctl("plan", "pki").stdout.splitlines()}
    subject, key = "CN=%s,OU=members,O=pki", ("RSA", "2048")
    assert ("ce1", "LAB_CA", subject % "ce1", "ce1.lab.example", *key, "-") in shown
    assert ("ce3", "LAB_CA", subject % "ce3", "ce3.lab.example", *key, "expired") in shown
    assert ("ce4", "OTHER_CA", subject % "ce4", "ce4.lab.example", *key, "authority") in shown
    assert ("ce5", "LAB_CA", subject % "ce5", "elsewhere.lab.example", *key, "name") in shown
    assert ("KS_REKEY_KEY", "2048", "ks1") in shown


def test_plan_shows_what_is_translated_and_what_is_marked(labctl: Labctl) -> None:
    shown = {tuple(line.split()) for line in labctl("plan", "nat-before").stdout.splitlines()}
    assert ("ce1", "eth1", "eth0", "10.1.1.10", "10.200.1.10") in shown
    assert ("ce2", "eth1", "eth0", "10.1.2.0/24", "10.200.2.1,", "overload") in shown
    shown = {tuple(line.split()) for line in labctl("plan", "qos").stdout.splitlines()}
    assert ("ce1", "eth1", "permit", "udp", "any", "any", "eq", "5060", "24") in shown
    assert ("ce1", "eth1", "deny", "icmp", "any", "any", "-") in shown
    assert not any("NAT" in line for line in shown)


def test_the_same_file_is_planned_the_same_way_twice(labctl: Labctl) -> None:
    assert labctl("plan", "getvpn-basic", "--json").stdout == labctl("plan", "getvpn-basic", "--json").stdout


def test_schema_is_a_json_schema(labctl: Labctl) -> None:
    schema = json.loads(labctl("schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "nodes" in schema["properties"]


def test_down_without_a_lab_is_fine(labctl: Labctl) -> None:
    assert labctl("down").stdout == "No lab is up: nothing to take down.\n"
    assert labctl("down", "--all").status == 0


def test_verbs_that_need_a_lab_say_how_to_get_one(labctl: Labctl) -> None:
    for words in (("exec", "h1", "true"), ("logs",), ("events",), ("capture", "a--b"), ("test",), ("shell", "h1")):
        shown = labctl(*words)
        assert (shown.status, shown.stderr) == (5, "labctl: no lab is up. 'labctl up TOPOLOGY' starts one.\n"), words
    assert json.loads(labctl("ps", "--json").stdout) == {"labs": []}


def test_a_lab_that_is_not_up_is_no_lab(labctl: Labctl) -> None:
    assert labctl("ps", "--lab", "nosuch").status == 5
