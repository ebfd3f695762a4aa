"""A point-to-point VPN for Linux: WireGuard's protocol in simpletun's shape."""

__version__ = "0.1.0"
