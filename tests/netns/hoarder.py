"""A hostile peer that opens COUNT authenticated TCP connections and keeps them: `PRIVATE-KEY HUB-KEY HOST PORT COUNT`.

It shakes hands over UDP, sends a PROBE on each connection and waits for the ECHO; a PROBE does not move the endpoint.
Then it prints "holding" and the number of connections that the hub has left open.
"""

from __future__ import annotations

import socket
import sys
import time

from tests.netns.hostile import call, sealed
from vpntun.crypto.keys import KeyPair, parse_key
from vpntun.wire.record import Probe


class Hoarder:
    """A peer's session with the hub, and its connections."""

    def __init__(self, private: bytes, hub: bytes, address: tuple[str, int]) -> None:
        self._address = address
        self._session, self._udp = call("0.0.0.0", KeyPair.of(private), hub, address[0])
        self._connections: list[socket.socket] = []

    def open_another(self) -> None:
        """Open and authenticate one more connection."""
        connection = socket.create_connection(self._address)
        message = sealed(self._session, Probe(1).pack())
        connection.sendall(len(message).to_bytes(2, "big") + message)
        assert connection.recv(2)
        self._connections.append(connection)

    def count_open(self) -> int:
        """Count the connections that the hub has not closed."""
        return sum(map(_is_open, self._connections))


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
