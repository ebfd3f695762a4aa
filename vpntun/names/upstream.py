"""One question to one name server: by UDP, and by TCP if the answer says that it is too long for a datagram.

Each question has a socket of its own, connected to the server, and so a port that the kernel chooses at random, and a
random number. An answer counts only if it comes from there with this number and the same question: whoever wants to
forge one has to guess both. Others are ignored, and the right one is still awaited.
"""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

import dns.flags
import dns.message

from vpntun.carriers.sockets import address_at, family_of, marked
from vpntun.errors import VpntunError
from vpntun.names.answering import LARGEST_DATAGRAM, LARGEST_MESSAGE, Question
from vpntun.names.others import OthersAnswer
from vpntun.runtime.loop import Loop
from vpntun.types import Place, SocketAddress

SECONDS_TO_ANSWER = 1.5
SECONDS_FOR_TCP = 3.0
MOST_DATAGRAMS_PER_TURN = 8

OnDone = Callable[[OthersAnswer | None], None]
_LENGTH = struct.Struct("!H")


class Upstream:
    """One question. `done` is called once, in a later turn of the loop: with the answer, or None if there is none."""

    def __init__(self, loop: Loop, server: Place, question: Question, mark: int, done: OnDone) -> None:
        """`mark`: the mark of the packets, 0 for none."""
        self._loop = loop
        self._mark = mark
        self._done = done
        query = _query(question)
        self._number = query.id
        self._section = question.section
        self._data = query.to_wire()
        self._received = bytearray()
        self._unsent = b""
        self._socket: socket.socket | None = None
        self._is_over = False
        self._address = address_at(*server)
        self._open(socket.SOCK_DGRAM, SECONDS_TO_ANSWER)

    def close(self) -> None:
        """End the question without an answer; `done` is not called any more."""
        self._is_over = True
        self._close_socket()

    def _open(self, kind: int, seconds: float) -> None:
        try:
            new = self._socket = _connected(self._address, kind, self._mark)
        except (OSError, VpntunError):
            self._loop.call_later(0.0, lambda: self._finish(None))
            return
        if kind == socket.SOCK_DGRAM:
            self._loop.watch(new.fileno(), self._read_datagrams, on_failure=self._fail)
            with suppress(OSError):  # as if it were lost on the way, or its error comes to the reader
                new.send(self._data)
        else:
            self._unsent = _LENGTH.pack(len(self._data)) + self._data
            self._loop.watch(new.fileno(), self._read_stream, self._write_stream, on_failure=self._fail)
            self._loop.await_writable(new.fileno(), True, alone=True)
        self._loop.call_later(seconds, lambda: self._fail(new))

    def _read_datagrams(self) -> None:
        assert self._socket is not None
        for _ in range(MOST_DATAGRAMS_PER_TURN):
            try:
                data = self._socket.recv(LARGEST_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                self._fail()
                return
            answer = self._parsed(data)
            if answer is None:
                continue
            if answer.is_cut:
                self._close_socket()
                self._open(socket.SOCK_STREAM, SECONDS_FOR_TCP)
            else:
                self._finish(answer)
            return

    def _write_stream(self) -> None:
        assert self._socket is not None
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._fail()
            return
        if not self._unsent:
            self._loop.await_writable(self._socket.fileno(), False)

    def _read_stream(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(LARGEST_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        size = _LENGTH.unpack_from(self._received)[0] if len(self._received) >= _LENGTH.size else LARGEST_MESSAGE
        if len(self._received) >= _LENGTH.size + size:
            self._finish(self._parsed(bytes(self._received[_LENGTH.size : _LENGTH.size + size])))
        elif not data:
            self._fail()

    def _parsed(self, data: bytes) -> OthersAnswer | None:
        """Return the answer in these bytes; None if they are not the answer to this question."""
        return OthersAnswer.parse(data, self._number, self._section)

    def _fail(self, opened: socket.socket | None = None) -> None:
        """End without an answer; after a time limit only if it is that of the present socket."""
        if opened is None or opened is self._socket:
            self._finish(None)

    def _finish(self, answer: OthersAnswer | None) -> None:
        if not self._is_over:
            self.close()
            self._done(answer)

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None


def _query(question: Question) -> dns.message.Message:
    asked = question.message
    wants_dnssec = bool(asked.ednsflags & dns.flags.DO)
    query = dns.message.make_query(
        question.name,
        question.type,
        use_edns=0 if question.has_edns else -1,
        payload=LARGEST_DATAGRAM,
        want_dnssec=wants_dnssec,
    )
    query.id = secrets.randbelow(0x10000)
    query.flags = dns.flags.RD | asked.flags & (dns.flags.CD | dns.flags.AD)
    return query


def _connected(address: SocketAddress | None, kind: int, mark: int) -> socket.socket:
    """Return a socket that is connected, or about to be. Raises OSError or PrivilegeError."""
    if address is None:
        raise OSError("the server's device is gone")
    new = marked(socket.socket(family_of(address), kind | socket.SOCK_NONBLOCK), mark)
    try:
        new.connect(address)
    except BlockingIOError:
        pass
    except OSError:
        new.close()
        raise
    return new
