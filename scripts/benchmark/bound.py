"""Bound: how fast a tunnel in Python could be on this machine if it checked nothing. Never use it as a tunnel.

    python -m scripts.benchmark.bound DEVICE PORT            waits for a connection
    python -m scripts.benchmark.bound DEVICE PORT ADDRESS    opens one

Run it in the checkout, whose vpntun opens the device.

It has one TUN device with offloads, one TCP connection, one loop. It seals each superpacket with a key of zeros and
sends it behind its length; the other end opens it and writes it to its device. It has no handshake, allowed IPs, replay
window, timers or counters. So what it needs is what every such tunnel in Python needs: the system calls, the AEAD, and
the few lines that call them. It runs as a subject of the benchmark (subjects.py), with the interpreter that runs
vpntun. Needs cryptography 47 or later, as the extra `fast`.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from contextlib import suppress

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from vpntun.tun.device import KernelDevice

LARGEST = 70_000
TAG_SIZE = 16
_length = struct.Struct(">I")
_nonce = struct.Struct("<4xQ").pack


class Tunnel:
    """Both directions between a device and a connection. Neither descriptor blocks."""

    def __init__(self, device: int, connection: socket.socket) -> None:
        self._device, self._connection = device, connection
        self._key = ChaCha20Poly1305(bytes(32))
        self._packet, self._sealed, self._opened = (memoryview(bytearray(LARGEST)) for _ in range(3))
        self._stream = memoryview(bytearray(1 << 18))
        self._held = self._sent = self._received = 0

    def run(self) -> None:
        """Carry packets until the other end has closed the connection."""
        device, poll = self._device, select.epoll()
        poll.register(device, select.EPOLLIN)
        poll.register(self._connection.fileno(), select.EPOLLIN)
        while True:
            for ready, _ in poll.poll():
                if ready == device:
                    self._read_device()
                else:
                    self._read_connection()

    def _read_device(self) -> None:
        device, connection, encrypt = self._device, self._connection, self._key.encrypt_into
        packet, sealed = self._packet, self._sealed
        while True:
            try:
                size = os.readv(device, (packet,))
            except BlockingIOError:
                return
            end = _length.size + size + TAG_SIZE
            encrypt(_nonce(self._sent), packet[:size], b"", sealed[_length.size : end])
            self._sent += 1
            _length.pack_into(sealed, 0, size + TAG_SIZE)
            rest = sealed[:end]
            while rest:
                try:
                    rest = rest[connection.send(rest) :]
                except BlockingIOError:
                    self._read_connection()  # else both ends could wait for each other
                    select.select([connection], [connection], [])

    def _read_connection(self) -> None:
        stream, opened, decrypt = self._stream, self._opened, self._key.decrypt_into
        try:
            count = self._connection.recv_into(stream[self._held :])
        except BlockingIOError:
            return
        if not count:
            sys.exit(0)
        held = self._held + count
        at = 0
        while held - at >= _length.size:
            begin = at + _length.size
            end = begin + _length.unpack_from(stream, at)[0]
            if end > held:
                break
            size = decrypt(_nonce(self._received), stream[begin:end], b"", opened[: end - begin - TAG_SIZE])
            self._received += 1
            with suppress(OSError):  # the device is not up yet
                os.write(self._device, opened[:size])
            at = end
        if at:
            stream[: held - at] = stream[at:held]
        self._held = held - at


def connected(port: int, address: str) -> socket.socket:
    """Return a connection to this address, or the first that is accepted if the address is empty."""
    if address:
        return socket.create_connection((address, port), timeout=10)
    with socket.create_server(("", port)) as listener:
        return listener.accept()[0]


def main() -> None:
    name, port, *address = sys.argv[1:]
    connection = connected(int(port), "".join(address))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setblocking(False)
    device = KernelDevice(name)
    Tunnel(device.fileno(), connection).run()


if __name__ == "__main__":
    main()
