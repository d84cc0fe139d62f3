"""Keys for Wireshark, where `up --keylog` asked for them: files in its own form, mode 0600, in the lab's directory.

The folder can be Wireshark's configuration folder as it is:
`WIRESHARK_CONFIG_DIR=.../keylog tshark -o esp.enable_encryption_decode:TRUE -r capture.pcapng`.
"""

from __future__ import annotations

from labctl.door import Connection
from labctl.lab.directory import LabDirectory, write_private

# The kind of a key -> the table of Wireshark's that takes its line (reference/gdoi-protocol.md, section 10).
TABLES = {"isakmp": "ikev1_decryption_table", "esp": "esp_sa", "rekey": "gdoi_kek"}


async def collect(connection: Connection, directory: LabDirectory) -> None:
    """Write every key that the lab's nodes logged so far. The lab remembers them; nothing else may."""
    lines: dict[str, dict[str, None]] = {table: {} for table in TABLES.values()}
    call = await connection.open("events", follow=False, since=0, keylog=True)
    async for item in call:
        if item.get("type") == "keylog" and item.get("kind") in TABLES:
            lines[TABLES[item["kind"]]][str(item["line"])] = None
    await call.result()
    directory.keylog.mkdir(mode=0o700, exist_ok=True)
    for table, found in lines.items():
        write_private(directory.keylog / table, "".join(f"{line}\n" for line in found))


async def refresh(connection: Connection, directory: LabDirectory) -> None:
    """`collect`, if this lab keeps a key log at all: rekeys bring new keys after `up`."""
    if directory.keylog.is_dir():
        await collect(connection, directory)
