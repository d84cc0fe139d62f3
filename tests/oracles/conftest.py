"""Programs that we did not write."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def tshark() -> str:
    """The path of tshark."""
    found = shutil.which("tshark")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("tshark is not installed (.ci/packages installs it)")
        pytest.skip("tshark is not installed (.ci/packages installs it)")
    return found
