"""Switching of Ethernet frames between a TAP device and its links, by MAC address."""
