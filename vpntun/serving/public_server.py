"""Server without authentication, at a TCP address or a unix socket: whoever reaches it is served.

So it may only offer what anybody may read, and nothing that changes the tunnel. Its clients have the limits of
clients.py. Who reaches a unix socket is up to the owner of its folder: the socket has mode 0660, and a folder with
the set-group-ID bit gives it the folder's group.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

from vpntun.errors import PortInUse, PrivilegeError, VpntunError
from vpntun.runtime.loop import Loop
from vpntun.serving.clients import MOST_CLIENTS, Clients
from vpntun.serving.exchange import Exchange
from vpntun.serving.listening import SocketInUse, give_up, listen
from vpntun.types import Place, written

OWNER_AND_GROUP = 0o660


class PublicServer:
    """A listening socket and its clients. `name` is what the log and errors call it. `option` sets the place."""

    def __init__(
        self, name: str, place: Path | Place, loop: Loop, new_exchange: Callable[[], Exchange], *, option: str
    ) -> None:
        """Bind the place and listen. Raises PortInUse, PrivilegeError or VpntunError."""
        self._loop = loop
        self._clients = Clients(name, loop, new_exchange)
        self._file: tuple[Path, tuple[int, int]] | None = None
        if isinstance(place, Path):
            self._listener, identity = _listen_at_path(name, place, option)
            self._file = place, identity
        else:
            self._listener = _listen_at_port(name, place, option)
        loop.watch(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Close all connections, and remove a unix socket unless its name belongs to another by now."""
        self._clients.close()
        self._loop.forget(self._listener.fileno())
        if self._file is not None:
            give_up(*self._file)
        self._listener.close()

    def go_on(self) -> None:
        """Give the clients answers that have become ready."""
        self._clients.go_on()

    def _accept(self) -> None:
        accepted = self._loop.accept(self._listener)
        if accepted is None:
            return
        new, address = accepted
        self._clients.admit(new, written(address[:2]) if isinstance(address, tuple) else "a client")


def _listen_at_path(name: str, path: Path, option: str) -> tuple[socket.socket, tuple[int, int]]:
    try:
        listener, _, identity = listen(name, path, None, MOST_CLIENTS, OWNER_AND_GROUP)
    except SocketInUse as taken:
        raise PortInUse(f"{path} is in use by {taken}: stop it, or give another path with {option}") from None
    return listener, identity


def _listen_at_port(name: str, place: Place, option: str) -> socket.socket:
    version = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    try:
        new = socket.socket(version, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise VpntunError(f"{name} cannot be opened: {error.strerror}; choose another place with {option}") from error
    try:
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version == socket.AF_INET6:
            new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # [::] is every address, of IPv4 too
        new.bind(place)
        new.listen(MOST_CLIENTS)
    except OSError as error:
        new.close()
        raise _explained(error, name, place, option) from error
    return new


def _explained(error: OSError, name: str, place: Place, option: str) -> VpntunError:
    """Return the error for a place that cannot be bound."""
    where = written(place)
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"{where} is in use: stop the program that holds it, or choose another port with {option}")
    if error.errno == errno.EADDRNOTAVAIL:
        return VpntunError(f"{place[0]} is no address of this machine: choose one that is, with {option}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PrivilegeError(f"no right to use {where}: choose a port above 1023 with {option}, or run as root")
    return VpntunError(f"{name} cannot listen on {where}: {os.strerror(error.errno or 0)}; see {option}")
