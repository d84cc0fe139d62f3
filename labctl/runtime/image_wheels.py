"""The wheels that the node image needs: collected outside the build, kept for the next one."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from labctl.runtime.protocol import RuntimeFailure

# What agents and the fabric import beside the standard library; the versions are those that run here.
NEEDED = ("cryptography", "cffi", "pycparser", "pyroute2", "numpy")

# glibc of Debian 12 and everything newer.
PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")

Progress = Callable[[str], None]


def requirements() -> list[str]:
    """`name==version` of each, as installed here."""
    found = []
    for name in NEEDED:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue  # cffi and pycparser are not needed by every build of cryptography
    return found


def collect(python: str, machine: str, folder: Path, progress: Progress) -> None:
    """Fill `folder`, for that Python and machine, from the cache or the package index. Raises RuntimeFailure."""
    key = hashlib.sha256(repr((python, machine, requirements())).encode()).hexdigest()[:16]
    cache = cache_folder() / "wheels" / f"py{python}-{machine}-{key}"
    if not cache.is_dir():
        progress(f"collecting wheels for Python {python} on {machine}")
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="new-", dir=cache.parent) as fresh:
            wheels = Path(fresh) / "wheels"
            _download(python, machine, wheels)
            # A whole folder or none, whoever else is at it.
            if not cache.is_dir():
                wheels.rename(cache)
    shutil.copytree(cache, folder)


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/labctl`, else `~/.cache/labctl`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labctl"


def _download(python: str, machine: str, folder: Path) -> None:
    platforms = [f"--platform={name}_{machine}" for name in PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms]
    command += [f"--dest={folder}", *requirements()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")][-1:]
        raise RuntimeFailure(
            f"the wheels for the image could not be collected: {last[0] if last else 'no reason given'}",
            "see that `pip download cryptography` works here; the wheels are kept for the next build",
        )
