"""A point-to-point VPN for Linux that speaks WireGuard's protocol, over UDP or TCP."""

__version__ = "0.1.0"
