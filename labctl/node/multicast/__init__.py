"""Multicast routing of a router: who wants which group, which way it goes; the kernel carries the packets.

- `igmp`, `pim`: the messages, to and from octets. `table`: who the neighbours and the members are, and what follows
  from it; it takes `now` and touches nothing. `kernel`: the kernel's multicast routing sockets. `router`: all of it on
  the event loop. docs/multicast.md says how it behaves.
"""
