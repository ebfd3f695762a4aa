"""Ethernet frames, which a TAP device carries in place of IP packets."""
