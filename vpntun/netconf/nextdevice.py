"""Route queries: whether the kernel sends a flow out through a given device.

The query is RTM_GETROUTE (rtnetlink.py). One socket stays open while the tunnel is up, so that a process that has no
descriptors left can still ask. An answer takes some 15 us. pyroute2 would take a hundred times as long, and a quarter
of a second to load at first use.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from vpntun.core.endpoint import Flow
from vpntun.netconf.rtnetlink import Questions

RTM_GETROUTE = 26
RTA_DST, RTA_SRC, RTA_OIF, RTA_MARK, RTA_IP_PROTO, RTA_SPORT, RTA_DPORT = 1, 2, 4, 16, 27, 28, 29

_ROUTE = struct.Struct("=BBB5xI")
_u32 = struct.Struct("=I")
_port = struct.Struct("!H")


class NextDevice:
    """Tells whether flows leave through the device of this name. `mark`: the mark of their packets, 0 for none."""

    def __init__(self, name: str, mark: int) -> None:
        self._name = name
        self._mark = mark
        self._questions = Questions()

    def is_for(self, flow: Flow) -> bool:
        """Whether the kernel sends this flow out through the device; False if it has no route, or the device is gone.

        A source address that this host has lost is left out of the query, as the UDP socket leaves it out.
        """
        try:
            return self._questions.index_of(self._name) == (flow.scope or self._device_of(flow))
        except OSError:
            return bool(flow.source) and self.is_for(flow._replace(source=b""))

    def close(self) -> None:
        """Close the socket."""
        self._questions.close()

    def _device_of(self, flow: Flow) -> int:
        """Ask for the number of the device that the flow leaves through. Raises OSError."""
        attributes = (
            (RTA_DST, flow.destination),
            (RTA_SRC, flow.source),
            (RTA_MARK, _u32.pack(self._mark)),
            (RTA_IP_PROTO, bytes((flow.protocol,))),
            (RTA_SPORT, _port.pack(flow.source_port)),
            (RTA_DPORT, _port.pack(flow.destination_port)),
        )
        family = socket.AF_INET if len(flow.destination) == 4 else socket.AF_INET6
        body = _ROUTE.pack(family, 8 * len(flow.destination), 8 * len(flow.source), 0)
        _, found = self._questions.ask(RTM_GETROUTE, body, [each for each in attributes if any(each[1])])
        if RTA_OIF not in found:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return int(_u32.unpack(found[RTA_OIF])[0])
