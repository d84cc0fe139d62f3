"""`labctl bench`: it measures what it says, in namespaces that go with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from labctl.cli.bench import table
from labctl.cli.entry import run
from labctl.measure import isolated, stream
from labctl.measure.isolated import Measured, Unmeasurable, measure_pairs
from labctl.measure.traffic import Figures

SLOW = Figures({64: 20_000.0, 1400: 10_000.0}, {64: 20.0, 1400: 30.0}, 500.0, 0.3)
FAST = Figures({64: 200_000.0, 1400: 100_000.0}, {64: 0.0, 1400: 0.0}, 4000.0, 0.05)


@pytest.mark.lab
def test_a_pair_of_members_is_measured_beside_forwarding_and_leaves_nothing() -> None:
    words = [sys.executable, "-m", "labctl", "bench", "--json", "--seconds", "0.2", "--transform", "esp-gcm  128"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    found = json.loads(out)
    assert [pair["transform"] for pair in found["pairs"]] == ["", "esp-gcm 128"]
    for pair in found["pairs"]:
        figures = pair["figures"]
        assert min(figures["packets"].values()) > 0 and figures["tcp"] > 0 and figures["ping"] > 0
        # Packets cost processor time where a process carries them.
        assert all((used > 0) == bool(pair["transform"]) for used in figures["cpu"].values())
    assert next(line for line in err.splitlines() if "esp-gcm 128: " in line) == "esp-gcm 128: packets of 64 octets"
    assert sessions().count(process.pid) == 0


def sessions() -> list[int]:
    """The session of every process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            found.append(int(entry.read_text().rsplit(")", 1)[1].split()[3]))
        except OSError:
            continue
    return found


def test_our_own_stream_counts_what_arrived() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    receiver = threading.Thread(target=stream.take, args=(port,))
    receiver.start()
    deadline = time.monotonic() + 20
    while True:
        try:
            assert stream.send(port, "127.0.0.1", 0.2) > 0
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
    receiver.join(20)


def test_the_best_of_all_rounds_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def inside(asked: dict[str, object]) -> list[dict[str, object]]:
        said: list[dict[str, object]] = []
        for number, figures in ((1, SLOW), (2, replace(FAST, cpu={64: 40.0, 1400: 50.0}, tcp=100.0))):
            for transform in ("", "esp-gcm 256"):
                said.append({"transform": transform, "round": number, "doing": "TCP"})
                as_json = json.loads(json.dumps({"packets": figures.packets, "cpu": figures.cpu}))
                numbers = {**as_json, "tcp": figures.tcp, "ping": figures.ping}
                said.append({"transform": transform, "round": number, "figures": numbers})
        return said

    monkeypatch.setattr(isolated, "_inside", inside)
    told: list[str] = []
    plain, pair = measure_pairs(["esp-gcm 256"], told.append, rounds=2)
    assert (plain.transform, pair.transform) == ("", "esp-gcm 256")
    assert pair.figures == Figures(FAST.packets, SLOW.cpu, SLOW.tcp, FAST.ping)
    assert told[-1] == "esp-gcm 256 (2 of 2): TCP"


def test_the_table_compares_members_with_forwarding() -> None:
    screen = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    screen.print(table([Measured("", FAST), Measured("esp-gcm 256", SLOW)]))
    lines = [line.split() for line in screen.export_text().splitlines()]
    assert ["packets", "of", "64", "octets", "200,000", "/s", "20,000", "/s", "10%"] in lines
    assert ["round", "trip", "0.050", "ms", "0.300", "ms", "+0.250"] in lines
    assert ["CPU", "a", "packet", "of", "1,400", "-", "30.0", "us"] in lines


def test_what_stands_in_the_way_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unmeasurable, match="could not run"):
        list(isolated._inside({"transforms": [], "rounds": 1}))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unmeasurable, match="unshare is not installed") as missing:
        measure_pairs(["esp-gcm 256"], print)
    assert missing.value.hint == "apt install util-linux"


def test_a_transform_that_is_none_is_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "--transform", "esp-gmc 256"]) == 2
    assert "esp-gcm" in capsys.readouterr().err
