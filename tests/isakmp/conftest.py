"""Fixtures of the ISAKMP tests."""

from __future__ import annotations

import pytest
from isakmp_parties import MEMBER, SERVER, Party


@pytest.fixture
def pair() -> tuple[Party, Party]:
    """A member and a server that share a key."""
    return Party(MEMBER, keys={SERVER: b"LabPsk1"}), Party(SERVER, keys={MEMBER: b"LabPsk1"})
