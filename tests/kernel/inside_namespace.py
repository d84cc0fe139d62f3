"""The type of the `inside` fixture (conftest.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Inside = Callable[[Callable[[], Any]], Any]
