"""Names are looked up off the loop: one helper thread a look-up, one at a time, its answer handed over by a pipe.

getaddrinfo may block for half a minute, and the resolver that it asks may lie inside the tunnel. A literal address is
answered without a thread.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from vpntun.host.log import Limited, log
from vpntun.host.loop import Loop

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
Found = list[tuple[socket.AddressFamily, SocketAddress]]


class Resolver:
    """Looks one host up, as often as it is asked to; `on_found` gets the addresses, v4 and v6 in turn."""

    def __init__(self, loop: Loop, host: str, port: int, on_found: Callable[[Found], None]) -> None:
        self._host = host
        self._port = port
        self._on_found = on_found
        self._found: Found = []
        self._busy = False
        self._closed = False
        self._loop = loop
        self._failed = Limited(30, "%s does not resolve (%s); trying again")
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        loop.watch(self._reader, self._collect)

    def look_up(self) -> None:
        """Start a look-up, unless one is under way."""
        if self._busy:
            return
        self._busy = True
        with suppress(socket.gaierror, ValueError):
            self._found = lookup(self._host, self._port, socket.AI_NUMERICHOST)
            os.write(self._writer, b".")
            return
        threading.Thread(target=self._run, name="resolver", daemon=True).start()

    def close(self) -> None:
        """Look nothing up any more; an answer that is still to come is not handed on."""
        self._closed = True
        if not self._busy:
            self._let_go()

    def _run(self) -> None:
        try:
            self._found = lookup(self._host, self._port, socket.AI_ADDRCONFIG)
        except (OSError, ValueError) as error:  # ValueError: it has not even the form of a name
            self._found = []
            self._failed(self._host, error)
        with suppress(OSError):  # the program has ended meanwhile
            os.write(self._writer, b".")

    def _collect(self) -> None:
        os.read(self._reader, 16)
        self._busy = False
        if self._closed:
            self._let_go()
            return
        log.debug("%s is at %s", self._host, ", ".join(address[0] for _, address in self._found) or "no address")
        self._on_found(self._found)

    def _let_go(self) -> None:
        self._loop.forget(self._reader)
        os.close(self._reader)
        os.close(self._writer)


def lookup(host: str, port: int, flags: int) -> Found:
    """The UDP addresses of a host, the two IP versions in turn. Raises socket.gaierror."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    found: Found = [(family, address) for family, _, _, _, address in answers]  # type: ignore[misc]
    first = found[0][0]
    leading = [each for each in found if each[0] == first]
    others = [each for each in found if each[0] != first]
    pairs = itertools.zip_longest(leading, others)
    return [each for pair in pairs for each in pair if each is not None]
