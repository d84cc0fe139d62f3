"""Probes: echoes between nodes that measure and prove (docs/internals.md, The agent: `probe`, `respond`).

- `request`: what is asked, with its limits; `report`: what came of it.
- `datagrams`: ICMP and UDP echoes, many under way at once. `streams`: TCP. `responder`: what answers UDP and TCP.
"""

from labctl.node.probe.request import ProbeRequest, Protocol, parse
from labctl.node.probe.responder import respond
from labctl.node.probe.run import Probes, run_probe

__all__ = ["ProbeRequest", "Probes", "Protocol", "parse", "respond", "run_probe"]
