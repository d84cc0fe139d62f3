"""Every lab that ships comes up, proves itself and goes without a trace, on both runtimes."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_command import Labctl
from lab_traces import Machine, namespaces_of, processes, require_engine

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "topologies").glob("*.yml"))


def test_there_are_labs_to_ship() -> None:
    assert {path.stem for path in SHIPPED} >= {"getvpn-basic", "two-sites", "hub-lan", "open-network"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_lab_proves_itself(path: Path, runtime_name: str, tmp_path: Path) -> None:
    if runtime_name == "docker":
        require_engine()
    name = f"shipped-{path.stem}"
    (tmp_path / "topology.yml").write_text(path.read_text().replace(f"name: {path.stem}", f"name: {name}", 1))
    before = Machine.before(tmp_path / "state")
    labctl = Labctl(before.state, tmp_path, runtime_name)
    had: set[str] = set()
    try:
        labctl.up()
        had = namespaces_of(processes(before.state))
        report = labctl.json("test")
        assert report["failed"] == report["inconclusive"] == 0
        assert report["passed"] == len(report["checks"]) > 0
        assert "nothing to do" in labctl.up().stdout
    finally:
        labctl("down", name)
    assert before.traces(had) == []
