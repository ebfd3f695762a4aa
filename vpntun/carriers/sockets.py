"""What every carrier does with a fresh socket: set the mark, bind it, and find the IP versions of this host."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress

from vpntun.errors import PortInUse, PrivilegeError, VpntunError
from vpntun.types import SocketAddress

Ancillary = tuple[tuple[int, int, bytes], ...]
"""Control messages as sendmsg(2) takes them: level, type and data of each."""

_u32 = struct.Struct("=I").pack


def marked(new: socket.socket, mark: int) -> socket.socket:
    """Set SO_MARK on a fresh socket, unless `mark` is 0, and return it. On PrivilegeError the socket is closed."""
    if mark:
        try:
            new.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _u32(mark))
        except PermissionError as error:
            new.close()
            raise PrivilegeError(
                f"no right to mark packets with {mark}, which keeps those of the tunnel out of it: run as root or with "
                "CAP_NET_ADMIN"
            ) from error
    return new


def bind(new: socket.socket, port: int, protocol: str) -> socket.socket:
    """Bind a fresh socket to a port on every address, and return it; 0: the kernel chooses one at the first datagram.

    `protocol` names the port in error messages. On PortInUse, PrivilegeError or VpntunError the socket is closed.
    """
    try:
        if new.family == socket.AF_INET6:
            new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if port:
            new.bind(("", port))
    except OSError as error:
        new.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"{protocol} port {port} is in use: stop the program that holds it, or choose another -p"
            ) from error
        if error.errno == errno.EACCES:
            raise PrivilegeError(
                f"no right to use {protocol} port {port}: choose one above 1023, or be root"
            ) from error
        raise VpntunError(f"{protocol} port {port} cannot be bound: {os.strerror(error.errno or 0)}") from error
    return new


def families() -> list[int]:
    """Address families that this kernel supports, AF_INET first."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM):
            found.append(int(family))
    return found


def packed(address: SocketAddress) -> bytes:
    """The 4 or 16 bytes of a socket address's host."""
    host = address[0].partition("%")[0]
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def scope_of(address: SocketAddress) -> int:
    """The number of the device that a link-local socket address belongs to; 0 for others."""
    return address[3] if len(address) == 4 else 0


def family_of(address: SocketAddress) -> int:
    """The address family of a socket address."""
    return int(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
