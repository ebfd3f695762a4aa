"""Relay between two connected stream sockets: each sends what the other receives, until both directions have ended.

1. The bytes of a readable socket go into a pipe, and from there into the other socket (os.splice): the kernel moves
   their pages, and no byte passes through Python.
2. A pipe is taken for the time of a callback. If the receiver takes no more, the direction keeps the pipe with the
   bytes in it, and reads nothing until the receiver takes them. Meanwhile the sender's window closes.
3. After MOST_PER_TURN bytes the loop serves others first, above all the tunnel itself.
4. The end of a direction is carried over once its last byte is (shutdown), and the other direction goes on.
5. An error of one socket, such as a reset, ends both directions: the other socket is reset, too. A unix socket has no
   reset, and is closed.

Keepalives find out that a peer has vanished (DEAD_AFTER). They belong to each of the two connections: a relay carries
bytes, not segments.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from vpntun.forwards.pipes import Pipe, PipePool
from vpntun.runtime.loop import Loop

MOST_PER_TURN = 256 * 1024
IDLE_BEFORE_KEEPALIVE, BETWEEN_KEEPALIVES, KEEPALIVES = 60, 20, 6
DEAD_AFTER = IDLE_BEFORE_KEEPALIVE + BETWEEN_KEEPALIVES * KEEPALIVES
"""Seconds after which an idle connection whose other end has vanished is closed."""
_SPLICED = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_RESET = struct.pack("ii", 1, 0)
"""Linger for 0 seconds: close(2) discards what was not sent, and sends a reset."""


class Relay:
    """A connection that is passed on: bytes from `near` go to `far`, and the other way.

    The sockets are connected and non-blocking; the relay owns them from now on. `on_end` is called once, by the loop,
    when the relay has ended by itself. Raises OSError if they cannot be watched, and then both are closed.
    """

    def __init__(
        self,
        loop: Loop,
        near: socket.socket,
        far: socket.socket,
        pipes: PipePool,
        on_end: Callable[[Relay], None],
    ) -> None:
        self._loop = loop
        self._near = near
        self._far = far
        self._on_end = on_end
        self._is_open = True
        out = self._out = _Direction(loop, near, far, pipes)
        back = self._back = _Direction(loop, far, near, pipes)
        try:
            self._watch(near, out, back)
            self._watch(far, back, out)
        except OSError:
            self._close()
            raise

    @property
    def sent(self) -> int:
        """Number of bytes passed on from near to far."""
        return self._out.moved

    @property
    def received(self) -> int:
        """Number of bytes passed on from far to near."""
        return self._back.moved

    def close(self) -> None:
        """Reset both connections now. `on_end` is not called."""
        if self._is_open:
            for one in (self._near, self._far):
                reset_at_close(one)
            self._close()

    def _watch(self, one: socket.socket, reading: _Direction, writing: _Direction) -> None:
        """Watch a socket which is the source of one direction, and the sink of the other."""
        prepare(one)
        self._loop.watch_changes(
            one.fileno(),
            partial(self._attempt, reading.source_has_changed),
            partial(self._attempt, writing.sink_has_changed),
            self._fail,
        )

    def _attempt(self, step: Callable[[], None]) -> None:
        if not self._is_open:
            return
        try:
            step()
        except OSError:
            self._fail()
            return
        if self._out.has_ended and self._back.has_ended:
            self._close()
            self._on_end(self)

    def _fail(self) -> None:
        if self._is_open:
            self.close()
            self._on_end(self)

    def _close(self) -> None:
        self._is_open = False
        for one in (self._near, self._far):
            self._loop.forget(one.fileno())
            one.close()
        self._out.close()
        self._back.close()


class _Direction:
    """One direction of a relay. `moved`: bytes that the sink has taken; `has_ended`: the source sends no more."""

    def __init__(self, loop: Loop, source: socket.socket, sink: socket.socket, pipes: PipePool) -> None:
        self._loop = loop
        self._source = source
        self._sink = sink
        self._pipes = pipes
        self._pipe: Pipe | None = None
        self._in_pipe = 0
        self.moved = 0
        self.has_ended = False

    def source_has_changed(self) -> None:
        """Pass on what has arrived, unless the sink takes no more. Raises OSError, also when the source is reset."""
        if self._in_pipe or self.has_ended:
            _raise_error_of(self._source)
        else:
            self._move()

    def sink_has_changed(self) -> None:
        """Go on if the sink has taken no more until now. Raises OSError, also when the sink is reset."""
        if self._in_pipe:
            self._move()
        else:
            _raise_error_of(self._sink)

    def close(self) -> None:
        """Discard the bytes that wait for the sink."""
        if self._pipe is not None:
            self._pipes.discard(self._pipe)
            self._pipe = None

    def _move(self) -> None:
        """Move bytes until the source has no more, the sink takes no more, or the turn is over. Raises OSError."""
        pipe = self._pipe = self._pipe or self._pipes.take()
        end_of_turn = self.moved + MOST_PER_TURN
        try:
            while self._empty(pipe) and not self.has_ended:
                if self.moved >= end_of_turn:
                    self._loop.look_again(self._source.fileno())
                    break
                self._fill(pipe)
        except BlockingIOError:
            pass
        if not self._in_pipe:
            self._pipe = None
            self._pipes.give_back(pipe)

    def _fill(self, pipe: Pipe) -> None:
        """Move bytes from the source into the empty pipe. Raises BlockingIOError if there are none, and OSError."""
        self._in_pipe = os.splice(self._source.fileno(), pipe.writer, MOST_PER_TURN, flags=_SPLICED)
        if not self._in_pipe:
            self.has_ended = True
            self._sink.shutdown(socket.SHUT_WR)

    def _empty(self, pipe: Pipe) -> bool:
        """Move all bytes from the pipe to the sink. Raises BlockingIOError if it takes no more, and OSError."""
        while self._in_pipe:
            # Not one byte more than there is: the kernel would wait for it before it sends the last segment.
            taken = os.splice(pipe.reader, self._sink.fileno(), self._in_pipe, flags=_SPLICED)
            self._in_pipe -= taken
            self.moved += taken
        return True


def reset(connected: socket.socket) -> None:
    """Close a socket so that the other end takes it for an error, and not for the end of the connection."""
    reset_at_close(connected)
    connected.close()


def reset_at_close(connected: socket.socket) -> None:
    """Have the connection reset when the socket is closed."""
    if connected.family != socket.AF_UNIX:
        with suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def prepare(connected: socket.socket) -> None:
    """Send small pieces at once, and find out if the other end vanishes."""
    if connected.family == socket.AF_UNIX:
        return
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_BEFORE_KEEPALIVE)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, BETWEEN_KEEPALIVES)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVES)


def _raise_error_of(connected: socket.socket) -> None:
    """Raise the error that the kernel keeps for a socket which is neither read nor written, if there is one."""
    error = connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))
