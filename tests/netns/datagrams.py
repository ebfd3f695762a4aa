"""UDP superpackets through the tunnel, by two programs.

    python -m tests.netns.datagrams receive PORT COUNT
    python -m tests.netns.datagrams send HOST PORT COUNT PAUSE

The sender passes 20 numbered datagrams of 1,200 bytes to its socket in each call (UDP_SEGMENT), and waits for PAUSE
seconds after each. The receiver exits with

    0   all COUNT datagrams arrived intact and in order
    1   a datagram was damaged, or arrived after a later one
    3   datagrams were lost, which happens on a busy machine
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.netns.lab import Lab, Machine

PROGRAM = (sys.executable, "-m", "tests.netns.datagrams")
UDP_SEGMENT = 103
SIZE, TOGETHER = 1200, 20
LOST = 3
PAUSES = ("0.002", "0.01", "0.05")
"""What to try in turn until nothing is lost, the last for a very busy machine."""


def datagrams(lab: Lab, to: str, source: Machine | None = None, count: int = 2000) -> None:
    """Send numbered datagrams, 20 in a call, and assert that they arrive intact and in order. On loss, send slower."""
    source = source or lab.a
    sink = lab.b if source is not lab.b else lab.a
    for pause in PAUSES:
        receiver = sink.popen(*PROGRAM, "receive", "5001", str(count))
        receiver.wait_for("ready")
        source.run(*PROGRAM, "send", to, "5001", str(count), pause)
        status = receiver.wait(25)
        if status != LOST:
            break
    assert status == 0, f"{receiver}\n{lab.logs()}"


def datagram(number: int) -> bytes:
    return struct.pack("!I", number) * (SIZE // 4)


def receive(port: int, count: int) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sink:
        sink.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sink.setsockopt(socket.SOL_SOCKET, 33, 1 << 23)  # SO_RCVBUFFORCE
        sink.bind(("::", port))
        sink.settimeout(20)
        print("ready", flush=True)
        for number in range(count):
            try:
                got = sink.recv(65535)
            except TimeoutError:
                sys.exit(LOST)
            found = int.from_bytes(got[:4], "big")
            if got != datagram(found) or found < number:
                sys.exit(f"datagram {number}: {len(got)} bytes that begin with {got[:8]!r}")
            if found > number:
                sys.exit(LOST)


def send(host: str, port: int, count: int, pause: float) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as source:
        source.setsockopt(socket.SOL_UDP if hasattr(socket, "SOL_UDP") else 17, UDP_SEGMENT, SIZE)
        for first in range(0, count, TOGETHER):
            source.sendto(b"".join(map(datagram, range(first, min(first + TOGETHER, count)))), (host, port))
            time.sleep(pause)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(int(sys.argv[2]), int(sys.argv[3]))
    else:
        send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
