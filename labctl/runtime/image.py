"""The node image: built from this very code, rebuilt when the code is newer.

    base image  ->  + wheels that labctl needs  ->  + labctl's code        (images/node/Dockerfile)

The base is an argument. Where no registry can be reached, `bootstrap` makes one with mmdebstrap from the machine's own
apt sources. The label `labctl.source` says from which code an image was made.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import labctl
from labctl.runtime.docker_client import NotFound, engine_failures, open_client
from labctl.runtime.protocol import RuntimeFailure

IMAGE = "labctl-node:latest"
BOOTSTRAPPED = "labctl-base:bookworm"
DEFAULT_BASE = "debian:bookworm-slim"
SUITE = "bookworm"

SOURCE_LABEL = "labctl.source"

# What agents and the fabric import beside the standard library; the versions are those that run here.
NEEDED = ("cryptography", "cffi", "pycparser", "pyroute2")

# glibc of Debian 12 and everything newer.
WHEEL_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ImageState:
    """What is there: `identity` is None without an image, `current` says that it was made from this code."""

    identity: str | None
    current: bool
    base: str | None = None
    created: str | None = None


def _ignore(_: str) -> None:
    """No progress wanted."""


def package_folder() -> Path:
    """The code that goes into the image."""
    return Path(labctl.__file__).resolve().parent


def recipe_folder() -> Path:
    """images/: in the wheel beside the code, in a checkout above it. Raises RuntimeFailure."""
    for folder in (package_folder() / "_images", package_folder().parent / "images"):
        if (folder / "node" / "Dockerfile").is_file():
            return folder
    raise RuntimeFailure("the image's Dockerfile is missing from this installation", "install labctl anew")


def _code_files() -> Iterator[Path]:
    folder = package_folder()
    for path in sorted(folder.rglob("*.py")):
        if not any(part.startswith("_images") or part.startswith("_topologies") for part in path.parts):
            yield path


def source_digest() -> str:
    """SHA-256 over the code, the Dockerfile and the versions that go with them."""
    digest = hashlib.sha256()
    for path in (*_code_files(), *sorted((recipe_folder() / "node").iterdir())):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(repr(_requirements()).encode())
    return digest.hexdigest()


def _requirements() -> list[str]:
    found = []
    for name in NEEDED:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue  # cffi and pycparser are not needed by every build of cryptography
    return found


def state(client: Any | None = None) -> ImageState:
    """The present image. Raises RuntimeFailure where no engine answers."""
    client = client or open_client()
    with engine_failures("look for the node image"):
        try:
            found = client.inspect_image(IMAGE)
        except NotFound:
            return ImageState(None, False)
    labels = found["Config"].get("Labels") or {}
    current = labels.get(SOURCE_LABEL) == source_digest()
    return ImageState(found["Id"], current, labels.get("labctl.base"), found.get("Created"))


def ensure(progress: Progress = _ignore, client: Any | None = None) -> str:
    """The image's identity; built first where it is missing or older than the code."""
    client = client or open_client()
    found = state(client)
    if found.identity is not None and found.current:
        return found.identity
    progress("the node image is older than the code, rebuilding" if found.identity else "building the node image")
    return build(base=found.base, progress=progress, client=client)


def build(
    base: str | None = None, *, bootstrap: bool = False, progress: Progress = _ignore, client: Any | None = None
) -> str:
    """Build the image and return its identity. Raises RuntimeFailure.

    Without `base`: a bootstrapped base that is there already, else the default, pulled; with `bootstrap`, a
    bootstrapped one is made where it is missing.
    """
    client = client or open_client()
    base = _base(client, base, bootstrap, progress)
    with tempfile.TemporaryDirectory(prefix="labctl-image-") as folder:
        context = Path(folder)
        _collect_wheels(client, base, context / "wheels", progress)
        progress("packing the code")
        shutil.copy(recipe_folder() / "node" / "Dockerfile", context / "Dockerfile")
        for path in _code_files():
            target = context / "labctl" / path.relative_to(package_folder())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        progress(f"building {IMAGE} on {base}")
        return _run_build(client, base, context, progress)


def _base(client: Any, base: str | None, bootstrap: bool, progress: Progress) -> str:
    if base is None:
        base = BOOTSTRAPPED if bootstrap or _exists(client, BOOTSTRAPPED) else DEFAULT_BASE
    if _exists(client, base):
        return base
    if base == BOOTSTRAPPED:
        _bootstrap(client, progress)
        return base
    progress(f"pulling {base}")
    repository, _, tag = base.partition(":")
    try:
        with engine_failures(f"pull {base}"):
            client.pull(repository, tag=tag or "latest")
    except RuntimeFailure as error:
        raise RuntimeFailure(
            f"the base image {base} is not here and cannot be pulled: {error.message}",
            "name one that is here (--base IMAGE), or make one without a registry: sudo labctl image build --bootstrap",
        ) from None
    return base


