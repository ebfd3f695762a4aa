"""Repeat, for some seconds, an attack that once ended or silenced vpntun. Its argument is one JSON object:

    what            the attack: a key of `AS_STRANGER` or `AS_PEER`
    at, port        the target; for a server, the address where it waits for the client that it attacks
    private, public a peer's own private key, and the public key of its target, in hexadecimal digits
    own             the address from which a peer shakes hands
    role            "caller" or "server", for a peer
    carrier         "udp" or "tcp", for a peer that calls
    index           the receiver index in the messages of a stranger
    seconds         the duration

It prints "at it" when it begins, and exits with status 0.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

from tests.netns.hostile import PORT, call, sealed, serve, udp_from
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.session import Session
from vpntun.wire.burst import MOST_DATAGRAMS, BurstCutter
from vpntun.wire.message import DATA, DATA_HEADER, LARGEST
from vpntun.wire.record import BUNDLE, TAKES_ALL, Hello, Probe

UDP_SEGMENT = 103
FULL_DATAGRAM = 1472

Send = Callable[[bytes], object]


def bursts_without_key(send: Send, index: int) -> Iterator[None]:
    """Send datagrams of 17 bytes that look like pieces, and one that does not: this shrank later reads to 17 bytes."""
    while True:
        for _ in range(64):
            send(b"\x04\x00\x09" + bytes(14))
        send(b"\x09")
        yield


def oversized_bursts(send: Send, index: int) -> Iterator[None]:
    """Send 64 full datagrams for an index seen on the wire: they were joined into a message of 93,200 bytes."""
    counter = 1 << 40
    while True:
        counter += 1
        for piece in range(MOST_DATAGRAMS):
            header = DATA_HEADER.pack(DATA | piece << 8 | (MOST_DATAGRAMS - 1) << 16, index, counter)
            send(header + bytes(FULL_DATAGRAM - len(header)))
        yield


def short_bursts(send: Send, session: Session, udp: socket.socket) -> Iterator[None]:
    """Send valid bursts whose datagrams alternate between short sizes: each made the reader lay out 65,000 slots."""
    message = memoryview(bytearray(LARGEST))
    cutter = BurstCutter(message)
    send(sealed(session, Hello(seen_yours=True, takes=TAKES_ALL).pack()))
    while True:
        for size in (17, 18, 100):
            length = session.seal_into(Probe(1, 200 if size == 100 else 9).pack(), message)
            burst = b"".join(cutter.cut(length, size))
            udp.sendmsg([burst], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", size))])
        yield


def bundles_of_tiny_packets(send: Send, session: Session, udp: socket.socket) -> Iterator[None]:
    """Send records of 13,000 packets of one byte: each blocked the loop for 40 ms."""
    record = bytes((BUNDLE,)) + b"\0\1\0\0x" * 13_000
    while True:
        send(sealed(session, record))
        yield


AS_STRANGER = {"bursts without a key": bursts_without_key, "oversized bursts": oversized_bursts}
AS_PEER = {"short bursts": short_bursts, "bundles of tiny packets": bundles_of_tiny_packets}


def meet(wanted: dict[str, str]) -> tuple[Session, socket.socket]:
    """Establish a session with the target; return it and a socket connected to the target."""
    keys, public = KeyPair.of(bytes.fromhex(wanted["private"])), bytes.fromhex(wanted["public"])
    if wanted["role"] == "caller":
        session, udp = call(wanted["own"], keys, public, wanted["at"])
        udp.connect((wanted["at"], wanted["port"]))
    else:
        udp = udp_from(wanted["at"], PORT)
        session, there = serve(udp, keys)
        udp.connect(there)
    time.sleep(0.2)
    return session, udp


def framed_to(stream: socket.socket) -> Send:
    return lambda message: stream.sendall(len(message).to_bytes(2, "big") + message)


def main() -> None:
    wanted = json.loads(sys.argv[1])
    what, there = wanted["what"], (wanted["at"], wanted["port"])
    if what in AS_PEER:
        session, udp = meet(wanted)
        send: Send = udp.send
        if wanted["carrier"] == "tcp":
            stream = socket.create_connection(there)
            send = framed_to(stream)
            send(sealed(session, Probe(1).pack()))
            stream.recv(2)
        rounds = AS_PEER[what](send, session, udp)
    else:
        udp = socket.socket(socket.AF_INET6 if ":" in there[0] else socket.AF_INET, socket.SOCK_DGRAM)
        udp.connect(there)
        rounds = AS_STRANGER[what](udp.send, wanted.get("index", 0))
    print("at it", flush=True)
    end = time.monotonic() + wanted["seconds"]
    while time.monotonic() < end:
        next(rounds)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
