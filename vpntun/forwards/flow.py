"""Flow of datagrams between one client and the target of a forward, on a socket that is connected to the target.

looking up    up to MOST_WAITING datagrams wait; the last ones are kept, as far as all flows together have room
connected     datagrams go both ways; an ICMP error, such as of a closed port, is counted, and the flow goes on
failed        the target has no address, or cannot be reached by any: datagrams are dropped until the flow ends
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable

from vpntun.forwards.connections import Connections, Counters
from vpntun.forwards.side import Side
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Found

MOST_WAITING = 8
MOST_ANSWERS_PER_TURN = 64


class Flow:
    """One flow. `answer` sends a datagram to the client, and raises OSError; `failed` is told of each failure.

    `used_at`: when the last datagram came; `answered`: whether the target has sent any.
    """

    def __init__(
        self,
        loop: Loop,
        side: Side,
        counters: Counters,
        connections: Connections,
        buffer: bytearray,
        answer: Callable[[memoryview], object],
        failed: Callable[[OSError], None],
    ) -> None:
        self._loop = loop
        self._side = side
        self._counters = counters
        self._room, self._own = connections.waiting, connections.own
        self._buffer = buffer
        self._answer = answer
        self._failed = failed
        self._waiting: deque[bytes] | None = deque()
        self._socket: socket.socket | None = None
        self.used_at = loop.now
        self.answered = False

    @property
    def is_connected(self) -> bool:
        """Whether datagrams can be sent to the target."""
        return self._socket is not None

    @property
    def awaits_address(self) -> bool:
        """Whether `connect` was not called yet, nor `close`."""
        return self._waiting is not None

    def connect(self, found: Found, error: Exception | None) -> None:
        """Connect to the first of these addresses that can be used, and send what waits."""
        if not self.awaits_address:
            return
        waiting = self._take_waiting()
        last = error if isinstance(error, OSError) else OSError(str(error))
        for family, address in found:
            try:
                self._socket = self._connected(family, address)
                break
            except OSError as refused:
                last = refused
        else:
            self._failed(last)
            return
        self._own.add(self._socket)
        self._loop.watch(self._socket.fileno(), self._receive)
        for each in waiting:
            self.send(memoryview(each))

    def send(self, datagram: memoryview) -> None:
        """Send a datagram to the target, or keep it until the target's address is known."""
        self.used_at = self._loop.now
        if self._waiting is not None:
            self._keep(bytes(datagram))
        elif self._socket is not None:
            try:
                self._counters.sent += self._socket.send(datagram)
            except BlockingIOError:  # the device takes no more: lost, as anywhere else
                pass
            except OSError as error:
                self._failed(error)

    def close(self) -> None:
        """End the flow."""
        self._take_waiting()
        if self._socket is not None:
            self._own.remove(self._socket)
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _keep(self, datagram: bytes) -> None:
        assert self._waiting is not None
        if len(self._waiting) >= MOST_WAITING:
            self._room.give_back(len(self._waiting.popleft()))
        if self._room.take(len(datagram)):
            self._waiting.append(datagram)

    def _take_waiting(self) -> deque[bytes]:
        """Return the datagrams that wait; no more will."""
        waiting, self._waiting = self._waiting or deque(), None
        self._room.give_back(sum(map(len, waiting)))
        return waiting

    def _connected(self, family: int, address: object) -> socket.socket:
        new = self._side.open(family, socket.SOCK_DGRAM)
        try:
            new.connect(address)  # type: ignore[arg-type]  # an address of this family
        except OSError:
            new.close()
            raise
        return new

    def _receive(self) -> None:
        """Pass the target's answers on to the client."""
        for _ in range(MOST_ANSWERS_PER_TURN):
            if self._socket is None:
                return
            try:
                size = self._socket.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(error)
                return
            self.used_at = self._loop.now
            self.answered = True
            try:
                self._answer(memoryview(self._buffer)[:size])
            except OSError:  # the client cannot be reached now: lost, as anywhere else
                continue
            self._counters.received += size
