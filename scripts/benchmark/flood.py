"""Flood of 64-byte datagrams, as fast as one process can send them, and a count of those that arrive. Run by path.

    flood.py receive PORT SECONDS       count for this time after the first datagram; print the count and the seconds
    flood.py send HOST PORT SECONDS     send for this time
    flood.py offer HOST PORT RATE       send datagrams of 1,400 bytes instead, RATE a second, until killed

Each datagram is a separate packet (no UDP_SEGMENT), but one system call, sendmmsg(2) or recvmmsg(2), handles many of
the small ones, so that Python is not the bottleneck.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
import time

PAYLOAD = 64
AT_ONCE = 64
OFFERED, OFFERED_EVERY = 1400, 0.01  # bytes; seconds
PATIENCE = 5.0  # seconds to wait for the first datagram
SO_RCVBUFFORCE, MSG_WAITFORONE = 33, 0x10000


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("iovecs", ctypes.POINTER(_Iovec)),
        ("iovec_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


_libc = ctypes.CDLL(None, use_errno=True)
_buffer = ctypes.create_string_buffer(2048)
_iovec = _Iovec(ctypes.addressof(_buffer), PAYLOAD)
_header = _Header(iovecs=ctypes.pointer(_iovec), iovec_count=1)
_messages = (_Message * AT_ONCE)(*[_Message(header=_header) for _ in range(AT_ONCE)])


def send(host: str, port: int, seconds: float) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect((host, port))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # After an error (no buffer space, or refused because the receiver has ended) the rest of the group is lost.
            _libc.sendmmsg(out.fileno(), _messages, AT_ONCE, 0)


def offer(host: str, port: int, rate: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        sent, started = 0, time.monotonic()
        while True:
            due = int((time.monotonic() - started) * rate)
            for _ in range(due - sent):
                with contextlib.suppress(OSError):
                    out.sendto(bytes(OFFERED), (host, port))
            sent = due
            time.sleep(OFFERED_EVERY)


def receive(port: int, seconds: float) -> tuple[int, float]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as into:
        into.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 23)  # so that only the tunnel drops datagrams
        into.bind(("", port))
        print("ready", flush=True)
        into.settimeout(PATIENCE)
        into.recv(PAYLOAD)
        into.setblocking(True)
        # Use the kernel's timeout: settimeout would make the descriptor, and with it recvmmsg, non-blocking.
        into.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 100_000))
        count, started = 0, time.monotonic()
        while (spent := time.monotonic() - started) < seconds:
            count += max(0, _libc.recvmmsg(into.fileno(), _messages, AT_ONCE, MSG_WAITFORONE, None))
    return count, spent


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["receive", port, seconds]:
            print(*receive(int(port), float(seconds)))
        case ["send", host, port, seconds]:
            send(host, int(port), float(seconds))
        case ["offer", host, port, rate]:
            offer(host, int(port), int(rate))
        case _:
            sys.exit(__doc__)
