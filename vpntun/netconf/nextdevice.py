"""Route queries: whether the kernel sends a flow out through a given device.

The query is RTM_GETROUTE (rtnetlink(7)). One socket stays open while the tunnel is up, so that a process that has no
descriptors left can still ask. An answer takes some 15 us. pyroute2 would take a hundred times as long, and a quarter
of a second to load at first use.

    nlmsghdr    length (u32), type, flags (u16 each), sequence, port (u32 each)
    rtmsg       family, bits of destination, bits of source, five more bytes, flags (u32)
    attributes  length, type (u16 each), value, zeros up to the next multiple of 4
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import socket
import struct

from vpntun.core.endpoint import Flow

RTM_NEWROUTE, RTM_GETROUTE = 24, 26
NLM_F_REQUEST = 1
RTA_DST, RTA_SRC, RTA_OIF, RTA_MARK, RTA_IP_PROTO, RTA_SPORT, RTA_DPORT = 1, 2, 4, 16, 27, 28, 29
SIOCGIFINDEX = 0x8933
LARGEST_ANSWER = 8192

_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBB5xI")
_ATTRIBUTE = struct.Struct("=HH")
_IFREQ = struct.Struct("=16si20x")
_u32 = struct.Struct("=I")
_port = struct.Struct("!H")


class NextDevice:
    """Tells whether flows leave through the device of this name. `mark`: the mark of their packets, 0 for none."""

    def __init__(self, name: str, mark: int) -> None:
        self._name = name
        self._mark = mark
        self._sequence = itertools.count(1)
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)

    def is_for(self, flow: Flow) -> bool:
        """Whether the kernel sends this flow out through the device; False if it has no route, or the device is gone.

        A source address that this host has lost is left out of the query, as the UDP socket leaves it out.
        """
        try:
            return self._number() == (flow.scope or self._device_of(flow))
        except OSError:
            return bool(flow.source) and self.is_for(flow._replace(source=b""))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _number(self) -> int:
        """Return the device's number, which changes when the device is created again. Raises OSError."""
        request = _IFREQ.pack(os.fsencode(self._name), 0)
        return int(_IFREQ.unpack(fcntl.ioctl(self._socket, SIOCGIFINDEX, request))[1])

    def _device_of(self, flow: Flow) -> int:
        """Ask for the number of the device that the flow leaves through. Raises OSError."""
        sequence = next(self._sequence)
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
        body += b"".join(_packed(kind, value) for kind, value in attributes if any(value))
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), RTM_GETROUTE, NLM_F_REQUEST, sequence, 0) + body)
        while True:
            answer = self._socket.recv(LARGEST_ANSWER)
            length, kind, _, answered, _ = _HEADER.unpack_from(answer)
            if answered == sequence:
                break
        if kind != RTM_NEWROUTE:
            number = -int.from_bytes(answer[_HEADER.size : _HEADER.size + 4], "little", signed=True)
            raise OSError(number, os.strerror(number))
        return _device_in(answer[_HEADER.size + _ROUTE.size : length])


def _packed(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _device_in(attributes: bytes) -> int:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        size, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if kind == RTA_OIF:
            return int(_u32.unpack_from(attributes, at + _ATTRIBUTE.size)[0])
        at += max(size + 3 & ~3, _ATTRIBUTE.size)
    raise OSError(errno.ENODEV, "the route names no device")
