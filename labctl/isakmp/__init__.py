"""ISAKMP and IKEv1 phase 1 (RFC 2408, RFC 2409), sans-IO.

Layers, lowest first:

- `datagram`, `errors`, `reader`, `attributes`, `header`: octets, bounded.
- `payloads`: one frozen dataclass a payload, `parse(reader)` and `pack()`; `payloads.chain` parses and packs chains.
  Other rooms register their payload types with `payloads.register`.
- `keys`: the key schedule. `sa`: an established phase-1 SA, which protects and opens later exchanges.
- `main_mode`: the two state machines. `timers`, `replies`: deadlines, and answers kept for duplicates, both bounded.
- `endpoint`: everything on one UDP port, for a key server or a member to embed. Exchanges that are not its own go up
  through `UpperExchanges`: 32 and 240 with their SA, 33 and 35 raw.
"""
