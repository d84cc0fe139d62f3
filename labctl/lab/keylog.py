"""Keys for Wireshark: files in its own form, mode 0600, in a folder that can be its configuration folder as it is.

`up --keylog` keeps one in the lab's directory, `capture --decrypt` one beside its file. Beside the keys stand the
preferences that have Wireshark use them, so that no key is ever on a command line:
`WIRESHARK_CONFIG_DIR=.../keylog tshark -r capture.pcapng`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from labctl.door import Connection
from labctl.lab.directory import LabDirectory, write_private

if TYPE_CHECKING:
    from labctl.decode import ExchangeKey, RekeyKey

# The kind of a key -> the table of Wireshark's that takes its line (reference/gdoi-protocol.md, section 10).
# The last two are for `labctl decode`.
TABLES = {"isakmp": "ikev1_decryption_table", "esp": "esp_sa", "rekey": "gdoi_kek", "exchange": "gdoi_exchange"}

# Sequence numbers under an SA of a group come from many senders: to analyse them as one's would only warn.
SETTINGS = {
    "preferences": (
        "esp.enable_encryption_decode: TRUE\n"
        "esp.enable_authentication_check: TRUE\n"
        "esp.do_esp_sequence_analysis: FALSE\n"
    ),
    "decode_as_entries": "decode_as_entry: udp.port,848,(none),ISAKMP\n",
}

_SPI = 3  # of the fields of a line of esp_sa


class KeyTables:
    """Keys that are known so far, each once, in the order in which they came."""

    def __init__(self) -> None:
        # By SPI and by cookies, for `labctl.decode`, which may hold on to them while keys come.
        self.rekeys: dict[bytes, RekeyKey] = {}
        self.exchanges: dict[bytes, ExchangeKey] = {}
        self.spis: set[int] = set()
        self._lines: dict[str, dict[str, None]] = {kind: {} for kind in TABLES}

    def add(self, kind: str, line: str) -> bool:
        """Take a key; False if it is known, or of a kind that is not."""
        from labctl.decode import read_exchange_keys, read_rekey_keys  # brings the ciphers, which 'up' does without

        if kind not in TABLES or line in self._lines[kind]:
            return False
        self._lines[kind][line] = None
        if kind == "rekey":
            self.rekeys.update(read_rekey_keys([line]))
        elif kind == "exchange":
            self.exchanges.update(read_exchange_keys([line]))
        elif kind == "esp":
            self.spis.add(int(line.split(",")[_SPI].strip('"'), 16))
        return True

    @property
    def phase1(self) -> int:
        """How many SAs of phase 1 are known."""
        return len(self.exchanges)

    def __bool__(self) -> bool:
        return any(self._lines.values())

    def write(self, folder: Path) -> None:
        """Make the folder a configuration of Wireshark's with these keys. Raises OSError."""
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, text in SETTINGS.items():
            write_private(folder / name, text)
        for kind, table in TABLES.items():
            write_private(folder / table, "".join(f"{line}\n" for line in self._lines[kind]))


def reading_commands(capture: Path, folder: Path, programs: Iterable[str] = ("tshark", "wireshark")) -> list[str]:
    """Command lines of a shell that show a capture with the keys of a folder."""
    return [
        f"WIRESHARK_CONFIG_DIR={shlex.quote(str(folder))} {name} -r {shlex.quote(str(capture))}" for name in programs
    ]


async def collect(connection: Connection, directory: LabDirectory) -> None:
    """Write every key that the lab's nodes logged so far. The lab remembers them; nothing else may."""
    keys = KeyTables()
    call = await connection.open("events", follow=False, since=0, keylog=True)
    async for item in call:
        if item.get("type") == "keylog":
            keys.add(str(item.get("kind")), str(item["line"]))
    await call.result()
    keys.write(directory.keylog)


async def refresh(connection: Connection, directory: LabDirectory) -> None:
    """`collect`, if this lab keeps a key log at all: rekeys bring new keys after `up`."""
    if directory.keylog.is_dir():
        await collect(connection, directory)
