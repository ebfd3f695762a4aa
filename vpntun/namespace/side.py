"""Side of a run's namespace, for forwards and for the SOCKS5 proxy: its sockets are made by the holder."""

from __future__ import annotations

import socket
from typing import Any

from vpntun.errors import VpntunError
from vpntun.namespace.holder import Holder
from vpntun.runtime.resolver import OnFound


class NamespaceSide:
    """The inside of a namespace, as forwards/side.py describes a side."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    def open(self, family: int, kind: int) -> socket.socket:
        """Return a new socket of the namespace. Raises OSError."""
        return self._ask("open", family=int(family), kind=int(kind))[0]

    def listen(self, kind: int, host: str, port: int) -> list[socket.socket]:
        """Return sockets bound inside to an address and a port, listening if they are streams; "" is the loopback.

        Raises OSError.
        """
        return self._ask("listen", kind=int(kind), host=host, port=port)

    def look_up(self, host: str, port: int, answer: OnFound) -> None:
        """Look a name up as programs inside do; the loop calls `answer`."""
        self._holder.look_up(host, port, answer)

    def _ask(self, what: str, **fields: Any) -> list[socket.socket]:
        try:
            _, descriptors = self._holder.ask(what, **fields)
        except VpntunError as error:
            raise OSError(str(error)) from None
        made = [socket.socket(fileno=each) for each in descriptors]
        for each in made:
            each.setblocking(False)
        return made
