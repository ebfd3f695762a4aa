"""Link-local address of a new TUN device: it gets none by itself, as a device of the kernel's WireGuard.

The kernel would make one, fe80::/64 with a random interface number, as soon as the device comes up. Nobody could reach
it, since no peer has it among its allowed IPs. But the kernel sends messages to routers and multicast groups from it:
they would wake an idle link, and the peer would log them as forbidden. Whoever needs such an address, for a routing
protocol say, adds one by hand. A device that existed before keeps its own.

A TAP device has one, since neighbour discovery on an Ethernet needs it; but not in a bridge, where a port has no
addresses.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import closing

from vpntun.runtime.log import log
from vpntun.runtime.netlink_messages import attribute, error_in, message, messages_in, netlink_socket

RTM_SETLINK = 19
NLM_F_ACK = 4
IFLA_AF_SPEC, IFLA_INET6_ADDR_GEN_MODE = 26, 8
IN6_ADDR_GEN_MODE_NONE = 1
LARGEST_ANSWER = 4096

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change


def make_no_link_local(device: str) -> None:
    """Keep the kernel from making a link-local address for this device, which must not be up yet.

    If the kernel refuses that, it is only logged. A kernel without IPv6 has nothing to refuse.
    """
    none = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
    setting = attribute(IFLA_AF_SPEC, attribute(socket.AF_INET6, none))
    try:
        body = _LINK.pack(socket.AF_UNSPEC, 0, socket.if_nametoindex(device), 0, 0)
        with closing(netlink_socket(socket.NETLINK_ROUTE)) as kernel:
            kernel.send(message(RTM_SETLINK, NLM_F_ACK, 1, body + setting))
            answer = kernel.recv(LARGEST_ANSWER)  # there by the time that the request is sent
        refused = next((error_in(answer, place.begin) for place in messages_in(answer)), 0)
    except OSError as error:
        refused = error.errno or errno.EIO
    if refused not in (0, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        log.info("%s will have a link-local address of its own: %s", device, os.strerror(refused))
