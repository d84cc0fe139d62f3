"""What holds for every test, wherever the suite was started from."""

import signal

import pytest
from hypothesis import settings

# A shell starts what runs in its background with SIGINT ignored, and a child inherits that: Ctrl-C, which tests send,
# would reach nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow machine fails no test: hypothesis, by itself, gives each example 200 ms.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a worker of pytest-xdist runs as one (`--dist loadgroup`): a file, or its labs on one runtime.

    A file's fixtures are made once for each runtime, so that its halves can run side by side.
    """
    for item in items:
        half = "-docker" if item.get_closest_marker("docker") else ""
        item.add_marker(pytest.mark.xdist_group(f"{item.location[0]}{half}"))
