"""Server without authentication, at a TCP address or a unix socket: whoever reaches it is served.

So it may only offer what anybody may read, and nothing that changes the tunnel. Its clients have the limits of
clients.py. Who reaches a unix socket is up to the owner of its folder: the socket has mode 0660, and a folder with
the set-group-ID bit gives it the folder's group.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vpntun.runtime.loop import Loop
from vpntun.serving.clients import MOST_CLIENTS, Clients
from vpntun.serving.exchange import Exchange
from vpntun.serving.listener import Listener
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
        self._listener = Listener(name, place, option=option, backlog=MOST_CLIENTS, mode=OWNER_AND_GROUP)
        loop.watch(self._listener.socket.fileno(), self._accept)

    def close(self) -> None:
        """Close all connections, and remove a unix socket unless its name belongs to another by now."""
        self._clients.close()
        self._loop.forget(self._listener.socket.fileno())
        self._listener.close()

    def go_on(self) -> None:
        """Give the clients answers that have become ready."""
        self._clients.go_on()

    def _accept(self) -> None:
        accepted = self._loop.accept(self._listener.socket)
        if accepted is None:
            return
        new, address = accepted
        self._clients.admit(new, written(address[:2]) if isinstance(address, tuple) else "a client")
