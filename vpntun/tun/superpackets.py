"""Size of the superpackets that this host's TCP makes for a new device: each must fit in one record.

By default they have up to 65,536 bytes. With an MTU of 1500 that makes 45 segments of 1448 bytes, a little more than
fit in one burst of datagrams (core/records/span.py); so each would be cut, and take two records. With a limit of 65,300
bytes, TCP makes superpackets of 44 segments (sk_setup_caps in net/core/sock.c subtracts the headers).

Superpackets that are forwarded to the device may still have 45 segments, 65,212 bytes: the kernel hands over whole
what is shorter than the limit, and the data path cuts it. A device that existed before keeps its limit.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from vpntun.runtime.netlink_messages import attribute, message, netlink_socket

LIMIT = 65_300
RTM_NEWLINK = 16
IFLA_GSO_MAX_SIZE = 41

_IFINFOMSG = struct.Struct("=BxHiII")


def limit_superpackets(device: str) -> None:
    """Limit the size of superpackets for this device. Where the kernel refuses, they keep their size."""
    with suppress(OSError), netlink_socket(socket.NETLINK_ROUTE) as kernel:
        body = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, socket.if_nametoindex(device), 0, 0)
        kernel.send(message(RTM_NEWLINK, 0, 1, body + attribute(IFLA_GSO_MAX_SIZE, struct.pack("=I", LIMIT))))
