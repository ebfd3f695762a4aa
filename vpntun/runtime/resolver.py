"""Name look-ups in a few helper threads, so that they never block the loop.

    literal address              answered by the loop, without a thread
    name                         waits until a thread is free; the answer wakes the loop
    name looked up in advance    the first `ask` is answered with the addresses found in advance
    name found once              counts as found from then on; the first time is reported

getaddrinfo may block for half a minute, and the name server that it asks may be inside the tunnel. All hosts share the
threads: a thousand look-ups at once need neither a thousand threads nor thousands of descriptors.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from vpntun.runtime.log import Limited, log
from vpntun.runtime.loop import Loop
from vpntun.types import SocketAddress

Found = list[tuple[socket.AddressFamily, SocketAddress]]
OnFound = Callable[[Found, Exception | None], None]
Name = tuple[str, int]
"""A host and a port."""

MOST_THREADS = 16
MOST_ADDRESSES = 64
"""Addresses of a host that are used. Whoever answers for its name could give thousands."""
SECONDS_WITHOUT_THREAD = 1.0
SECONDS_BETWEEN = 1.0
SECONDS_BETWEEN_LOOKS = 0.02
DOES_NOT_EXIST = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})
TASKS = Path("/proc/self/task")

"".encode("idna")  # getaddrinfo needs this codec; load it while this process may still read its file


def lookup(host: str, port: int, flags: int) -> Found:
    """Return the first UDP addresses of a host, the two IP versions alternating. Raises socket.gaierror."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    found: Found = [(family, address) for family, _, _, _, address in answers]  # type: ignore[misc]
    first = found[0][0]
    leading = [each for each in found if each[0] == first]
    others = [each for each in found if each[0] != first]
    pairs = itertools.zip_longest(leading, others)
    return [each for pair in pairs for each in pair if each is not None][:MOST_ADDRESSES]


class Lookups:
    """Helper threads for the look-ups of one loop, started on demand.

    `on_first_found` is called by the loop when a name is found for the first time. `find` looks a name up, in a thread.
    """

    def __init__(
        self,
        loop: Loop,
        on_first_found: Callable[[], None] = lambda: None,
        find: Callable[[str, int, int], Found] = lookup,
    ) -> None:
        self.loop = loop
        self._find = find
        self._on_first_found = on_first_found
        self._questions: SimpleQueue[tuple[Name, OnFound] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Name, OnFound, Found, Exception | None]] = SimpleQueue()
        self._ahead: dict[Name, Found] = {}
        self._found: set[Name] = set()
        self._unanswered = 0
        self._threads: list[threading.Thread] = []
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        loop.watch(self._reader.fileno(), self._collect)

    def has_found(self, host: str, port: int) -> bool:
        """Whether the name was ever found, or needs no look-up because it is a literal address."""
        return (host, port) in self._found or _is_literal(host)

    def look_up_ahead(self, names: Iterable[Name], seconds: float) -> dict[str, Exception | None]:
        """Look names up before the loop runs, and keep the addresses for the first `ask`.

        Serve the loop until each name was found or is known not to exist, but at most for `seconds`, in which a look-up
        that fails is repeated. Return the hosts that were not found, each with the last error, if there was one.
        """
        missing: dict[Name, Exception | None] = {each: None for each in names if not self.has_found(*each)}
        awaited = set(missing)

        def look_up(name: Name) -> None:
            if name in awaited:
                self._put(name, partial(answered, name))

        def answered(name: Name, found: Found, error: Exception | None) -> None:
            if name not in awaited:
                return
            if found:
                self._ahead[name] = found
                del missing[name]
            else:
                missing[name] = error
            if found or _is_final(error):
                awaited.remove(name)
            else:
                self.loop.call_later(SECONDS_BETWEEN, partial(look_up, name))

        for each in missing:
            look_up(each)
        self.loop.serve(lambda: not awaited, seconds)
        awaited.clear()
        return {host: error for (host, _), error in missing.items()}

    def ask(self, host: str, port: int, answer: OnFound) -> None:
        """Look a name up; the loop calls `answer` with the addresses, or with an empty list and the error."""
        known = self._ahead.pop((host, port), None)
        if known is not None:
            self.loop.call_later(0.0, partial(answer, known, None))
            return
        self._put((host, port), answer)

    def end_threads(self) -> None:
        """End all threads, and serve the loop until they have ended: one may still wait for a name server.

        Later look-ups start new ones.
        """
        for _ in self._threads:
            self._questions.put(None)
        # A thread of Python is over before the kernel's is.
        while any((TASKS / str(thread.native_id)).exists() for thread in self._threads):
            if not self.loop.serve(lambda: False, SECONDS_BETWEEN_LOOKS):
                return
        self._threads.clear()

    def close(self) -> None:
        """End the threads; one that is waiting for a name server ends after the answer."""
        for _ in self._threads:
            self._questions.put(None)
        self.loop.forget(self._reader.fileno())
        self._reader.close()
        self._writer.close()

    def _put(self, name: Name, answer: OnFound) -> None:
        self._questions.put((name, answer))
        self._unanswered += 1
        self._start_threads()

    def _start_threads(self) -> None:
        try:
            while len(self._threads) < min(self._unanswered, MOST_THREADS):
                thread = threading.Thread(target=self._work, name="resolver", daemon=True)
                thread.start()
                self._threads.append(thread)
        except RuntimeError:  # the limit on threads is reached
            self.loop.call_later(SECONDS_WITHOUT_THREAD, self._start_threads)

    def _work(self) -> None:
        while (question := self._questions.get()) is not None:
            name, answer = question
            try:
                self._answers.put((name, answer, self._find(*name, socket.AI_ADDRCONFIG), None))
            except (OSError, ValueError) as error:  # ValueError: the text cannot be a host name
                self._answers.put((name, answer, [], error))
            with suppress(OSError):  # full or closed: the loop is awake already, or has ended
                self._writer.send(b".")

    def _collect(self) -> None:
        self._reader.recv(4096)
        while not self._answers.empty():
            name, answer, found, error = self._answers.get()
            self._unanswered -= 1
            self.loop.call_later(0.0, partial(answer, found, error))  # separately, since one of them may fail
            if found and name not in self._found:
                self._found.add(name)
                self.loop.call_later(0.0, self._on_first_found)


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


def _is_literal(host: str) -> bool:
    try:
        lookup(host, 0, socket.AI_NUMERICHOST)
    except (OSError, ValueError):
        return False
    return True


def _is_final(error: Exception | None) -> bool:
    """Whether another look-up would fail in the same way: there is no such name, or the text cannot be one."""
    return isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno in DOES_NOT_EXIST)
