"""Calls to another machine, by UDP or by TCP: an initiation is sent, and an authenticated response is awaited.

answered       the response came: the keys fit, and packets pass both ways
refused        the machine, or a firewall, says that nobody listens there (ICMP, RST)
unreachable    this machine or a router says that there is no way
forbidden      this machine's own packet filter lets nothing out
silent         nothing came
open           a TCP connection was made, but no response came by it
foreign        something came that no WireGuard sends
loaded         only cookies came: the other end is under load
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from vpntun.crypto.session import Session
from vpntun.doctor.reach.handshake import Handshake
from vpntun.runtime.clock import boottime
from vpntun.types import CarrierName, SocketAddress
from vpntun.wire.message import LARGEST
from vpntun.wire.stream_framing import LARGEST_BEFORE_AUTHENTICATION, PREFIX_SIZE, prefix

Outcome = Literal["answered", "refused", "unreachable", "forbidden", "silent", "open", "foreign", "loaded"]

TRIES = 3
SECONDS_OF_A_TRY = 1.3
SECONDS_TO_CONNECT = 3.0
SECONDS_OF_A_READ = 0.2


@dataclass(frozen=True)
class Called:
    """The outcome of a call. `seconds`: the time to the answer. `why`: the system's error as text."""

    carrier: CarrierName
    outcome: Outcome
    seconds: float = 0.0
    why: str = ""
    session: Session | None = None


def call_by_udp(link: socket.socket, address: SocketAddress, handshake: Handshake) -> Called:
    """Call an address by a UDP socket, which is connected to it and may be used further."""
    try:
        link.connect(address)
        for _ in range(TRIES):
            began = boottime()
            link.send(handshake.initiation(began))
            session = _awaited(lambda: link.recv(LARGEST), link, handshake, began + SECONDS_OF_A_TRY)
            if session is not None:
                return Called("udp", "answered", boottime() - began, session=session)
    except OSError as error:
        return _failed("udp", error)
    return Called("udp", _silence(handshake, "silent"))


def call_by_tcp(family: socket.AddressFamily, address: SocketAddress, handshake: Handshake) -> Called:
    """Call an address by a TCP connection of its own."""
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.settimeout(SECONDS_TO_CONNECT)
        try:
            link.connect(address)
        except OSError as error:
            return _failed("tcp", error)
        with suppress(OSError):  # it was open, whatever becomes of it
            for _ in range(TRIES - 1):  # another try only carries a cookie
                began = boottime()
                initiation = handshake.initiation(began)
                link.sendall(prefix(len(initiation)) + initiation)
                read = _FrameReader(link)
                session = _awaited(read.frame, link, handshake, began + TRIES * SECONDS_OF_A_TRY)
                if session is not None:
                    return Called("tcp", "answered", boottime() - began, session=session)
                if read.has_ended or not handshake.is_loaded:
                    break
    return Called("tcp", _silence(handshake, "open"))


class _FrameReader:
    """Reads the frames of a connection. `has_ended`: the other end has closed it, or what came are no frames."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._data = b""
        self.has_ended = False

    def frame(self) -> bytes:
        """Return the next frame, b"" at the end. Raises TimeoutError while it is not complete."""
        while True:
            if len(self._data) >= PREFIX_SIZE:
                (length,) = struct.unpack_from(">H", self._data)
                if length > LARGEST_BEFORE_AUTHENTICATION:
                    self.has_ended = True
                    return self._data
                if len(self._data) >= PREFIX_SIZE + length:
                    frame = self._data[PREFIX_SIZE : PREFIX_SIZE + length]
                    self._data = self._data[PREFIX_SIZE + length :]
                    return frame
            received = self._link.recv(LARGEST)
            if not received:
                self.has_ended = True
                raise ConnectionResetError(errno.ECONNRESET, "closed")
            self._data += received


def _awaited(receive: Callable[[], bytes], link: socket.socket, handshake: Handshake, until: float) -> Session | None:
    """Take messages until the response has come, a cookie has, or time is over. Raises OSError."""
    was_loaded = handshake.is_loaded
    while (left := until - boottime()) > 0:
        link.settimeout(left)
        try:
            session = handshake.take(receive(), boottime())
        except TimeoutError:
            return None
        if session is not None:
            return session
        if handshake.is_loaded and not was_loaded:  # the next initiation carries the cookie
            return None
    return None


def _silence(handshake: Handshake, otherwise: Outcome) -> Outcome:
    if handshake.is_loaded:
        return "loaded"
    return "foreign" if handshake.is_foreign else otherwise


def _failed(carrier: CarrierName, error: OSError) -> Called:
    why = error.strerror or "timed out"
    if isinstance(error, ConnectionRefusedError):
        return Called(carrier, "refused", why=why)
    if isinstance(error, PermissionError):
        return Called(carrier, "forbidden", why=why)
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return Called(carrier, "silent", why=why)
    return Called(carrier, "unreachable", why=why)
