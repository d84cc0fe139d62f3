"""`capture --decrypt`: the capture as Wireshark reads it, and a configuration folder of Wireshark's with its keys.

Packets go to FILE as they came, keys to FILE.keys at once. At the end FILE is replaced by the copy that `decode` makes,
with every key that came meanwhile. Where that end does not come, `decode FILE --keys FILE.keys` makes it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from labctl.lab.capture import KeysOfCapture
from labctl.lab.decode import decode_file
from labctl.lab.errors import BadRequest
from labctl.lab.keylog import KeyTables, reading_commands
from labctl.lab.viewer import TSHARK, WIRESHARK


class Decryption:
    """Of one capture, which goes to a file, or only to a live view. A context; `tell` takes words for the user.

    `folder` has the keys: beside the file, or until the end of the context.
    """

    def __init__(self, capture: Path | None, tell: Callable[[str], None]) -> None:
        self.tables = KeyTables()
        self.folder = Path()
        self._capture = capture
        self._tell = tell

    def __enter__(self) -> Decryption:
        """Raises BadRequest where keys cannot be written."""
        if self._capture is None:
            self.folder = Path(tempfile.mkdtemp(prefix="labctl-keys-"))
        else:
            self.folder = _keys_beside(self._capture)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._capture is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def keys(self) -> KeysOfCapture:
        """What `capture_in` needs."""
        return KeysOfCapture(self.tables, known=self._known, news=self._write)

    def finish(self) -> list[str]:
        """Make the file readable, once it is closed; command lines that show it. Raises BadRequest."""
        if self._capture is None:
            return []
        self._write()
        counts = decode_file(self._capture, self._capture, self.folder)
        locked = f", {counts.locked} without a key" if counts.locked else ""
        copies = f"; {counts.copies} copies left out" if counts.copies else ""
        held = f"keys of {len(self.tables.spis)} SAs and {self.tables.phase1} phase 1 SAs are in {self.folder}"
        rekeys = f"{counts.opened} rekey{'' if counts.opened == 1 else 's'} decrypted"
        self._tell(f"{held}; {rekeys}{locked}{copies}")
        programs = (TSHARK, WIRESHARK)
        if not any(shutil.which(name) for name in programs):
            self._tell("neither tshark nor wireshark is installed here: take the file and the folder to where one is")
        return reading_commands(self._capture, self.folder, programs)

    def _known(self) -> None:
        if not self.tables:
            self._tell("no keys yet: no member of this lab is registered; keys that come meanwhile are kept")
        self._write()

    def _write(self) -> None:
        self.tables.write(self.folder)


def _keys_beside(capture: Path) -> Path:
    folder = capture.with_name(f"{capture.name}.keys")
    hint = "keys are kept beside the capture, in a folder of your own"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise BadRequest(f"{folder} belongs to somebody else", hint)
        folder.chmod(0o700)
        KeyTables().write(folder)
    except OSError as error:
        raise BadRequest(f"{error.filename or folder}: {error.strerror}", hint) from None
    return folder
