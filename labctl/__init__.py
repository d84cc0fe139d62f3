"""labctl: emulated GETVPN labs."""

__version__ = "0.1.0"
