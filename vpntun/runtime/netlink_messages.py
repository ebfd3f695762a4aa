"""Netlink's messages, as all its families have them (netlink(7)), and sockets for them.

    nlmsghdr    length (u32), type, flags (u16 each), sequence, port (u32 each)
    body        of a size that the type sets
    attributes  length, type (u16 each), value, zeros up to the next multiple of 4

Lengths come from the kernel; impossible ones end a parser, which never runs on for ever.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

NLM_F_REQUEST = 0x1
NLMSG_ERROR, NLMSG_DONE = 2, 3
HEADER = struct.Struct("=IHHII")

_TYPE_OF_ATTRIBUTE = 0x3FFF  # the other two bits are flags (NLA_TYPE_MASK)
_ATTRIBUTE = struct.Struct("=HH")
_error = struct.Struct("=i")


class Place(NamedTuple):
    """Where a message lies among others: its header's fields, and where its body begins and the message ends."""

    sequence: int
    kind: int
    flags: int
    begin: int
    end: int


def netlink_socket(protocol: int) -> socket.socket:
    """Open a socket of a netlink family, such as NETLINK_ROUTE. It never blocks. Raises OSError."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)


def message(kind: int, flags: int, sequence: int, content: bytes) -> bytes:
    """Return a request. `content`: its body and attributes."""
    return HEADER.pack(HEADER.size + len(content), kind, NLM_F_REQUEST | flags, sequence, 0) + content


def messages_in(data: bytes) -> Iterator[Place]:
    """Yield the place of each message in one read."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
        yield Place(sequence, kind, flags, at + HEADER.size, at + length)
        at += max(length + 3 & ~3, HEADER.size)


def error_in(data: bytes, begin: int) -> int:
    """Return the error number in the body of a message of type NLMSG_ERROR; 0 confirms that all went well."""
    return -int(_error.unpack_from(data, begin)[0])


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes_in(data: bytes, at: int, end: int) -> dict[int, bytes]:
    """Return the values of attributes by type; those between `at` and `end`, which may also be nested in another."""
    found: dict[int, bytes] = {}
    while at + _ATTRIBUTE.size <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        found[kind & _TYPE_OF_ATTRIBUTE] = data[at + _ATTRIBUTE.size : at + size]
        at += max(size + 3 & ~3, _ATTRIBUTE.size)
    return found
