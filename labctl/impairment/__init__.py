"""Links that misbehave, sans-IO: the words, the packet filter, and what happens to a frame (docs/impairments.md).

The kernel's netem is often absent (decision 5), so the fabric carries the frames of an impaired link itself
(labctl/fabric/impairer.py); here is what it does to them.
"""
