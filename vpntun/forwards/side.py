"""Side protocol: where a forward's sockets are made, on this machine, on the tunnel's device, or inside a namespace."""

from __future__ import annotations

import socket
from typing import Protocol

from vpntun.runtime.resolver import OnFound


class Side(Protocol):
    """One side of a tunnel. All its sockets are non-blocking. Unix sockets belong to no side: any process has them."""

    def open(self, family: int, kind: int) -> socket.socket:
        """Return a new socket of this side; `kind`: SOCK_STREAM or SOCK_DGRAM. Raises OSError."""

    def listen(self, kind: int, host: str, port: int) -> list[socket.socket]:
        """Return sockets bound to an address and a port, listening if they are streams. Raises OSError.

        "" is all addresses that clients of this side use.
        """

    def look_up(self, host: str, port: int, answer: OnFound) -> None:
        """Look a name or an address up as programs on this side would; the loop calls `answer`, as Lookups.ask does."""
