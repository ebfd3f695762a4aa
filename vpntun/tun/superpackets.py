"""Size of the superpackets that this host's TCP makes for a new device: each should fit in one record over UDP.

The kernel's limit is 65,536 bytes. With an MTU of 1400 its TCP then makes superpackets of 48 segments, a little more
than fit in one burst of datagrams (core/records/span.py). Each would have to be cut, and take two records. With the
limit set here it makes them of 47 (sk_setup_caps in net/core/sock.c subtracts 193 to 321 bytes for headers).

The kernel cuts a forwarded superpacket that reaches the limit into single packets, which is much slower. So on a host
that forwards, and in a bridge, the kernel's limit stays. A device that existed before keeps its limit, too.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from pathlib import Path

from vpntun.runtime.netlink_messages import attribute, message, netlink_socket

KERNELS_LIMIT = 65_536
LARGEST_OF_A_BURST = 64_599
"""Bytes of the longest packet that fits in a burst of 45 datagrams on an ordinary path of either IP version."""
HEADERS = 52
"""Bytes of the headers of IPv4, and of TCP with timestamps."""
LEAST_SUBTRACTED = 193

RTM_NEWLINK = 16
IFLA_GSO_MAX_SIZE = 41

_FORWARDING = (Path("/proc/sys/net/ipv4/conf/all/forwarding"), Path("/proc/sys/net/ipv6/conf/all/forwarding"))
_IFINFOMSG = struct.Struct("=BxHiII")


def limit_for(mtu: int, lead: int = 0) -> int:
    """Return the largest limit with which TCP's superpackets fit in a burst, for a device with this MTU.

    `lead`: bytes before the IP header, of an Ethernet header say.
    """
    segment = max(1, mtu - HEADERS)
    fitting = (LARGEST_OF_A_BURST - lead - HEADERS) // segment
    return min(KERNELS_LIMIT, (fitting + 1) * segment + LEAST_SUBTRACTED - 1)


def limit_superpackets(device: str, mtu: int, lead: int = 0) -> None:
    """Limit the superpackets of a device, unless this host forwards. Where the kernel refuses, they keep their size."""
    limit = limit_for(mtu, lead)
    if limit == KERNELS_LIMIT or _forwards():
        return
    with suppress(OSError), netlink_socket(socket.NETLINK_ROUTE) as kernel:
        body = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, socket.if_nametoindex(device), 0, 0)
        kernel.send(message(RTM_NEWLINK, 0, 1, body + attribute(IFLA_GSO_MAX_SIZE, struct.pack("=I", limit))))


def _forwards() -> bool:
    for setting in _FORWARDING:
        with suppress(OSError):  # a kernel without IPv6
            if setting.read_text().strip() != "0":
                return True
    return False
