"""Types and values that several packages share, each defined once."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Literal

IpAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Interface = IPv4Interface | IPv6Interface
"""An address with its prefix length, as in 10.0.0.1/24."""

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""An address as the socket module takes it: host and port; for IPv6 also flow label and scope."""

Carrier = Literal["udp", "tcp"]
CARRIERS: tuple[Carrier, Carrier] = ("udp", "tcp")
Transport = Literal["auto", "udp", "tcp"]
"""The carriers that the operator allows: both ("auto"), or one of them."""

NEVER = float("inf")
"""A deadline that never arrives."""
