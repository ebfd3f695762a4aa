"""Clients of a server: how many there may be, and how long each may take. The loop never waits for one.

one request of a client at a time, within 60 s from its first byte to the last byte of its answer, without a pause
of 10 s; a notice says so if a client is too slow
a client that does not read its answers is not read from, nor is one whose answer is not ready
8 clients, unless the server allows another number; one more replaces the one that was idle for the longest, or the
oldest if all are busy
one that was idle for as long as the server allows is closed; by default it may be idle for ever
a stream, an answer that goes on until something happens, has no limits of time until it has ended; its client is
replaced last. A client that closes its connection, or sends no more, ends the stream
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.loop import Loop
from vpntun.serving.exchange import Exchange
from vpntun.types import NEVER

MOST_CLIENTS = 8
SECONDS_OF_SILENCE = 10.0
SECONDS_TO_FINISH = 60.0
READ_SIZE = 4096
MOST_ANSWERS_PER_TURN = 4
SECONDS_FOR_LAST_PIECES = 1.0
"""How long the end of the server may wait for one client to read the end of its stream."""


class Clients:
    """The clients of one server, `most` at a time. `name`: what the log calls its socket. Each has its own exchange.

    `seconds_idle`: how long a client may be idle, at least.
    """

    def __init__(
        self,
        name: str,
        loop: Loop,
        new_exchange: Callable[[], Exchange],
        *,
        most: int = MOST_CLIENTS,
        seconds_idle: float = NEVER,
    ) -> None:
        self._most = most
        self._seconds_idle = seconds_idle
        self._is_looking = False
        self._name = name
        self._loop = loop
        self._new_exchange = new_exchange
        self._clients: list[_Client] = []
        self._too_slow = Limited(NOTICE, "%s was too slow to send its request to %s, or to read the answer")

    def __len__(self) -> int:
        """Return how many are connected."""
        return len(self._clients)

    def admit(self, new: socket.socket, who: str) -> None:
        """Serve a connection, in place of another one if there are too many. `who` is what the log calls it."""
        if len(self._clients) >= self._most:
            min(self._clients, key=lambda client: (client.streams, client.busy, client.since)).close()
        self._clients.append(
            _Client(
                new,
                self._loop,
                self._new_exchange(),
                self._clients.remove,
                lambda: self._too_slow(who, self._name),
            )
        )
        self._look_later()

    def go_on(self) -> None:
        """Give the clients answers that have become ready."""
        for client in list(self._clients):
            client.go_on()

    def close(self) -> None:
        """Close all connections."""
        for client in list(self._clients):
            client.finish_stream()
            client.close()

    def _look_later(self) -> None:
        if self._clients and self._seconds_idle < NEVER and not self._is_looking:
            self._is_looking = True
            self._loop.call_later(self._seconds_idle / 2, self._end_idle)

    def _end_idle(self) -> None:
        self._is_looking = False
        for client in list(self._clients):
            if client.idle_since <= self._loop.now - self._seconds_idle:
                client.close()
        self._look_later()


class _Client:
    """One connection.

    `busy`: a request has begun, its answer has not left, and time is limited. `since`: when `busy` last changed.
    `streams`: a stream is being sent.
    """

    def __init__(
        self,
        new: socket.socket,
        loop: Loop,
        exchange: Exchange,
        on_closed: Callable[[_Client], None],
        on_too_slow: Callable[[], None],
    ) -> None:
        self.busy = self.streams = False
        self.since = self._last_progress = loop.now
        self._socket = new
        self._loop = loop
        self._exchange = exchange
        self._on_closed = on_closed
        self._on_too_slow = on_too_slow
        self._unsent = memoryview(b"")
        self._then: Callable[[], None] | None = None
        self._open = True
        self._sends_more = True
        self._timer_runs = False
        self._is_watched = False
        new.setblocking(False)
        self._watch()

    @property
    def idle_since(self) -> float:
        """When the last answer left, or the connection was made; NEVER while there is something to do."""
        return NEVER if self.busy or self.streams else max(self.since, self._last_progress)

    def close(self) -> None:
        """Close the connection, once. What was to follow an unsent answer is still done."""
        if not self._open:
            return
        self._open = False
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._on_closed(self)
        self._finish_answer()
        if self._exchange.stream is not None:
            self._exchange.stream.end()

    def finish_stream(self) -> None:
        """End the stream, and send what is left of it, for which the client has a moment."""
        if self._exchange.stream is None:
            return
        self._exchange.stream.end()
        end = self._loop.time() + SECONDS_FOR_LAST_PIECES
        with suppress(OSError):
            while True:
                while self._unsent:
                    left = end - self._loop.time()
                    if left <= 0:
                        return
                    self._socket.settimeout(left)
                    self._unsent = self._unsent[self._socket.send(self._unsent) :]
                answer = self._exchange.next_answer()
                if answer is None:
                    break
                self._unsent = memoryview(answer[0])

    def _read(self) -> None:
        if not self._open:
            return
        try:
            data = self._socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._last_progress = self._loop.now
        self._sends_more = bool(data)
        self._exchange.take(data)
        self.go_on()

    def go_on(self) -> None:
        """Answer requests for as long as the other end takes the answers, a few of them a turn of the loop."""
        for _ in range(MOST_ANSWERS_PER_TURN):
            if not self._open or (self._unsent and not self._send()):
                break
            self._finish_answer()
            answer = self._exchange.next_answer()
            if answer is None:
                break
            self._unsent, self._then = memoryview(answer[0]), answer[1]
        if self._open and self._exchange.ended and not self._unsent:
            self.close()
        if self._open:
            self._follow_stream()
            self._choose_events()
            self._keep_time()

    def _choose_events(self) -> None:
        """Watch the socket for what can be done now, and not at all while the next answer is awaited.

        Otherwise what the client sends meanwhile would pile up, and its end would keep the loop awake.
        """
        if self._exchange.awaits_answer:
            self._loop.forget(self._socket.fileno())
            self._is_watched = False
            return
        self._watch()
        alone = not self.streams or not self._sends_more
        self._loop.await_writable(self._socket.fileno(), bool(self._unsent), alone=alone)

    def _watch(self) -> None:
        if not self._is_watched:
            self._is_watched = True
            self._loop.watch(self._socket.fileno(), self._read, self.go_on, on_failure=self.close)

    def _follow_stream(self) -> None:
        stream = self._exchange.stream
        if stream is not None and not self.streams:
            stream.call_on_more(self._has_more)
        self.streams = stream is not None

    def _has_more(self) -> None:
        """Send the next piece in the next turn of the loop, with all that this turn still adds to it."""
        if self._open:
            self._loop.await_writable(self._socket.fileno(), True)

    def _send(self) -> bool:
        """Send what the kernel takes, and return whether all of it has left."""
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
            self._last_progress = self._loop.now
        except BlockingIOError:
            return False
        except OSError:
            self._unsent = memoryview(b"")
            self.close()
        return not self._unsent

    def _finish_answer(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            self.since = self._loop.now
            then()

    def _keep_time(self) -> None:
        stream = self._exchange.stream
        is_running = stream is not None and not stream.ended
        busy = not is_running and (bool(self._unsent) or not self._exchange.idle)
        if busy != self.busy:
            self.busy, self.since = busy, self._loop.now
        if busy and not self._timer_runs:
            self._timer_runs = True
            self._loop.call_later(SECONDS_OF_SILENCE, self._check_time)

    def _check_time(self) -> None:
        self._timer_runs = False
        if not self._open or not self.busy:
            return
        end = min(self._last_progress + SECONDS_OF_SILENCE, self.since + SECONDS_TO_FINISH)
        left = end - self._loop.now
        if left <= 0:
            self._on_too_slow()
            self.close()
        else:
            self._timer_runs = True
            self._loop.call_later(left, self._check_time)
