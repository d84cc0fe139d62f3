"""The parts a node plays in GETVPN: what surrounds the sans-IO key server and group member with a world.

- `play`: all roles of a node. `key_server`, `group_member`: one each. `role`: what they share.
- `port`: UDP 848, shared by all parties of a node. `driver`: datagrams, timers and events of one party.
- `crypto_map`, `keys`: group keys onto a crypto interface.
"""
