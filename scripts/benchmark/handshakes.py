"""Flood of initiations from a thousand addresses, at a given rate. Run as a module, from the checkout.

    handshakes.py HOST PORT KEY RATE    with valid mac1 for this public key, from a key that the server does not know
    handshakes.py HOST PORT junk RATE   with a mac1 that is wrong

It sends until it gets SIGTERM, and then prints how many it has sent, and in how many seconds. The messages are computed
before the first is sent, and sendmmsg(2) sends many by one call, so that it hardly takes processor time itself. A local
route must make the addresses this host's: `ip route add local 10.77.0.0/22 dev lo`. Replies are not read.
"""

from __future__ import annotations

import ctypes
import secrets
import signal
import socket
import sys
import time
from ipaddress import IPv4Address, IPv4Network

from vpntun.crypto.keys import KeyPair, parse_key
from vpntun.crypto.noise import Initiator
from vpntun.wire.message import INITIATION_SIZE

SOURCES = IPv4Network("10.77.0.0/22")
ADDRESSES = 1000
MESSAGES = 5000
EVERY = 0.004  # seconds between two groups
MOST_AT_ONCE = 500
JUNK = "junk"
_IP_PKTINFO = 8


class _SocketAddress(ctypes.Structure):
    """struct sockaddr_in."""

    _fields_ = (
        ("family", ctypes.c_ushort),
        ("port", ctypes.c_ubyte * 2),
        ("address", ctypes.c_ubyte * 4),
        ("zero", ctypes.c_ubyte * 8),
    )


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Control(ctypes.Structure):
    """struct cmsghdr with struct in_pktinfo."""

    _fields_ = (
        ("length", ctypes.c_size_t),
        ("level", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("device", ctypes.c_int),
        ("source", ctypes.c_ubyte * 4),
        ("destination", ctypes.c_ubyte * 4),
        ("padding", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.POINTER(_SocketAddress)),
        ("name_length", ctypes.c_uint),
        ("iovecs", ctypes.POINTER(_Iovec)),
        ("iovec_count", ctypes.c_size_t),
        ("control", ctypes.POINTER(_Control)),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


_libc = ctypes.CDLL(None, use_errno=True)
_CONTROL_LENGTH = _Control.padding.offset


def messages(key: str, count: int = MESSAGES) -> list[bytes]:
    """Return initiations with fresh ephemeral keys: for this public key, or ones that fail at mac1."""
    server = KeyPair.generate().public if key == JUNK else parse_key(key)
    stranger, psk = KeyPair.generate(), bytes(32)
    return [Initiator(stranger, server, psk).initiation(secrets.randbits(32), bytes(12)) for _ in range(count)]


def group(host: str, port: int, texts: list[bytes]) -> ctypes.Array[_Message]:
    """Return an array for sendmmsg. The addresses take turns as sources."""
    target = _SocketAddress(socket.AF_INET)
    target.port[:] = port.to_bytes(2, "big")
    target.address[:] = socket.inet_aton(host)
    made = (_Message * len(texts))()
    for index, text in enumerate(texts):
        control = _Control(_CONTROL_LENGTH, socket.IPPROTO_IP, _IP_PKTINFO)
        control.source[:] = IPv4Address(int(SOURCES[1]) + index % ADDRESSES).packed
        made[index].header = _Header(
            ctypes.pointer(target),
            ctypes.sizeof(target),
            ctypes.pointer(_Iovec(text, INITIATION_SIZE)),
            1,
            ctypes.pointer(control),
            ctypes.sizeof(control),
        )
    return made


def flood(host: str, port: int, key: str, rate: int) -> tuple[int, float]:
    """Send until SIGTERM; return the number of messages and the seconds."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    prepared = group(host, port, messages(key))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        print("ready", flush=True)
        sent, at, started = 0, 0, time.monotonic()
        while not ended:
            count = min(int((time.monotonic() - started) * rate) - sent, MESSAGES - at, MOST_AT_ONCE)
            if count > 0:
                done = _libc.sendmmsg(out.fileno(), ctypes.byref(prepared[at]), count, 0)
                sent += max(0, done)
                at = (at + max(0, done)) % MESSAGES
            time.sleep(EVERY)
    return sent, time.monotonic() - started


if __name__ == "__main__":
    match sys.argv[1:]:
        case [host, port, key, rate]:
            print(*flood(host, int(port), key, int(rate)))
        case _:
            sys.exit(__doc__)
