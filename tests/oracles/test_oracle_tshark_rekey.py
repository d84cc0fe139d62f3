"""tshark reads the rekeys of a real lab and their acknowledgements, after `labctl decode` with the key log."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path

import pytest
from oracle_lab import Lab, finish, read

pytestmark = pytest.mark.lab

FIELDS = [
    "isakmp.exchangetype",
    "isakmp.flag_e",
    "isakmp.typepayload",
    "isakmp.seq.seq",
    "isakmp.sat.spi",
    "isakmp.sat.src_id_data",
    "isakmp.kd.payload.type",
    "ip.src",
    "ip.dst",
    "_ws.malformed",
]
PUSH, ACK = "33", "35"
NETWORK = "0a010000ffff0000"


def rekeyed(lab: Lab, name: str) -> Path:
    """A capture at the key server while it sends one rekey, and every answer to it."""
    lab.up()
    process, wire = lab.capture("ks1:eth0", f"{name}.pcapng")
    lab.labctl("gdoi", "rekey", "ks1", "--lab", lab.name)
    deadline = time.monotonic() + 60
    while lab.group("ks1")["waiting_for"] or lab.group("ce1")["last_sequence"] != 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    finish(process)
    return wire


def decoded(lab: Lab, wire: Path, tshark: str) -> list[dict[str, str]]:
    """What tshark says of the rekeys and acknowledgements in it."""
    clear = wire.with_name(f"clear-{wire.name}")
    said = lab.labctl("decode", str(wire), "-w", str(clear), "--lab", lab.name)
    assert clear.stat().st_mode & 0o777 == 0o600
    # The command that it names runs as it is printed.
    shown = subprocess.run(["sh", "-c", said], capture_output=True, text=True, timeout=60, check=True)
    assert shlex.split(said)[1] == "tshark" and "Sequence" in shown.stdout
    rows = read(tshark, clear, FIELDS, "-Y", "isakmp.exchangetype in {33,35}", config=lab.keylog)
    return [dict(zip(FIELDS, row, strict=True)) for row in rows]


@pytest.mark.parametrize("transport", ["unicast", "multicast"])
def test_a_rekey_is_read_with_its_policy_and_keys_and_so_is_its_answer(
    tshark: str, transport: str, tmp_path: Path
) -> None:
    lab = Lab(tmp_path, f"rekey-{transport}")
    try:
        wire = rekeyed(lab, transport)
        before = read(tshark, wire, FIELDS, "-Y", "isakmp.exchangetype==33", config=lab.keylog)
        assert before and all(row[1] == "True" or row[1] == "1" for row in before), "nobody reads it before"
        rows = decoded(lab, wire, tshark)
        spis = [tek["spi"].removeprefix("0x") for tek in lab.group("ce1")["teks"]]
        members = set(lab.group("ks1")["members"])
    finally:
        lab.labctl("down", lab.name)
    pushes = [row for row in rows if row["isakmp.exchangetype"] == PUSH]
    answers = [row for row in rows if row["isakmp.exchangetype"] == ACK]
    for push in pushes:
        assert push["isakmp.flag_e"] in ("False", "0") and push["_ws.malformed"] == ""
        assert push["isakmp.typepayload"].split(",") == ["18", "1", "16", "16", "17", "9"], push
        assert int(push["isakmp.seq.seq"], 0) == 1
        assert [word.removeprefix("0x") for word in push["isakmp.sat.spi"].replace(":", "").split(",")] == spis
        assert set(push["isakmp.sat.src_id_data"].replace(":", "").split(",")) == {NETWORK}
        assert push["isakmp.kd.payload.type"] == "2,1,1", "the KEK, and both TEKs"
    if transport == "multicast":
        assert {push["ip.dst"] for push in pushes} == {"239.192.1.1"} and answers == []
        return
    assert {push["ip.dst"] for push in pushes} == members
    assert {answer["ip.src"] for answer in answers} == members and len(answers) == 3
    for answer in answers:
        assert answer["isakmp.typepayload"].split(",") == ["8", "18", "5"] and answer["_ws.malformed"] == ""
        assert int(answer["isakmp.seq.seq"], 0) == 1
