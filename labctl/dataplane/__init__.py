"""The data plane of a node: frames in batches, and the crypto map on an interface.

- `packet_socket`: a raw socket. `receive`: what comes in, a ring. `transmit`: what goes out, one call a batch.
- `crossing`: batches from one side of a crypto map to the other. `crypto_interface`: all of it on an event loop.
"""

from labctl.dataplane.crypto_interface import CryptoInterface

__all__ = ["CryptoInterface"]
