"""Connecting to a forward's target: its name is looked up, and its addresses are tried in turn.

An address that refuses is followed by the next one at once, and one that is silent after SECONDS_FOR_ADDRESS; the last
error is reported. All together have SECONDS_FOR_TARGET. A unix socket whose queue of new connections is full is asked
again until then, since unlike TCP the kernel does not wait for room in it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import ref

from vpntun.forwards.side import Side
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Found, lookup
from vpntun.types import Place, SocketAddress

SECONDS_FOR_ADDRESS = 10.0
SECONDS_FOR_TARGET = 20.0
SECONDS_BETWEEN_TRIES_OF_FULL_SOCKET = 0.05

Owner = TypeVar("Owner")
OnConnected = Callable[[socket.socket], None]
OnFailed = Callable[[OSError], None]


def connect(loop: Loop, side: Side, target: Path | Place, on_connected: OnConnected, on_failed: OnFailed) -> Connecting:
    """Connect to a target as programs on this side would; the loop calls one of the two, never from within `connect`.

    The socket that `on_connected` is given is non-blocking, and watched by nobody.
    """
    return Connecting(loop, side, target, on_connected, on_failed)


class Connecting:
    """A connection that is being made; `close` gives it up."""

    def __init__(
        self, loop: Loop, side: Side, target: Path | Place, on_connected: OnConnected, on_failed: OnFailed
    ) -> None:
        self._loop = loop
        self._side = side
        self._on_connected = on_connected
        self._on_failed = on_failed
        self._is_over = False
        self._tried: socket.socket | None = None
        self._rest: list[tuple[int, SocketAddress | str]] = []
        self._last_error = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        loop.call_later(SECONDS_FOR_TARGET, unless_gone(self, Connecting._give_up))
        if isinstance(target, Path):
            self._rest = [(socket.AF_UNIX, str(target))]
            loop.call_later(0.0, self._try_next)
        else:
            look_up(loop, side, target, self._found)

    def close(self) -> None:
        """Give up, without calling anybody back."""
        self._is_over = True
        self._drop()

    def _found(self, found: Found, error: Exception | None) -> None:
        if error is not None:
            self._last_error = error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error))
        self._rest = list(found)
        self._try_next()

    def _try_next(self) -> None:
        """Begin to connect to the next address, or report that there is none."""
        if self._is_over:
            return
        if not self._rest:
            self._fail(self._last_error)
            return
        family, address = self._rest.pop(0)
        try:
            tried = self._tried = self._open(family)
            error = tried.connect_ex(address)
        except OSError as refused:  # this side has no socket, or no such IP version
            self._refused(refused)
            return
        if error == errno.EAGAIN and family == socket.AF_UNIX:
            self._drop()
            self._rest.insert(0, (family, address))
            self._loop.call_later(SECONDS_BETWEEN_TRIES_OF_FULL_SOCKET, self._try_next)
        elif error not in (0, errno.EINPROGRESS):
            self._refused(OSError(error, os.strerror(error)))
        else:
            self._loop.watch_changes(tried.fileno(), self._look, self._look)
            if self._rest:
                self._loop.call_later(
                    SECONDS_FOR_ADDRESS, unless_gone(self, partial(Connecting._too_slow, tried=tried))
                )

    def _open(self, family: int) -> socket.socket:
        if family == socket.AF_UNIX:
            return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        return self._side.open(family, socket.SOCK_STREAM)

    def _look(self) -> None:
        """See whether the connection stands by now, or was refused."""
        tried = self._tried
        if tried is None:
            return
        error = tried.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._refused(OSError(error, os.strerror(error)))
            return
        if _is_connected(tried):
            self._loop.forget(tried.fileno())
            self._tried = None
            self._is_over = True
            self._on_connected(tried)

    def _too_slow(self, tried: socket.socket) -> None:
        if self._tried is tried:
            self._refused(OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))

    def _refused(self, error: OSError) -> None:
        self._last_error = error
        self._drop()
        self._try_next()

    def _give_up(self) -> None:
        if not self._is_over:
            self._fail(OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))

    def _fail(self, error: OSError) -> None:
        self.close()
        self._on_failed(error)

    def _drop(self) -> None:
        if self._tried is not None:
            self._loop.forget(self._tried.fileno())
            self._tried.close()
            self._tried = None


def look_up(loop: Loop, side: Side, place: Place, answer: Callable[[Found, Exception | None], None]) -> None:
    """Have the loop call `answer` with the addresses of a place: literal ones as they are, names as `side` does.

    An address with a zone is a name here: the number of a device differs between network namespaces.
    """
    try:
        found = lookup(*place, socket.AI_NUMERICHOST) if "%" not in place[0] else None
    except (OSError, ValueError):
        found = None
    if found is None:
        side.look_up(*place, answer)
    else:
        loop.call_later(0.0, partial(answer, found, None))


def unless_gone(owner: Owner, act: Callable[[Owner], None]) -> Callable[[], None]:
    """Return a callback for a time limit of an object, which does not keep the object until then.

    Connections come and go by the thousand, and a callback of the loop cannot be cancelled.
    """
    return partial(_act_unless_gone, ref(owner), act)


def _act_unless_gone(weak: ref[Owner], act: Callable[[Owner], None]) -> None:
    if (owner := weak()) is not None:
        act(owner)


def _is_connected(tried: socket.socket) -> bool:
    try:
        tried.getpeername()
    except OSError:
        return False
    return True
