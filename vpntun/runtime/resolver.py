"""Name look-ups in a few helper threads, so that they never block the loop.

    literal address              answered by the loop, without a thread
    name                         waits until a thread is free; the answer wakes the loop
    name looked up in advance    the first `ask` is answered with the addresses found in advance

getaddrinfo may block for half a minute, and the name server that it asks may be inside the tunnel. All hosts share the
threads: a thousand look-ups at once need neither a thousand threads nor thousands of descriptors.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

from vpntun.runtime.log import NOTICE, Limited, log
from vpntun.runtime.loop import Loop
from vpntun.types import SocketAddress

Found = list[tuple[socket.AddressFamily, SocketAddress]]
OnFound = Callable[[Found, Exception | None], None]

MOST_THREADS = 16
SECONDS_WITHOUT_THREAD = 1.0
SECONDS_BETWEEN = 2.0

"".encode("idna")  # getaddrinfo needs this codec; load it while this process may still read its file


class Lookups:
    """Helper threads for the look-ups of one loop, started on demand."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._questions: SimpleQueue[tuple[str, int, OnFound] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[OnFound, Found, Exception | None]] = SimpleQueue()
        self._ahead: dict[tuple[str, int], Found] = {}
        self._unanswered = 0
        self._threads = 0
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        loop.watch(self._reader.fileno(), self._collect)

    def look_up_ahead(self, host: str, port: int) -> None:
        """Look a name up at once and keep the addresses for the first `ask`. Raises OSError or ValueError."""
        try:
            lookup(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            self._ahead[host, port] = lookup(host, port, socket.AI_ADDRCONFIG)

    def look_all_up_ahead(self, hosts: list[tuple[str, int]]) -> None:
        """Look many names up, before `run`; wait until all of them resolve or the loop is stopped."""
        not_found = Limited(NOTICE, "%s does not resolve (%s); the tunnel is not set up until it does")
        for host, port in hosts:
            while not self._is_found_ahead(host, port, not_found):
                if not self.loop.rest(SECONDS_BETWEEN):
                    return

    def _is_found_ahead(self, host: str, port: int, not_found: Limited) -> bool:
        try:
            self.look_up_ahead(host, port)
        except (OSError, ValueError) as error:
            not_found(host, error)
            return False
        return True

    def ask(self, host: str, port: int, answer: OnFound) -> None:
        """Look a name up; the loop calls `answer` with the addresses, or with an empty list and the error."""
        known = self._ahead.pop((host, port), None)
        if known is not None:
            self.loop.call_later(0.0, partial(answer, known, None))
            return
        self._questions.put((host, port, answer))
        self._unanswered += 1
        self._start_threads()

    def close(self) -> None:
        """End the threads; one that is waiting for a name server ends after the answer."""
        for _ in range(self._threads):
            self._questions.put(None)
        self.loop.forget(self._reader.fileno())
        self._reader.close()
        self._writer.close()

    def _start_threads(self) -> None:
        try:
            while self._threads < min(self._unanswered, MOST_THREADS):
                threading.Thread(target=self._work, name="resolver", daemon=True).start()
                self._threads += 1
        except RuntimeError:  # the limit on threads is reached
            self.loop.call_later(SECONDS_WITHOUT_THREAD, self._start_threads)

    def _work(self) -> None:
        while (question := self._questions.get()) is not None:
            host, port, answer = question
            try:
                self._answers.put((answer, lookup(host, port, socket.AI_ADDRCONFIG), None))
            except (OSError, ValueError) as error:  # ValueError: the text cannot be a host name
                self._answers.put((answer, [], error))
            with suppress(OSError):  # full or closed: the loop is awake already, or has ended
                self._writer.send(b".")

    def _collect(self) -> None:
        self._reader.recv(4096)
        while not self._answers.empty():
            answer, found, error = self._answers.get()
            self._unanswered -= 1
            self.loop.call_later(0.0, partial(answer, found, error))  # separately, since one of them may fail


class Resolver:
    """Repeated look-ups of one host; `on_found` gets its addresses, IPv4 and IPv6 alternating."""

    def __init__(self, lookups: Lookups, host: str, port: int, on_found: Callable[[Found], None]) -> None:
        self._lookups = lookups
        self._host = host
        self._port = port
        self._on_found = on_found
        self._busy = False
        self._closed = False
        self._failed = Limited(30, "%s does not resolve (%s); trying again")

    def look_up(self) -> None:
        """Start a look-up, unless one is in progress."""
        if self._busy or self._closed:
            return
        self._busy = True
        try:
            found = lookup(self._host, self._port, socket.AI_NUMERICHOST)
        except (socket.gaierror, ValueError):
            self._lookups.ask(self._host, self._port, self._answered)
        else:
            self._lookups.loop.call_later(0.0, partial(self._answered, found, None))

    def close(self) -> None:
        """Stop looking up; an answer that arrives later is ignored."""
        self._closed = True

    def _answered(self, found: Found, error: Exception | None) -> None:
        self._busy = False
        if self._closed:
            return
        if error is not None:
            self._failed(self._host, error)
        log.debug("%s resolves to %s", self._host, ", ".join(address[0] for _, address in found) or "no address")
        self._on_found(found)


def lookup(host: str, port: int, flags: int) -> Found:
    """Return the UDP addresses of a host, the two IP versions alternating. Raises socket.gaierror."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    found: Found = [(family, address) for family, _, _, _, address in answers]  # type: ignore[misc]
    first = found[0][0]
    leading = [each for each in found if each[0] == first]
    others = [each for each in found if each[0] != first]
    pairs = itertools.zip_longest(leading, others)
    return [each for pair in pairs for each in pair if each is not None]
