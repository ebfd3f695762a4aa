"""Names are looked up off the loop, by a few helper threads that all hosts share.

    a literal address    answered without a thread, by the loop
    a name               waits until one of the threads is free; the answer wakes the loop
    one looked up ahead  what was found is the first answer

getaddrinfo may block for half a minute, and the resolver that it asks may lie inside the tunnel. A thousand names that
are asked for at once are neither a thousand threads nor thousands of descriptors.
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

"".encode("idna")  # getaddrinfo loads this codec, and who has given privileges up may not be able to read it


class Lookups:
    """The helper threads of one loop, started as they are needed."""

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
        """Look a name up here and now, for the first who asks. Raises OSError or ValueError."""
        try:
            lookup(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            self._ahead[host, port] = lookup(host, port, socket.AI_ADDRCONFIG)

    def look_all_up_ahead(self, hosts: list[tuple[str, int]]) -> None:
        """The same for many, before `run`: wait until every one is found, or the loop is stopped."""
        not_found = Limited(NOTICE, "%s does not resolve (%s); the tunnel is not set up before it does")
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
        """Look a name up; the loop calls `answer` with the addresses, or with none and the reason."""
        known = self._ahead.pop((host, port), None)
        if known is not None:
            self.loop.call_later(0.0, partial(answer, known, None))
            return
        self._questions.put((host, port, answer))
        self._unanswered += 1
        self._start_threads()

    def close(self) -> None:
        """End; a thread that still waits for an answer ends after it."""
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
        except RuntimeError:  # this process may have no more threads now
            self.loop.call_later(SECONDS_WITHOUT_THREAD, self._start_threads)

    def _work(self) -> None:
        while (question := self._questions.get()) is not None:
            host, port, answer = question
            try:
                self._answers.put((answer, lookup(host, port, socket.AI_ADDRCONFIG), None))
            except (OSError, ValueError) as error:  # ValueError: it has not even the form of a name
                self._answers.put((answer, [], error))
            with suppress(OSError):  # the loop is awake already, or has ended
                self._writer.send(b".")

    def _collect(self) -> None:
        self._reader.recv(4096)
        while not self._answers.empty():
            answer, found, error = self._answers.get()
            self._unanswered -= 1
            self.loop.call_later(0.0, partial(answer, found, error))  # each by itself: one may fail


class Resolver:
    """Looks one host up, as often as it is asked to; `on_found` gets the addresses, v4 and v6 in turn."""

    def __init__(self, lookups: Lookups, host: str, port: int, on_found: Callable[[Found], None]) -> None:
        self._lookups = lookups
        self._host = host
        self._port = port
        self._on_found = on_found
        self._busy = False
        self._closed = False
        self._failed = Limited(30, "%s does not resolve (%s); trying again")

    def look_up(self) -> None:
        """Start a look-up, unless one is under way."""
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
        """Look nothing up any more; an answer that is still to come is not handed on."""
        self._closed = True

    def _answered(self, found: Found, error: Exception | None) -> None:
        self._busy = False
        if self._closed:
            return
        if error is not None:
            self._failed(self._host, error)
        log.debug("%s is at %s", self._host, ", ".join(address[0] for _, address in found) or "no address")
        self._on_found(found)


def lookup(host: str, port: int, flags: int) -> Found:
    """The UDP addresses of a host, the two IP versions in turn. Raises socket.gaierror."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    found: Found = [(family, address) for family, _, _, _, address in answers]  # type: ignore[misc]
    first = found[0][0]
    leading = [each for each in found if each[0] == first]
    others = [each for each in found if each[0] != first]
    pairs = itertools.zip_longest(leading, others)
    return [each for pair in pairs for each in pair if each is not None]
