"""Sends what once ended or silenced vpntun, for some seconds. Its argument is one JSON object:

    what            one of `ATTACKS`
    at, port        where to
    private, public the own key of one that is a peer, and the key of the end that it attacks, in hexadecimal digits
    own             the host that a peer asks from
    seconds         for how long

It prints "at it" when it begins, and ends with status 0.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

from tests.netns.hostile import call, sealed
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.session import Session
from vpntun.wire.burst import MOST_DATAGRAMS, BurstCutter
from vpntun.wire.message import DATA, DATA_HEADER, LARGEST
from vpntun.wire.record import BUNDLE, TAKES_ALL, Hello, Probe

UDP_SEGMENT = 103
FULL_DATAGRAM = 1472

Send = Callable[[bytes], object]


def bursts_without_key(send: Send, index: int) -> Iterator[None]:
    """Datagrams of 17 bytes that look like pieces, and one that does not: the next reads had room for 17 bytes."""
    while True:
        for _ in range(64):
            send(b"\x04\x00\x09" + bytes(14))
        send(b"\x09")
        yield


def pieces_of_too_much(send: Send, index: int) -> Iterator[None]:
    """64 full datagrams for an index that was in clear on the wire: they were joined to 93,200 bytes."""
    counter = 1 << 40
    while True:
        counter += 1
        for piece in range(MOST_DATAGRAMS):
            header = DATA_HEADER.pack(DATA | piece << 8 | (MOST_DATAGRAMS - 1) << 16, index, counter)
            send(header + bytes(FULL_DATAGRAM - len(header)))
        yield


def short_bursts(udp: socket.socket, session: Session) -> Iterator[None]:
    """Genuine bursts in datagrams of two short sizes by turns: each had the reader lay out 65,000 slots."""
    message = memoryview(bytearray(LARGEST))
    cutter = BurstCutter(message)
    udp.send(sealed(session, Hello(seen_yours=True, takes=TAKES_ALL).pack()))
    while True:
        for size in (17, 18, 100):
            length = session.seal_into(Probe(1, 200 if size == 100 else 9).pack(), message)
            burst = b"".join(cutter.cut(length, size))
            udp.sendmsg([burst], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", size))])
        yield


def bundles_of_nothing(udp: socket.socket, session: Session) -> Iterator[None]:
    """Records of 13,000 packets of one byte: each held the loop for 40 ms."""
    record = bytes((BUNDLE,)) + b"\0\1\0\0x" * 13_000
    while True:
        udp.send(sealed(session, record))
        yield


AS_STRANGER = {"bursts without a key": bursts_without_key, "pieces of too much": pieces_of_too_much}
AS_PEER = {"short bursts": short_bursts, "bundles of nothing": bundles_of_nothing}
ATTACKS = (*AS_STRANGER, *AS_PEER)


def main() -> None:
    wanted = json.loads(sys.argv[1])
    what, there = wanted["what"], (wanted["at"], wanted["port"])
    if what in AS_PEER:
        keys, public = KeyPair.of(bytes.fromhex(wanted["private"])), bytes.fromhex(wanted["public"])
        session, udp = call(wanted["own"], keys, public, wanted["at"])
        udp.connect(there)
        time.sleep(0.2)
        rounds = AS_PEER[what](udp, session)
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
