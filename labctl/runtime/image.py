"""The node image: built from this very code, rebuilt when the code is newer.

    base image  ->  + wheels that labctl needs  ->  + labctl's code        (images/node/Dockerfile)

The base is an argument (image_base.py). The label `labctl.source` says from which code an image was made.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import shutil
import tarfile
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import labctl
from labctl.runtime.docker_client import Gone, engine_failures, hint_for, open_client
from labctl.runtime.image_base import BOOTSTRAPPED, Progress, find_base, python_of
from labctl.runtime.image_wheels import cache_folder, collect, requirements
from labctl.runtime.protocol import RuntimeFailure

IMAGE = "labctl-node:latest"

SOURCE_LABEL = "labctl.source"
BASE_LABEL = "labctl.base"

# Of a step of the Dockerfile, what fits a line of a terminal.
STEP_WIDTH = 76

# The code, without what the wheel carries along for the user's side.
_NOT_CODE = ("_images", "_topologies")


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
        if path.relative_to(folder).parts[0] not in _NOT_CODE:
            yield path


def source_digest() -> str:
    """SHA-256 over the code, what is in images/node, and the versions that go with them."""
    digest = hashlib.sha256(repr(requirements()).encode())
    recipe = recipe_folder() / "node"
    files = [(path, path.relative_to(package_folder())) for path in _code_files()]
    files += [(path, path.relative_to(recipe)) for path in sorted(recipe.rglob("*")) if path.is_file()]
    for path, name in files:
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def state(client: Any | None = None) -> ImageState:
    """The present image. Raises RuntimeFailure where no engine answers."""
    client = client or open_client()
    try:
        with engine_failures("look for the node image"):
            found = client.inspect_image(IMAGE)
    except Gone:
        return ImageState(None, False)
    labels = found["Config"].get("Labels") or {}
    current = labels.get(SOURCE_LABEL) == source_digest()
    return ImageState(found["Id"], current, labels.get(BASE_LABEL), found.get("Created"))


def ensure(progress: Progress = _ignore, client: Any | None = None) -> str:
    """The image's identity; built first where it is missing or older than the code. Raises RuntimeFailure."""
    client = client or open_client()
    found = state(client)
    if found.identity is not None and found.current:
        return found.identity
    with _one_builder(progress):
        found = state(client)
        if found.identity is not None and found.current:
            return found.identity
        progress("the node image is older than the code: rebuilding it" if found.identity else "making the node image")
        return _build(client, found.base, False, progress)


def build(
    base: str | None = None, *, bootstrap: bool = False, progress: Progress = _ignore, client: Any | None = None
) -> str:
    """Build the image and return its identity. Raises RuntimeFailure.

    Without `base`: a bootstrapped base that is there already, else the default, pulled; with `bootstrap`, a
    bootstrapped one is made where it is missing.
    """
    client = client or open_client()
    with _one_builder(progress):
        return _build(client, base, bootstrap, progress)


def _build(client: Any, base: str | None, bootstrap: bool, progress: Progress) -> str:
    recipe = recipe_folder() / "node"
    replaced = state(client).identity
    base = find_base(client, base, bootstrap, recipe / "packages", progress)
    with tempfile.TemporaryDirectory(prefix="labctl-image-") as folder:
        context = Path(folder)
        collect(*python_of(client, base), context / "wheels", progress)
        progress("packing the code")
        shutil.copytree(recipe, context, dirs_exist_ok=True)
        for path in _code_files():
            target = context / "labctl" / path.relative_to(package_folder())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        progress(f"building {IMAGE} on {base}")
        identity = _run_build(client, base, context, progress)
    _remove_superseded(client, {identity, replaced}, base)
    progress(f"{IMAGE} is ready")
    return identity


@contextmanager
def _one_builder(progress: Progress) -> Iterator[None]:
    """Whoever comes second waits, and finds the image made."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "image.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another labctl that builds the node image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_superseded(client: Any, kept: set[str | None], base: str) -> None:
    """Our own images without a name, and bases that we bootstrapped for them.

    The one just replaced stays: an `up` at this moment may be about to use it.
    """
    with engine_failures("look for old node images"):
        unnamed = client.images(filters={"dangling": True, "label": SOURCE_LABEL})
        bases = client.images(filters={"reference": f"{BOOTSTRAPPED}*"})
    old = [str(item["Id"]) for item in unnamed if item["Id"] not in kept]
    old += [name for item in bases for name in item["RepoTags"] if base.startswith(BOOTSTRAPPED) and name != base]
    for name in old:
        try:
            with engine_failures("remove an old node image"):
                client.remove_image(name)
        except Gone:
            continue
        except RuntimeFailure as failure:
            # Nodes of a running lab use it: it goes after a later build.
            if "conflict" not in failure.message:
                raise


def _run_build(client: Any, base: str, context: Path, progress: Progress) -> str:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        # The same code gives the same layers: neither owner nor time of the files matters.
        tar.add(context, arcname=".", filter=_anonymous)
    archive.seek(0)
    offline = base.startswith(BOOTSTRAPPED)
    with engine_failures("build the node image"):
        stream = client.build(
            fileobj=archive,
            custom_context=True,
            tag=IMAGE,
            rm=True,
            forcerm=True,
            decode=True,
            buildargs={"BASE": base},
            labels={SOURCE_LABEL: source_digest(), BASE_LABEL: base},
            network_mode="none" if offline else None,
        )
        last = ""
        for item in stream:
            if "error" in item:
                why = str(item["error"]).strip()
                raise RuntimeFailure(f"the node image could not be built: {why}", hint_for(why) or last.strip())
            line = str(item.get("stream", "")).strip()
            last = line or last
            if line.startswith("Step"):
                progress(textwrap.shorten(line, STEP_WIDTH, placeholder=" ..."))
        return str(client.inspect_image(IMAGE)["Id"])


def _anonymous(item: tarfile.TarInfo) -> tarfile.TarInfo:
    item.uid = item.gid = 0
    item.uname = item.gname = ""
    item.mtime = 0
    return item
