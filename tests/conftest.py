"""What holds for every test, wherever the suite was started from."""

import re
import signal
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# A shell starts what runs in its background with SIGINT ignored, and a child inherits that: Ctrl-C, which tests send,
# would reach nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow machine fails no test: hypothesis, by itself, gives each example 200 ms.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Labs first: they take longest, and what is short fills the gaps at the end."""
    items.sort(key=lambda item: item.get_closest_marker("lab") is None and item.get_closest_marker("docker") is None)


class ByFileAndRuntime(LoadScopeScheduling):  # type: ignore[misc] # pytest-xdist has no types
    """What a worker of pytest-xdist runs as one: a file, or its labs on one runtime.

    A file's fixtures are made once for each runtime, so that its halves can run side by side. Seeds of the simulator
    and labs that ship share nothing.
    """

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        if file.endswith(("test_simulation_seeds.py", "test_lab_shipped.py")):
            return nodeid
        return f"{file} on docker" if re.search(r"\[(.*-)?docker(-.*)?\]$", test) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFileAndRuntime:
    """Ours, whatever `--dist` says, in the order in which tests were collected."""
    config.option.loadscopereorder = False
    return ByFileAndRuntime(config, log)
