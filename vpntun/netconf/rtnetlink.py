"""Rtnetlink (rtnetlink(7)): questions to the kernel, and its lists of links, addresses, routes and rules.

pyroute2 makes the changes, but does not read lists: it takes 150 us a message, during which no packet passes, and some
of its versions fail if the list changes meanwhile. This code takes 5 us. The body of a message (netlink_messages.py) is
ifinfomsg, ifaddrmsg, rtmsg or fib_rule_hdr.

One socket stays open as long as it is needed, so that a process without descriptors can still ask.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress

from vpntun.runtime.netlink_messages import (
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    attributes_in,
    error_in,
    message,
    messages_in,
    netlink_socket,
)

NLM_F_DUMP_INTR, NLM_F_DUMP = 0x10, 0x300
SOL_NETLINK, NETLINK_GET_STRICT_CHK = 270, 12
SIOCGIFINDEX = 0x8933
LARGEST_ANSWER = 32768

_IFREQ = struct.Struct("=16si20x")

Message = tuple[bytes, dict[int, bytes]]
"""A message's body, as long as the question's, and the values of its attributes by type."""


class Interrupted(OSError):
    """The list has changed while it was read, so it may lack something."""


class Questions:
    """A netlink socket for questions. Raises OSError if there is no room for it."""

    def __init__(self) -> None:
        self._sequence = itertools.count(1)
        self._list_is_open = False
        self._socket = netlink_socket(socket.NETLINK_ROUTE)
        with suppress(OSError):  # before Linux 4.20 a list has more than the question asks for
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)

    def index_of(self, device: str) -> int:
        """Return the number of a device, which changes when it is created again. Raises OSError if there is none."""
        return int(_IFREQ.unpack(fcntl.ioctl(self._socket, SIOCGIFINDEX, _IFREQ.pack(os.fsencode(device), 0)))[1])

    def ask(self, kind: int, body: bytes, attributes: Iterable[tuple[int, bytes]] = ()) -> Message:
        """Return the answer to a question that has one. Raises OSError."""
        sequence = self._send(kind, 0, body, attributes)
        while True:
            data = self._socket.recv(LARGEST_ANSWER)
            for answered, answer, _, begin, end in messages_in(data):
                if answered == sequence:
                    if answer == NLMSG_ERROR:
                        raise _refusal(data, begin)
                    return _message(data, begin, end, len(body))

    def dump(self, kind: int, body: bytes, attributes: Iterable[tuple[int, bytes]] = ()) -> Iterator[Message]:
        """Yield the messages of a list. Raises OSError.

        Raises Interrupted after the last message, if the list has changed meanwhile. The caller may pause between two
        messages, and may also stop; then the next question discards the rest.
        """
        sequence = self._send(kind, NLM_F_DUMP, body, attributes)
        self._list_is_open = True
        interrupted = False
        while True:
            data = self._socket.recv(LARGEST_ANSWER)
            for answered, answer, flags, begin, end in messages_in(data):
                if answered != sequence:
                    continue
                interrupted |= bool(flags & NLM_F_DUMP_INTR)
                if answer in (NLMSG_ERROR, NLMSG_DONE):
                    self._list_is_open = False
                if answer == NLMSG_ERROR:
                    raise _refusal(data, begin)
                if answer == NLMSG_DONE:
                    if interrupted:
                        raise Interrupted(errno.EINTR, "the list has changed while it was read")
                    return
                yield _message(data, begin, end, len(body))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, kind: int, flags: int, body: bytes, attributes: Iterable[tuple[int, bytes]]) -> int:
        if self._list_is_open:
            self._discard()
        sequence = next(self._sequence)
        content = body + b"".join(attribute(each, value) for each, value in attributes)
        self._socket.send(message(kind, flags, sequence, content))
        return sequence

    def _discard(self) -> None:
        """Read the rest of a list that its reader has given up: the kernel refuses to begin two at a time."""
        while True:
            try:
                self._socket.recv(LARGEST_ANSWER)
            except BlockingIOError:
                self._list_is_open = False
                return


def _message(data: bytes, begin: int, end: int, body: int) -> Message:
    return data[begin : begin + body], attributes_in(data, begin + body, end)


def _refusal(data: bytes, begin: int) -> OSError:
    number = error_in(data, begin)
    return OSError(number, os.strerror(number))
