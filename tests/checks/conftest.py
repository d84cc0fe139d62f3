"""Benches: a topology, and a lab that misbehaves as told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from checks_lab import TOPOLOGIES, TWO_SITES, Bench


@pytest.fixture
def bench() -> Callable[[str], Bench]:
    """A bench for two-sites with these `checks:` lines."""

    def make(checks: str) -> Bench:
        return Bench(f"{TWO_SITES}checks:\n{checks}")

    return make


@pytest.fixture
def basic() -> Bench:
    """A bench for getvpn-basic and the checks that it implies."""
    return Bench((TOPOLOGIES / "getvpn-basic.yml").read_text())
