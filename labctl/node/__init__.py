"""The agent: the program in a node. One asyncio loop, and nothing to do while nothing happens.

- `agent`: boot, status, events, the operations of docs/internals.md. `__main__`: the entrance of a container.
- `clock`, `log`, `keylog`, `links`: the lab's time, IOS log lines, keys for Wireshark, what the kernel says of links.
- `children`, `execute`, `capture`, `probe`, `key_listeners`: processes, packets, echoes and keys on request.
- `roles`: key server and group member: sockets, timers and keys around the sans-IO parties.

A host, a PE or a P imports no cryptography: `roles` is imported when a configuration asks for it.
"""
