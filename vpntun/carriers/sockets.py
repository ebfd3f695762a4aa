"""Socket helpers for every carrier: mark, bind, this host's IP versions, and parts of addresses."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress

from vpntun.errors import PortInUse, PrivilegeError, VpntunError
from vpntun.types import SocketAddress, written

_u32 = struct.Struct("=I").pack


def marked(new: socket.socket, mark: int) -> socket.socket:
    """Set SO_MARK on a fresh socket, unless `mark` is 0, and return the socket. PrivilegeError closes it."""
    if mark:
        try:
            set_mark(new, mark)
        except PrivilegeError:
            new.close()
            raise
    return new


def set_mark(used: socket.socket, mark: int) -> None:
    """Set SO_MARK on a socket: the mark of every packet that it sends from now on. Raises PrivilegeError."""
    try:
        used.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _u32(mark))
    except PermissionError as error:
        raise PrivilegeError(
            f"no right to set the packet mark {mark}, which keeps the tunnel's own packets out of the tunnel: run "
            "as root or with CAP_NET_ADMIN"
        ) from error


def bind(new: socket.socket, port: int, protocol: str) -> socket.socket:
    """Bind a fresh socket to a port on every address, and return the socket.

    `port` 0: the kernel chooses one at the first datagram. `protocol` names the port in error messages. Raises
    PortInUse, PrivilegeError or VpntunError, and then the socket is closed.
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
                f"no right to use {protocol} port {port}: choose a port above 1023, or run as root"
            ) from error
        raise VpntunError(f"{protocol} port {port} cannot be bound: {os.strerror(error.errno or 0)}") from error
    return new


def bound(new: socket.socket, host: str, port: int, *, backlog: int, takes_ipv4: bool = False) -> socket.socket:
    """Bind a fresh socket to an address and a port, have a stream listen, and return the socket.

    `takes_ipv4`: whether "::" stands for all addresses of IPv4, too. Raises OSError, and then the socket is closed.
    """
    is_stream = new.type == socket.SOCK_STREAM
    try:
        if is_stream:
            new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if new.family == socket.AF_INET6:
            new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not takes_ipv4)
        new.bind((host, port))
        if is_stream:
            new.listen(backlog)
    except OSError:
        new.close()
        raise
    return new


def families() -> list[int]:
    """Return the address families that this kernel supports, AF_INET first."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM):
            found.append(int(family))
    return found


def packed(address: SocketAddress) -> bytes:
    """Return the 4 or 16 bytes of a socket address's host."""
    return socket.inet_pton(family_of(address), address[0])


def origin_of(address: SocketAddress) -> bytes:
    """Return a socket address's host (4 or 16 bytes) and port (2 bytes, big endian)."""
    return packed(address) + address[1].to_bytes(2, "big")


def scope_of(address: SocketAddress) -> int:
    """Return the number of the device that a link-local socket address belongs to; 0 for other addresses."""
    return address[3] if len(address) == 4 else 0


def host_of(address: SocketAddress) -> str:
    """Return a socket address's host for people and files: a link-local one with its zone, as in fe80::1%eth0.

    The zone is the device's name, or its number once the device is gone.
    """
    scope = scope_of(address)
    if not scope:
        return address[0]
    try:
        return f"{address[0]}%{socket.if_indextoname(scope)}"
    except OSError:
        return f"{address[0]}%{scope}"


def where_of(address: SocketAddress) -> str:
    """Return host and port for people, as `written` does."""
    return written((host_of(address), address[1]))


def address_at(host: str, port: int) -> SocketAddress | None:
    """Return the socket address of a host as `host_of` writes it; None for other texts, or if its device is gone."""
    try:
        (*_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):
        return None
    return address  # type: ignore[return-value]  # numeric hosts are IPv4 or IPv6


def family_of(address: SocketAddress) -> int:
    """Return the address family of a socket address."""
    return int(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