def _exists(client: Any, image: str) -> bool:
    with engine_failures(f"look for image {image}"):
        try:
            client.inspect_image(image)
        except NotFound:
            return False
    return True


def _bootstrap(client: Any, progress: Progress) -> None:
    """A Debian base from the machine's own apt sources, imported as an image."""
    if shutil.which("mmdebstrap") is None:
        raise RuntimeFailure("mmdebstrap is not installed", "sudo apt-get install --no-install-recommends mmdebstrap")
    progress("making a Debian base with mmdebstrap, about half a minute")
    listed = (recipe_folder() / "node" / "packages").read_text().splitlines()
    packages = [line for line in listed if line and not line.startswith("#")]
    sources = [path for path in (Path("/etc/apt/sources.list"),) if path.is_file()]
    sources += sorted(path for path in Path("/etc/apt/sources.list.d").glob("debian*") if path.suffix in _APT_LISTS)
    options = [f"--aptopt={path}" for path in sorted(Path("/etc/apt/apt.conf.d").glob("99*")) if path.is_file()]
    skipped = ("doc", "man", "locale", "info")
    options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in skipped]
    mode = "root" if os.geteuid() == 0 else "auto"
    with tempfile.TemporaryDirectory(prefix="labctl-base-") as folder:
        archive = Path(folder) / "base.tar"
        command = ["mmdebstrap", "--quiet", f"--mode={mode}", "--variant=minbase"]
        command += [f"--include={','.join(packages)}", *options, SUITE, str(archive), *map(str, sources)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise RuntimeFailure(f"mmdebstrap failed: {last[0]}", "run it as root, and see that apt-get update works")
        progress("importing the base")
        repository, _, tag = BOOTSTRAPPED.partition(":")
        with engine_failures("import the base image"):
            client.import_image_from_file(str(archive), repository=repository, tag=tag)


_APT_LISTS = (".list", ".sources")


def _collect_wheels(client: Any, base: str, folder: Path, progress: Progress) -> None:
    """What the image's Python needs, for that Python and machine: from the cache, else from the package index."""
    python, machine = _python_of(client, base)
    key = hashlib.sha256(repr((python, machine, _requirements())).encode()).hexdigest()[:16]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = root / "labctl" / "wheels" / f"py{python}-{machine}-{key}"
    if not any(cache.glob("*.whl")):
        progress(f"collecting wheels for Python {python} on {machine}")
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="labctl-wheels-", dir=cache.parent) as fresh:
            _download(python, machine, Path(fresh))
            shutil.rmtree(cache, ignore_errors=True)
            shutil.copytree(fresh, cache)
    shutil.copytree(cache, folder)


def _download(python: str, machine: str, folder: Path) -> None:
    platforms = [f"--platform={name}_{machine}" for name in WHEEL_PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms]
    command += [f"--dest={folder}", *_requirements()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")][-1:] or [
            "no reason given"
        ]
        raise RuntimeFailure(
            f"the wheels for the image could not be collected: {last[0]}",
            "see that `pip download cryptography` works here; the wheels are kept for the next build",
        )


def _python_of(client: Any, base: str) -> tuple[str, str]:
    """Version and machine of the base's Python 3; Debian 12's where the base gets its Python while building."""
    script = "import platform, sys; print('%d.%d' % sys.version_info[:2], platform.machine())"
    with engine_failures(f"look into {base}"):
        container = client.create_container(base, ["python3", "-c", script], network_disabled=True)["Id"]
        try:
            client.start(container)
            if client.wait(container)["StatusCode"] == 0:
                python, machine = client.logs(container).decode().split()
                return str(python), str(machine)
        except RuntimeFailure:
            raise
        except Exception as error:  # the engine answers in several ways that there is no python3
            if "python3" not in str(error):
                raise
        finally:
            client.remove_container(container, force=True)
    return "3.11", platform.machine()


def _run_build(client: Any, base: str, context: Path, progress: Progress) -> str:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        # The same code gives the same layers: neither owner nor time of the files matters.
        tar.add(context, arcname=".", filter=_anonymous)
    archive.seek(0)
    offline = base == BOOTSTRAPPED
    with engine_failures("build the node image"):
        stream = client.build(
            fileobj=archive,
            custom_context=True,
            tag=IMAGE,
            rm=True,
            forcerm=True,
            decode=True,
            buildargs={"BASE": base},
            labels={SOURCE_LABEL: source_digest(), "labctl.base": base},
            network_mode="none" if offline else None,
        )
        for item in stream:
            if "error" in item:
                raise RuntimeFailure(f"the node image could not be built: {item['error'].strip()}")
            line = str(item.get("stream", "")).strip()
            if line.startswith("Step"):
                progress(line)
        identity = str(client.inspect_image(IMAGE)["Id"])
    progress(f"{IMAGE} is ready")
    return identity


def _anonymous(item: tarfile.TarInfo) -> tarfile.TarInfo:
    item.uid = item.gid = 0
    item.uname = item.gname = ""
    item.mtime = 0
    return item
