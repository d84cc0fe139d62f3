"""Captures made readable for Wireshark where its key log cannot help (reference/gdoi-protocol.md 10.1). Sans-IO.

- `keys`: those that it takes. `isakmp`: datagrams of GDOI: rekeys and registrations decrypted, and what its dissector
  misreads put in the form that it expects.
- `frames`: the same of Ethernet frames. `pcapng`: the same of a capture file, block by block.
"""

from labctl.decode.frames import Frames, esp_spi
from labctl.decode.keys import ExchangeKey, KeyLineError, RekeyKey, read_exchange_keys, read_rekey_keys
from labctl.decode.pcapng import Counts, NotPcapng, decode

__all__ = [
    "Counts",
    "ExchangeKey",
    "Frames",
    "KeyLineError",
    "NotPcapng",
    "RekeyKey",
    "decode",
    "esp_spi",
    "read_exchange_keys",
    "read_rekey_keys",
]
