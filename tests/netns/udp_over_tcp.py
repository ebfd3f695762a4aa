"""Relay in Mullvad's framing: `PORT HOST PORT`, from UDP on 127.0.0.1 to a TCP server. SIGUSR1 connects it again.

Each datagram travels behind its length in 2 bytes, big-endian. It prints "connected" for each connection, and "closed"
when the server has closed one. The last sender of a datagram gets what the server sends.
"""

from __future__ import annotations

import select
import signal
import socket
import sys


class Relay:
    def __init__(self, port: int, server: tuple[str, int]) -> None:
        self._server = server
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", port))
        self._user: tuple[str, int] | None = None
        self._woken, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        signal.signal(signal.SIGUSR1, lambda *_: None)
        self._wake = wake
        self._connection, self._stream = socket.socket(), b""
        self._connect()

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self._udp, self._connection, self._woken], [], [])
            if self._woken in ready:
                self._woken.recv(16)
                self._connect()
            elif self._connection in ready:
                self._to_user()
            else:
                datagram, self._user = self._udp.recvfrom(65535)
                self._connection.sendall(len(datagram).to_bytes(2, "big") + datagram)

    def _to_user(self) -> None:
        received = self._connection.recv(65535)
        if not received:
            print("closed", flush=True)
            self._connect()
        self._stream += received
        while len(self._stream) >= 2 and len(self._stream) >= (end := 2 + int.from_bytes(self._stream[:2], "big")):
            if self._user is not None:
                self._udp.sendto(self._stream[2:end], self._user)
            self._stream = self._stream[end:]

    def _connect(self) -> None:
        self._connection.close()
        self._connection, self._stream = socket.create_connection(self._server), b""
        print("connected", flush=True)


if __name__ == "__main__":
    Relay(int(sys.argv[1]), (sys.argv[2], int(sys.argv[3]))).run()
