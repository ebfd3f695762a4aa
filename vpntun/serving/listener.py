"""Listener of a server at the place that an option names: an address and a port, or the path of a unix socket.

ADDRESS:PORT  the address is one of this machine's, or 0.0.0.0
[::]:PORT     all addresses of this machine, of IPv4 too
:PORT         the same, and those of IPv4 alone where IPv6 is off
unix:PATH     the socket of a killed process is replaced; files of other kinds are not (listening.py)
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from vpntun.carriers.sockets import bound, family_of
from vpntun.errors import PortInUse, PrivilegeError, VpntunError
from vpntun.serving.listening import OWNERS_ALONE, SocketInUse, give_up, listen
from vpntun.types import Place, written

NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


class Listener:
    """A socket that listens, and the name of its file if it is a unix socket."""

    def __init__(self, name: str, place: Path | Place, *, option: str, backlog: int, mode: int = OWNERS_ALONE) -> None:
        """Bind the place and listen. Raises PortInUse, PrivilegeError or VpntunError.

        `name`: what errors call the socket. `option`: sets the place. `mode`: who may connect to a unix socket.
        """
        self._file: tuple[Path, tuple[int, int]] | None = None
        if isinstance(place, Path):
            self.socket, identity = _listen_at_path(name, place, option, backlog, mode)
            self._file = place, identity
        else:
            self.socket = _listen_at_port(name, place, option, backlog)

    def close(self) -> None:
        """Stop listening, and remove a unix socket unless its name belongs to another by now."""
        if self._file is not None:
            give_up(*self._file)
        self.socket.close()


def _listen_at_path(
    name: str, path: Path, option: str, backlog: int, mode: int
) -> tuple[socket.socket, tuple[int, int]]:
    try:
        listener, _, identity = listen(name, path, None, backlog, mode)
    except SocketInUse as taken:
        raise PortInUse(f"{path} is in use by {taken}: stop it, or give another path with {option}") from None
    return listener, identity


def _listen_at_port(name: str, place: Place, option: str, backlog: int) -> socket.socket:
    host, port = place
    try:
        return _bound(host or "::", port, backlog)
    except OSError as error:
        if host or error.errno not in NO_IPV6:
            raise _explained(error, name, place, option) from error
    try:
        return _bound("0.0.0.0", port, backlog)
    except OSError as error:
        raise _explained(error, name, place, option) from error


def _bound(host: str, port: int, backlog: int) -> socket.socket:
    """Return a socket that listens at an address; [::] is every address, of IPv4 too. Raises OSError."""
    new = socket.socket(family_of((host, port)), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    return bound(new, host, port, backlog=backlog, takes_ipv4=True)


def _explained(error: OSError, name: str, place: Place, option: str) -> VpntunError:
    """Return the error for a place that cannot be bound."""
    where = written(place)
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"{where} is in use: stop the program that holds it, or choose another port with {option}")
    if error.errno == errno.EADDRNOTAVAIL:
        return VpntunError(f"{place[0]} is not an address of this machine: choose one that is, with {option}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PrivilegeError(f"no right to use {where}: choose a port above 1023 with {option}, or run as root")
    return VpntunError(f"{name} cannot listen on {where}: {os.strerror(error.errno or 0)}; see {option}")
