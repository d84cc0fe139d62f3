"""numpy, without threads: the processes that import it are forked, or fork (labctl.fabric.forkserver)."""

from __future__ import annotations

import os

# Read once, when numpy's library for matrices is loaded, which nobody here uses. For who has set it, it stays.
_THREADS = "OPENBLAS_NUM_THREADS"

_ours = _THREADS not in os.environ
os.environ.setdefault(_THREADS, "1")
import numpy as np  # noqa: E402 - the environment first
from numpy.typing import DTypeLike, NDArray  # noqa: E402

if _ours:
    del os.environ[_THREADS]

__all__ = ["DTypeLike", "NDArray", "np"]
