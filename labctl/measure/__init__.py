"""What a pair of group members carries on this machine, beside plain forwarding in the same run.

- `world`: two hosts, two gateways and a wire, in namespaces. `pairs`: what the gateways are; `member`: one of ours.
- `traffic`, `generate`, `stream`: what is sent, and what of it arrives.
- `isolated`: all of that in namespaces of its own, for `labctl bench`; `__main__` is its inside.

`bench/dataplane` puts other gateways into the same world.
"""
