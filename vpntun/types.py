"""Types and values that several packages share, each defined once."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Literal

IpAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Interface = IPv4Interface | IPv6Interface
"""An address with its prefix length, as in 10.0.0.1/24."""

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""An address as the socket module spells it: host and port; for IPv6 also flow label and scope.

The scope, a device's number, is the zone of a link-local address; the host never contains the zone.
"""

Place = tuple[str, int]
"""A host as text, which may have a zone, as in fe80::1%eth0, and a port."""

CarrierName = Literal["udp", "tcp"]
CARRIERS: tuple[CarrierName, ...] = ("udp", "tcp")
"""All carriers, the preferred one first."""
DIALLED: frozenset[CarrierName] = frozenset({"tcp"})
"""The carriers that send over connections, which have to be opened first."""
Transport = Literal["auto", "udp", "tcp"]
TRANSPORTS: tuple[Transport, ...] = ("auto", *CARRIERS)
"""The carriers that the operator allows: all ("auto"), or one of them."""


def carriers_of(transport: Transport) -> tuple[CarrierName, ...]:
    """Return the carriers that a transport allows, the preferred one first."""
    return CARRIERS if transport == "auto" else (transport,)


def written(place: Place) -> str:
    """Write a host and port, as in 203.0.113.2:55555, [2001:db8::2]:55555 and [fe80::1%eth0]:55555."""
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


DeviceKind = Literal["tun", "tap"]
"""What a device carries: IP packets ("tun"), or Ethernet frames ("tap")."""

NEVER = float("inf")
"""A deadline that never arrives."""
LONGEST_SOCKET_PATH = 107
"""Bytes in the path of a unix socket: the kernel's 108 less the zero at its end (unix(7))."""

SMALLEST_MTU, LARGEST_MTU = 576, 65475
"""Bytes: the smallest of a device, and the largest, which a UDP datagram of 65,507 bytes can carry."""
