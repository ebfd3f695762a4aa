"""Device of a run: it is in the namespace, and this process has only its descriptor.

This machine may have a device of the same name, so nothing about it is asked by name. Nobody in the namespace has the
right to change it, so its MTU stays as it was set.
"""

from __future__ import annotations

import os

from vpntun.tun.device import DeviceDescriptor


class NamespaceDevice(DeviceDescriptor):
    """A TUN device whose descriptor the namespace's holder has sent."""

    created = True
    mac = b""
    macs: tuple[bytes, ...] = ()
    is_up = True

    def __init__(self, name: str, descriptor: int, mtu: int, offloads: int) -> None:
        super().__init__(name, "tun", descriptor)
        self.mtu = mtu
        self.offloads = offloads

    def close(self) -> None:
        """Close the device, with which it vanishes: no other process has a descriptor of it."""
        os.close(self._descriptor)
