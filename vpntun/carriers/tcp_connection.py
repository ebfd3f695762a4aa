"""TCP connection: each message is a frame, behind its length in 2 bytes, big-endian.

* A frame that the kernel accepted in part is finished before the next one begins.
* Handshake and keepalive messages are sent before data, as are records without packets. At most 20 of them wait: the
  pieces of an answer (wire/inside/request.py) and four others. One more replaces the oldest.
* Until a message on the connection was authenticated, the other end may send frames of at most 256 bytes, or of 9,216
  if they begin like a data message of a live session.
* The connection belongs to the first peer that is authenticated on it.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator

from vpntun.carriers.base import ConnectionOwner
from vpntun.carriers.sockets import origin_of, packed, scope_of, set_mark, where_of
from vpntun.core.endpoint import Flow, Outcome, Reachable
from vpntun.errors import BadPacket
from vpntun.runtime.loop import Loop
from vpntun.types import CarrierName, SocketAddress
from vpntun.wire.checksum import TCP
from vpntun.wire.inside.request import MOST_PIECES
from vpntun.wire.message import LARGEST, Buffer
from vpntun.wire.stream_framing import (
    LARGEST_BEFORE_AUTHENTICATION,
    PREFIX_SIZE,
    FrameReader,
    SharedBuffer,
    fits_none,
    prefix,
    write_prefix,
)

SECONDS_TO_HANG_UP = 2.0
MOST_WAITING = MOST_PIECES + 4
NOTSENT_LOWAT = 1024 * 1024
USER_TIMEOUT_MS = 15_000
SIOCOUTQNSD = 0x894B
TCP_NOTSENT_LOWAT = 25
TCP_USER_TIMEOUT = 18
MOST_READS_PER_TURN = 16
_NOTHING = memoryview(b"")


class TcpConnection:
    """One connection, dialled or accepted, which is its own endpoint.

    `fits_session`: whether the header of a data message fits a live session.
    """

    carrier: CarrierName = "tcp"
    is_stream = True

    def __init__(
        self,
        new: socket.socket,
        address: SocketAddress,
        loop: Loop,
        owner: ConnectionOwner,
        received: SharedBuffer,
        fits_session: Callable[[Buffer], bool] = fits_none,
    ) -> None:
        self._socket = new
        self.address = address
        self._own_address: SocketAddress = new.getsockname()
        self._loop = loop
        self._owner = owner
        self._reader = FrameReader(LARGEST_BEFORE_AUTHENTICATION, received, self.close, fits_session)
        self._unsent = _NOTHING
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)
        self._open = True
        self._is_closing = False
        self.peer: Reachable | None = None
        self.expected_peer: Reachable | None = None
        new.setblocking(False)
        new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        new.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
        new.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS)

    @property
    def origin(self) -> bytes:
        """The other end's address and port, as bytes."""
        return origin_of(self.address)

    @property
    def via(self) -> Hashable:
        """This end's address and port."""
        return self._own_address

    @property
    def is_open(self) -> bool:
        """Whether the connection was not closed yet."""
        return self._open

    @property
    def where(self) -> str:
        """The other end's address and port."""
        return where_of(self.address)

    def __str__(self) -> str:
        return f"{self.where} over TCP"

    @property
    def ipv6(self) -> bool:
        """Whether the connection runs over IPv6."""
        return ":" in self.address[0]

    @property
    def host(self) -> str:
        """The other end's address."""
        return self.address[0]

    @property
    def flow(self) -> Flow:
        """The flow of the TCP segments that this end sends."""
        own, other = self._own_address, self.address
        return Flow(TCP, packed(own), own[1], packed(other), other[1], scope_of(other))

    def send_from(self, source: bytes) -> None:
        """Do nothing: a connection keeps its address."""

    def set_mark(self, mark: int) -> None:
        """Give every packet that leaves from now on this mark. Raises PrivilegeError."""
        if self._socket.fileno() >= 0:  # else it is closed
            set_mark(self._socket, mark)

    def fileno(self) -> int:
        """Return the descriptor, for the loop."""
        return self._socket.fileno()

    @property
    def is_endpoint(self) -> bool:
        """Whether the connection is its peer's current endpoint."""
        return self.peer is not None and self.peer.endpoint is self

    def expect(self, peer: Reachable) -> None:
        """Note that an initiation of this peer was accepted on the connection. Only the first one counts."""
        if self.peer is None and self.expected_peer is None:
            self.expected_peer = peer
            self._owner.expected(self, peer)

    def belongs_to(self, peer: Reachable) -> None:
        """Note that a message of this peer was authenticated here. Raises BadPacket on another peer's connection."""
        if self.peer is None:
            self.peer = peer
            self._reader.admit(LARGEST)
            self._owner.authenticated(self, peer)
        elif self.peer is not peer:
            raise BadPacket("another peer's connection")

    def receive(self) -> Iterable[memoryview]:
        """Read, and return the messages that have arrived, each valid until the next.

        Closes the connection when the other end has closed it, or sends an impossible frame. Raises BadPacket for such
        a frame, after closing.
        """
        return self._receive_more() if self._read() else self._reader.frames()

    def _receive_more(self) -> Iterator[memoryview]:
        """Yield the messages of a read that filled the buffer, and of those after it."""
        yield from self._reader.frames()
        for _ in range(MOST_READS_PER_TURN - 1):
            if not self._open:
                return
            is_full = self._read()
            yield from self._reader.frames()
            if not is_full:
                return

    def _read(self) -> bool:
        """Read from the socket once; return whether that filled the buffer. Else it has emptied the kernel's."""
        room = self._reader.writable()
        try:
            taken = self._socket.recv_into(room)
        except BlockingIOError:
            return False
        except OSError:
            taken = 0
        if not taken:
            self.close()
            return False
        self._reader.filled(taken)
        return taken == len(room)

    def clogged(self) -> bool:
        """Return whether bytes wait, here or in the kernel, that were never sent, or the connection is closed."""
        if self._unsent or self._waiting or not self._open:
            return True
        unsent = fcntl.ioctl(self._socket, SIOCOUTQNSD, bytes(4))
        return bool(struct.unpack("i", unsent)[0])

    def ready(self) -> bool:
        """Return whether the kernel has accepted every frame completely, so that data can be sent."""
        return self._open and not self._unsent and not self._waiting

    def send(self, buffers: list[memoryview], segment: int = 0, *, dont_fragment: bool = True, tos: int = 0) -> Outcome:
        """Send one frame, or one for each `segment` bytes. Call it when `ready`, or directly after another call.

        Bytes that the kernel does not accept now are kept, and sent before any other frame.
        """
        if not self._open:
            return Outcome.UNDELIVERABLE
        frames: list[Buffer] = [prefix(sum(map(len, buffers))), *buffers]
        if segment:
            frames = _framed(buffers[0], segment)
        if self._unsent:
            self._unsent = memoryview(b"".join((self._unsent, *frames)))
            return Outcome.HELD
        size = sum(map(len, frames))
        try:
            sent = self._socket.sendmsg(frames)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return Outcome.UNDELIVERABLE
        if sent == size:
            return Outcome.SENT
        self._hold(b"".join(frames)[sent:])
        return Outcome.HELD

    def send_frame(self, frame: memoryview, *, dont_fragment: bool = True, tos: int = 0) -> Outcome:
        """Send one message, which begins at frame[2], behind its length. Else as `send`."""
        if self._unsent or not self._open:
            return self.send([frame[PREFIX_SIZE:]])
        write_prefix(frame, 0, len(frame) - PREFIX_SIZE)
        try:
            sent = self._socket.send(frame)
        except OSError:  # `send` meets it again, and holds the message or closes the connection
            return self.send([frame[PREFIX_SIZE:]])
        if sent == len(frame):
            return Outcome.SENT
        self._hold(frame[sent:])
        return Outcome.HELD

    def send_first(self, message: Buffer) -> Outcome:
        """Send a message now, or directly after the frame that is under way."""
        if self.ready() or not self._open:
            return self.send([memoryview(message)])
        self._waiting.append(bytes(message))
        return Outcome.HELD

    def flush(self) -> None:
        """Send what waits, now that the socket is writable: the unfinished frame, then urgent messages, then data."""
        try:
            if self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :] or _NOTHING
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        while self._waiting and not self._unsent:
            self.send([memoryview(self._waiting.popleft())])
        if self.ready():
            self._loop.await_writable(self.fileno(), False)
            self._owner.ready(self)

    def _hold(self, rest: Buffer) -> None:
        """Keep the bytes that the kernel has not accepted, and send them when it does."""
        self._unsent = memoryview(bytes(rest))
        self._loop.await_writable(self.fileno(), True)

    def hang_up_later(self) -> None:
        """Close the connection in two seconds; until then it still receives."""
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_later(SECONDS_TO_HANG_UP, self.close)

    def close(self) -> None:
        """Close the connection, once."""
        if self._open:
            self._open = False
            self._loop.forget(self.fileno())
            self._socket.close()
            self._reader.close()
            self._unsent = _NOTHING
            self._owner.closed(self)


def _framed(messages: memoryview, size: int) -> list[Buffer]:
    """Return each message of `size` bytes behind its length prefix; the last message may be shorter."""
    frames: list[Buffer] = []
    for at in range(0, len(messages), size):
        message = messages[at : at + size]
        frames += (prefix(len(message)), message)
    return frames
