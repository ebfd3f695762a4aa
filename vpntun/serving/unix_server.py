"""Unix socket server for any protocol: only root and this process's user may connect.

What a connection says is up to the `Exchange` that the server makes for it. The socket has mode 0600 before it has a
name, in a folder of mode 0700, and each client's user is checked too (SO_PEERCRED). clients.py limits what clients may
ask for, and listening.py decides who gets the socket's name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from logging import INFO
from pathlib import Path

from vpntun.runtime.log import Limited
from vpntun.runtime.loop import Loop
from vpntun.serving.clients import MOST_CLIENTS, Clients
from vpntun.serving.exchange import Exchange
from vpntun.serving.listening import give_up, listen, other_end


class UnixServer:
    """A listening socket and its clients. `name` is what the log and errors call it. `path`: where it listens."""

    def __init__(
        self,
        name: str,
        path: Path,
        loop: Loop,
        new_exchange: Callable[[], Exchange],
        *,
        path_beside: Path | None = None,
    ) -> None:
        """Bind the name and listen. Raises SocketInUse, PrivilegeError or VpntunError.

        `path_beside`: in the same folder, used where a process of another network namespace listens at `path`.
        """
        self._name = name
        self._loop = loop
        self._clients = Clients(name, loop, new_exchange)
        self._refused = Limited(INFO, "process %d of user %d may not use %s")
        self._listener, self.path, self._identity = listen(name, path, path_beside, MOST_CLIENTS)
        loop.watch(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Close all connections, and remove the socket unless its name belongs to another by now."""
        self._clients.close()
        self._loop.forget(self._listener.fileno())
        give_up(self.path, self._identity)
        self._listener.close()

    def go_on(self) -> None:
        """Give the clients answers that have become ready."""
        self._clients.go_on()

    def _accept(self) -> None:
        accepted = self._loop.accept(self._listener)
        if accepted is None:
            return
        new, _ = accepted
        process, user = other_end(new)
        if user in (0, os.geteuid()):
            self._clients.admit(new, f"process {process}")
        else:
            self._refused(process, user, self._name)
            new.close()
