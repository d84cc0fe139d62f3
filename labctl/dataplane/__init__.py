"""The data plane of a node: packet sockets and the crypto map on an interface."""

from labctl.dataplane.crypto_interface import CryptoInterface

__all__ = ["CryptoInterface"]
