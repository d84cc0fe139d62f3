"""Where the node image begins: an image that is there, one that is pulled, or one bootstrapped without any registry.

Facts: mmdebstrap(1).
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labctl.runtime.docker_client import Gone, engine_failures
from labctl.runtime.protocol import RuntimeFailure

DEFAULT_BASE = "debian:bookworm-slim"
SUITE = "bookworm"
BOOTSTRAPPED = f"labctl-base:{SUITE}-"  # and a digest of the packages in it

Progress = Callable[[str], None]

_NO_MMDEBSTRAP = "sudo apt-get install --no-install-recommends mmdebstrap"
_APT_LISTS = (".list", ".sources")
_SKIPPED = ("doc", "man", "locale", "info")


def find_base(client: Any, base: str | None, bootstrap: bool, packages: Path, progress: Progress) -> str:
    """The name of an image that is there: `base`, else a bootstrapped one, else the default. Raises RuntimeFailure.

    Where the default cannot be pulled and mmdebstrap is at hand, a base is bootstrapped from the list in `packages`.
    """
    own = BOOTSTRAPPED + hashlib.sha256(packages.read_bytes()).hexdigest()[:8]
    if base is not None and base.startswith(BOOTSTRAPPED):
        base, bootstrap = None, True  # perhaps of an older list of packages
    wanted = base or (own if bootstrap or _exists(client, own) else DEFAULT_BASE)
    if _exists(client, wanted):
        return wanted
    if wanted == own:
        _bootstrap(client, own, packages, progress)
        return own
    try:
        _pull(client, wanted, progress)
    except RuntimeFailure as failure:
        if base is not None:
            raise RuntimeFailure(failure.message, "name an image that is here: 'docker image ls'") from None
        if shutil.which("mmdebstrap") is None or os.geteuid() != 0:
            raise RuntimeFailure(
                failure.message,
                f"make a base without a registry: {_NO_MMDEBSTRAP}, then sudo labctl image build --bootstrap; "
                "or name one that is here: labctl image build --base IMAGE; or use --runtime namespaces",
            ) from None
        progress(f"{failure.message}: making one instead")
        _bootstrap(client, own, packages, progress)
        return own
    return wanted


def python_of(client: Any, base: str) -> tuple[str, str]:
    """Version and machine of the base's Python 3; Debian 12's where the base gets its Python while building."""
    script = "import platform, sys; print('%d.%d' % sys.version_info[:2], platform.machine())"
    with engine_failures(f"look into {base}"):
        container = client.create_container(base, ["python3", "-c", script], network_disabled=True)["Id"]
        try:
            client.start(container)
            if client.wait(container)["StatusCode"] == 0:
                python, machine = client.logs(container).decode().split()
                return str(python), str(machine)
        except Exception as error:  # the engine answers in several ways that there is no python3
            if "python3" not in str(error):
                raise
        finally:
            client.remove_container(container, force=True)
    return "3.11", platform.machine()


def _exists(client: Any, image: str) -> bool:
    try:
        with engine_failures(f"look for image {image}"):
            client.inspect_image(image)
    except Gone:
        return False
    return True


def _pull(client: Any, base: str, progress: Progress) -> None:
    progress(f"pulling {base}")
    repository, _, tag = base.rpartition(":") if ":" in base.rpartition("/")[2] else (base, "", "latest")
    try:
        with engine_failures(f"pull {base}"):
            for line in client.pull(repository, tag=tag, stream=True, decode=True):
                if "error" in line:
                    raise RuntimeFailure(str(line["error"]))
    except RuntimeFailure as failure:
        why = failure.message.removeprefix(f"pull {base}: ")
        raise RuntimeFailure(f"the base image {base} is not here and cannot be pulled ({why})") from None


def _bootstrap(client: Any, name: str, packages: Path, progress: Progress) -> None:
    """A Debian base, imported as an image."""
    if shutil.which("mmdebstrap") is None:
        raise RuntimeFailure("mmdebstrap is not installed", _NO_MMDEBSTRAP)
    progress("making a Debian base with mmdebstrap, about half a minute")
    listed = [line for line in packages.read_text().splitlines() if line and not line.startswith("#")]
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _SKIPPED]
    options += [f"--aptopt={path}" for path in _apt_transport_settings()]
    mode = "root" if os.geteuid() == 0 else "auto"
    with tempfile.TemporaryDirectory(prefix="labctl-base-") as folder:
        archive = Path(folder) / "base.tar"
        command = ["mmdebstrap", "--quiet", f"--mode={mode}", "--variant=minbase", f"--include={','.join(listed)}"]
        command += [*options, SUITE, str(archive), *map(str, _apt_sources())]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise RuntimeFailure(f"mmdebstrap failed: {last[0]}", "run it as root, and see that apt-get update works")
        progress("importing the base")
        repository, _, tag = name.partition(":")
        with engine_failures("import the base image"):
            client.import_image_from_file(str(archive), repository=repository, tag=tag)


def _apt_sources() -> list[Path]:
    """This machine's own lists where they are of the suite we want; without any, mmdebstrap knows Debian's mirror."""
    paths = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("debian*"))]
    lists = [path for path in paths if path.is_file() and path.suffix in _APT_LISTS]
    return [path for path in lists if SUITE in path.read_text(errors="replace")]


def _apt_transport_settings() -> list[Path]:
    """What an administrator set on this machine for apt (proxies, certificates); by custom, in files of 99."""
    return [path for path in sorted(Path("/etc/apt/apt.conf.d").glob("99*")) if path.is_file()]
