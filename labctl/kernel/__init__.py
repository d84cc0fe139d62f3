"""One network namespace's settings: namespaces, links, addresses, routes, sysctls, offloads; straight to the kernel.

The netlink here is our own few lines over a socket: the fabric sends hundreds of requests in one `up`, and packing them
with a general library took longer than the kernel takes to carry them out (docs/decisions.md).
"""
