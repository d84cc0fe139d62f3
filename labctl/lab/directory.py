"""Where labs keep their state: `$LABCTL_STATE`, else `$XDG_STATE_HOME/labctl`, else `~/.local/state/labctl`.

One directory a lab, `labs/NAME/`, mode 0700; docs/internals.md, State, names its files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from labctl.lab.errors import BadRequest, LabError

# sockaddr_un.sun_path is 108 octets with its terminating zero (unix(7)).
LONGEST_SOCKET_PATH = 107

SECRET_OCTETS = 32

# The suffix of the file that holds the folder of short doors while a lab has state, and how often it is tried to put it
# there: whoever goes last takes the folder along.
CLAIM, TRIES = ".lab", 100

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def state_root() -> Path:
    """The folder that holds all labs of this user."""
    if chosen := os.environ.get("LABCTL_STATE"):
        return Path(chosen).absolute()
    if state_home := os.environ.get("XDG_STATE_HOME"):
        return Path(state_home).absolute() / "labctl"
    return Path.home() / ".local/state/labctl"


class LabDirectory:
    """The directory of one lab, there or not. `path` is where its files are. A `runtime.LabPaths`."""

    def __init__(self, name: str, root: Path | None = None) -> None:
        if not _NAME.fullmatch(name):
            raise BadRequest(
                f"{name!r} is no lab name",
                "letters, digits, '-', '_' and '.', with a letter or digit first, 63 characters at most",
            )
        self.name = name
        self.root = root or state_root()
        self.path = self.root / "labs" / name

    def __repr__(self) -> str:
        return f"LabDirectory({self.name!r}, {str(self.root)!r})"

    @property
    def exists(self) -> bool:
        """True from the first moment of `up` to the last of `down`."""
        return self.path.is_dir()

    @property
    def journal(self) -> Path:
        """What was made, written before it was made."""
        return self.path / "journal"

    @property
    def plan(self) -> Path:
        """The plan that stands, JSON."""
        return self.path / "plan.json"

    @property
    def topology(self) -> Path:
        """A copy of the topology as it was at `up`."""
        return self.path / "topology.yml"

    @property
    def pki(self) -> Path:
        """Certificates and key pairs, where the lab has any."""
        return self.path / "pki.json"

    @property
    def logs(self) -> Path:
        """What the supervisor and the agents wrote."""
        return self.path / "logs"

    @property
    def keylog(self) -> Path:
        """Keys for Wireshark, where `up --keylog` asked for them."""
        return self.path / "keylog"

    @property
    def lock(self) -> Path:
        """Beside the directory, because `down` removes the directory while it holds the lock."""
        return self.path.parent / f".{self.name}.lock"

    @property
    def door(self) -> Path:
        """The lab's socket. In a short folder of its own where the path would not fit a socket address."""
        natural = self.path / "door.sock"
        if len(os.fsencode(natural)) <= LONGEST_SOCKET_PATH:
            return natural
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        return _short_folder() / f"{digest}.sock"

    def create(self) -> None:
        """Make the directory, its parents and the door's folder, for this user only. Fine if they are there."""
        for folder in (self.root, self.path.parent, self.path, self.logs):
            try:
                folder.mkdir(mode=0o700, parents=folder is self.root, exist_ok=True)
            except OSError as error:
                raise LabError(
                    f"cannot make {folder}: {error.strerror}", "set LABCTL_STATE to a folder you may write to"
                ) from None
        if self.door.parent != self.path:
            _claim(self.door.with_suffix(CLAIM))

    def secret(self) -> bytes:
        """What generated pre-shared keys derive from (decision 10): the lab's own if it has one, else drawn anew."""
        try:
            text = (self.path / "secret").read_text()
            found = bytes.fromhex(text)
        except (FileNotFoundError, ValueError):
            return secrets.token_bytes(SECRET_OCTETS)
        return found if len(found) == SECRET_OCTETS else secrets.token_bytes(SECRET_OCTETS)

    def keep_secret(self, secret: bytes) -> None:
        """Write the secret, readable by this user alone."""
        write_private(self.path / "secret", secret.hex() + "\n")

    def remove(self) -> None:
        """Remove everything of the lab on disk. Fine if there is nothing."""
        door = self.door
        if door.parent != self.path:
            door.unlink(missing_ok=True)
            door.with_suffix(CLAIM).unlink(missing_ok=True)
            _remove_if_empty(door.parent)
        if self.path.is_dir():
            shutil.rmtree(self.path)


def labs(root: Path | None = None) -> Iterator[LabDirectory]:
    """Every lab that has state, by name."""
    root = root or state_root()
    folder = root / "labs"
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and _NAME.fullmatch(path.name):
            yield LabDirectory(path.name, root)


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, mode 0600, so that a reader sees the old or the new, never half."""
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    fresh.replace(path)


def _short_folder() -> Path:
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "labctl"
    return Path("/tmp") / f"labctl-{os.getuid()}"


def _private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        # Whoever may write there could put a socket of their own where ours belongs.
        raise LabError(
            f"{folder} is not a folder of this user alone", "remove it, or set LABCTL_STATE to a shorter path"
        )


def _claim(file: Path) -> None:
    """Put a file into a folder that labs share, so that no other lab's end takes it away before our socket is there."""
    for _ in range(TRIES):
        _private(file.parent)
        with contextlib.suppress(FileNotFoundError):  # the last of the others has gone in this moment, and it with them
            file.touch(mode=0o600)
            return
    raise LabError(f"cannot make {file}", "set LABCTL_STATE to a shorter path")


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
