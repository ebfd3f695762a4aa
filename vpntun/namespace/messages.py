"""Messages between the processes of a run: JSON objects over a pair of unix sockets, some with descriptors.

The sockets keep messages apart (SOCK_SEQPACKET). When a process has ended, however it did, the other one finds the end
of its socket. Each end trusts the other: both are this program, forked from one process.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

LARGEST = 1 << 16
"""Bytes of the largest message; whoever has more to say says it in pieces."""
MOST_DESCRIPTORS = 8

Message = dict[str, Any]


class Channel:
    """One end of the pair. `close` it in every process that has a copy and does not use it."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Return two ends that lead to each other. Raises OSError."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        """Return the descriptor, for a loop or poll(2)."""
        return self._socket.fileno()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message, and copies of these descriptors. Raises OSError, also if the other end has gone."""
        socket.send_fds(self._socket, [json.dumps(message).encode()], descriptors)

    def receive(self) -> tuple[Message, list[int]] | None:
        """Wait for a message with its descriptors, and return them; None at the end. Raises OSError."""
        try:
            text, descriptors, _, _ = socket.recv_fds(self._socket, LARGEST, MOST_DESCRIPTORS)
        except ConnectionResetError:  # told once: the other end has closed before it has read everything
            text, descriptors, _, _ = socket.recv_fds(self._socket, LARGEST, MOST_DESCRIPTORS)
        for each in descriptors:
            os.set_inheritable(each, False)
        if not text:
            return None
        message: Message = json.loads(text)
        return message, descriptors

    def never_wait(self) -> None:
        """Have `send` and `receive` raise BlockingIOError where they would wait for the other end."""
        self._socket.setblocking(False)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
