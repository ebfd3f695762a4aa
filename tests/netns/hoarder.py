"""A hostile peer: `PRIVATE-KEY HUB-KEY HOST PORT COUNT`. It authenticates so many TCP connections, and keeps them all.

It shakes hands over UDP, sends a PROBE on each connection and waits for the ECHO, which moves the endpoint nowhere.
Then it says `holding`, followed by how many the hub has left open.
"""

from __future__ import annotations

import socket
import sys
import time

from vpntun.crypto.keys import KeyPair, parse_key
from vpntun.crypto.noise import Initiator
from vpntun.crypto.session import Session
from vpntun.crypto.timestamp import tai64n
from vpntun.wire.message import Response
from vpntun.wire.record import PROBE

INDEX = 7


class Hoarder:
    """A peer's session with the hub, and its connections."""

    def __init__(self, private: bytes, hub: bytes, address: tuple[str, int]) -> None:
        self._address = address
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.connect(address)
        initiator = Initiator(KeyPair.of(private), hub, bytes(32))
        self._udp.send(initiator.initiation(INDEX, tai64n(time.time() + 1)))
        response = self._udp.recv(65535)
        keys = initiator.consume_response(response)
        self._session = Session(keys, INDEX, Response.parse(response).sender, True, time.monotonic())
        self._udp.send(self._sealed(b""))
        self._connections: list[socket.socket] = []

    def open_another(self) -> None:
        """Have one more connection, authenticated."""
        connection = socket.create_connection(self._address)
        message = self._sealed(bytes([PROBE]) + bytes(8))
        connection.sendall(len(message).to_bytes(2, "big") + message)
        assert connection.recv(2)
        self._connections.append(connection)

    def count_open(self) -> int:
        """How many connections the hub has not closed."""
        return sum(map(_is_open, self._connections))

    def _sealed(self, plaintext: bytes) -> bytes:
        message = bytearray(len(plaintext) + 32)
        self._session.seal_into(plaintext, memoryview(message))
        return bytes(message)


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False


def main() -> None:
    private, hub, host, port, count = sys.argv[1:]
    hoarder = Hoarder(parse_key(private), parse_key(hub), (host, int(port)))
    for _ in range(int(count)):
        hoarder.open_another()
    time.sleep(0.5)
    print("holding", hoarder.count_open(), flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main()
