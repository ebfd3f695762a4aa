"""Messages of SOCKS5 (RFC 1928): layout, parsing and packing.

Integers are big endian. Each field is followed by its length in bytes.

    greeting    version 1 (5), count of methods 1, methods 1 to 255
    choice      version 1, method 1: 0 no authentication, 255 none of those offered
    request     version 1, command 1, reserved 1, destination
    reply       version 1, code 1, reserved 1 (0), address of this end
    datagram    reserved 2, fragment 1, destination, data: what client and proxy exchange over UDP

    an address  type 1: 1 IPv4, 3 name, 4 IPv6; then 4 bytes, a length 1 with so many bytes, or 16 bytes; then port 2

A client may send data behind its request before the reply has come, and that data is not this program's to read. So
`size_of_greeting` and `size_of_request` tell from the beginning of a message how many bytes to read at least, and
nobody ever needs to read more.

Everything here handles untrusted bytes: the parsers raise only BadPacket.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from vpntun.errors import BadPacket
from vpntun.types import Place

VERSION = 5
NO_AUTHENTICATION, NO_METHOD = 0, 255
CONNECT, BIND, UDP_ASSOCIATE = 1, 2, 3
"""Commands of a request."""

(
    SUCCEEDED,
    FAILED,
    NOT_ALLOWED,
    NETWORK_UNREACHABLE,
    HOST_UNREACHABLE,
    REFUSED,
    TIMED_OUT,
    UNKNOWN_COMMAND,
    UNKNOWN_ADDRESS_TYPE,
) = range(9)
"""Codes of a reply. RFC 1928 calls 6 "TTL expired"; programs show it as a timeout."""

IPV4, NAME, IPV6 = 1, 3, 4
"""Types of an address."""
NOWHERE: Place = ("0.0.0.0", 0)
"""Address of this end where there is none to tell."""

_HEAD = 4
"""Bytes of a request, or of a datagram, up to the type of its address."""
_PORT = struct.Struct("!H")
_REST = {IPV4: 4 + _PORT.size, IPV6: 16 + _PORT.size}
"""Bytes behind the type of an address."""
_NAME = re.compile(rb"[!-~]+")
"""A host's name as getaddrinfo takes it. Names of other letters are in ASCII already (RFC 3490)."""


class UnknownAddressType(BadPacket):
    """The type of an address is none of those that exist, so its length is not known either."""

    def __init__(self) -> None:
        super().__init__("unknown address type")


@dataclass(frozen=True, slots=True)
class Request:
    """A request: `destination` is a name or an address as text, and a port. `command` may be unknown."""

    command: int
    destination: Place

    @classmethod
    def parse(cls, message: bytes) -> Request:
        """Parse a whole request. Raises BadPacket("bad request") and UnknownAddressType."""
        if len(message) != size_of_request(message):
            raise BadPacket("bad request")
        destination, _ = _parse_address(message, "bad request")
        return cls(message[1], destination)


@dataclass(frozen=True, slots=True)
class Datagram:
    """A datagram between client and proxy: to, or from, a name or an address as text, and a port."""

    place: Place
    data: bytes

    @classmethod
    def parse(cls, message: bytes) -> Datagram:
        """Parse a datagram. Raises BadPacket: "bad datagram", "fragment" and "unknown address type"."""
        if len(message) <= _HEAD:
            raise BadPacket("bad datagram")
        if message[2]:
            raise BadPacket("fragment")
        place, end = _parse_address(message, "bad datagram")
        return cls(place, message[end:])

    def pack(self) -> bytes:
        """The datagram's bytes. Its place is an address."""
        return b"\0\0\0" + _packed_address(self.place) + self.data


def size_of_greeting(begin: bytes) -> int:
    """Return how many bytes a greeting has at least, by those that have arrived; it is whole once it has that many.

    Raises BadPacket: "no SOCKS5".
    """
    _check_version(begin)
    return 2 + begin[1] if len(begin) >= 2 else 2


def methods_of(greeting: bytes) -> bytes:
    """Return the methods of authentication, a byte each, that a whole greeting offers. Raises BadPacket."""
    if len(greeting) != size_of_greeting(greeting):
        raise BadPacket("bad greeting")
    return greeting[2:]


def size_of_request(begin: bytes) -> int:
    """Return how many bytes a request has at least, by those that have arrived; it is whole once it has that many.

    Raises BadPacket("no SOCKS5") and UnknownAddressType.
    """
    _check_version(begin)
    if len(begin) <= _HEAD:
        return _HEAD + 1
    kind = begin[_HEAD - 1]
    if kind == NAME:
        return _HEAD + 1 + begin[_HEAD] + _PORT.size
    if kind not in _REST:
        raise UnknownAddressType
    return _HEAD + _REST[kind]


def choice_of(method: int) -> bytes:
    """Return the answer to a greeting."""
    return bytes((VERSION, method))


def reply_of(code: int, place: Place = NOWHERE) -> bytes:
    """Return the answer to a request. `place`: the address, and the port, from which this end goes on."""
    return bytes((VERSION, code, 0)) + _packed_address(place)


def _check_version(begin: bytes) -> None:
    if begin and begin[0] != VERSION:
        raise BadPacket("no SOCKS5")


def _parse_address(message: bytes, reason: str) -> tuple[Place, int]:
    """Return the address behind the head of a message, and where it ends. Raises BadPacket(reason)."""
    kind, begin = message[_HEAD - 1], _HEAD
    if kind == NAME:
        begin += 1
        end = begin + (message[_HEAD] if len(message) > _HEAD else 0)
    elif kind in _REST:
        end = begin + _REST[kind] - _PORT.size
    else:
        raise UnknownAddressType
    if len(message) < end + _PORT.size:
        raise BadPacket(reason)
    host, (port,) = message[begin:end], _PORT.unpack_from(message, end)
    return (_host(kind, host, reason), port), end + _PORT.size


def _host(kind: int, host: bytes, reason: str) -> str:
    if kind == IPV4:
        return str(IPv4Address(host))
    if kind == IPV6:
        return str(IPv6Address(host))
    if not _NAME.fullmatch(host):
        raise BadPacket(reason)
    return host.decode("ascii")


def _packed_address(place: Place) -> bytes:
    """Return an address that is no name, with its type in front and its port behind."""
    address = ip_address(place[0].partition("%")[0])
    return bytes((IPV4 if address.version == 4 else IPV6,)) + address.packed + _PORT.pack(place[1])
