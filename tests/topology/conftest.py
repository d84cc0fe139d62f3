"""Topologies that several tests plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.topology import load, read
from labctl.topology.model import Topology
from labctl.topology.plan import Plan
from labctl.topology.planner import plan

SECRET = bytes(range(32))
TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"

Planned = Callable[[str], Plan]


@pytest.fixture
def planned() -> Planned:
    """Plans a topology text."""
    return lambda text: plan(read(text), secret=SECRET)


@pytest.fixture(scope="session")
def basic_topology() -> Topology:
    return load(TOPOLOGIES / "getvpn-basic.yml")


@pytest.fixture(scope="session")
def basic(basic_topology: Topology) -> Plan:
    return plan(basic_topology, secret=SECRET)
