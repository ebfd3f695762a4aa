"""Opening of the sockets on which a forward listens, with errors that tell the operator what to do.

A unix socket is made with mode 0600: its owner decides who may use the forward. One that a killed process has left is
replaced, one behind which a process listens is not, and neither is a file of another kind (serving/listening.py).
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from vpntun.config.forwards import Forward, spelled
from vpntun.errors import ConfigurationError, PortInUse, PrivilegeError, VpntunError
from vpntun.forwards.side import Side
from vpntun.forwards.sides import MOST_WAITING_TO_BE_ACCEPTED
from vpntun.serving.listening import SocketInUse, give_up, listen


class ListeningSockets:
    """Listening sockets of one forward, and the name of a unix socket among them."""

    def __init__(self, forward: Forward, side: Side) -> None:
        """Bind and listen where the forward says. Raises ConfigurationError, PortInUse, PrivilegeError, VpntunError."""
        self._file: tuple[Path, tuple[int, int]] | None = None
        if isinstance(forward.listen, Path):
            new, identity = _at_path(forward.listen)
            self.sockets = [new]
            self._file = forward.listen, identity
            return
        kind = socket.SOCK_STREAM if forward.protocol == "tcp" else socket.SOCK_DGRAM
        try:
            self.sockets = side.listen(kind, *forward.listen)
        except OSError as error:
            raise _explained(error, forward) from error

    def close(self) -> None:
        """Stop listening, and remove the unix socket unless its name belongs to another by now."""
        if self._file is not None:
            give_up(*self._file)
        for each in self.sockets:
            each.close()


def _at_path(path: Path) -> tuple[socket.socket, tuple[int, int]]:
    try:
        new, _, identity = listen("the socket of a forward", path, None, MOST_WAITING_TO_BE_ACCEPTED)
    except SocketInUse as taken:
        raise PortInUse(f"{path} is in use by {taken}: stop it, or choose another path") from None
    return new, identity


def _explained(error: OSError, forward: Forward) -> VpntunError:
    """Return the error for a place where no socket can listen."""
    where = spelled(forward.listen)
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"{forward.protocol} {where} is in use: stop the program that holds it, or choose another port"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        if forward.listen[0] == "":  # type: ignore[index]  # a path has another error
            return ConfigurationError(f"{where} cannot be listened on: {error.strerror}: give it one, such as Address")
        of = {"here": "this machine", "peer": "the tunnel", "inside": "the namespace"}[forward.origin]
        return ConfigurationError(
            f"{where} cannot be listened on: {of} has no such address: choose one that it has, or give :PORT for all"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PrivilegeError(
            f"no right to listen on {where}: choose a port above 1023, or run as root; a tunnel that gives its "
            "privileges up (User) opens such ports only at its start"
        )
    return VpntunError(f"{where} cannot be listened on: {error.strerror or error}")
