"""Calls over real loopback sockets: each way of not answering has a name of its own."""

from __future__ import annotations

import errno
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.datapath.ends import ALICE, BOB, PSK
from vpntun.crypto.cookies import CookieChecker, has_mac2
from vpntun.crypto.noise import consume_initiation
from vpntun.crypto.timestamp import tai64n
from vpntun.doctor.reach import call
from vpntun.doctor.reach.call import Called, call_by_tcp, call_by_udp
from vpntun.doctor.reach.handshake import Handshake
from vpntun.wire.message import sender_of
from vpntun.wire.stream_framing import prefix

Reply = Callable[[bytes], bytes]
"""What the other end says to a message; b"" is nothing."""

CHECKER = CookieChecker(BOB.public)
COOKIE = bytes(16)


@pytest.fixture(autouse=True)
def _in_short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "SECONDS_OF_A_TRY", 0.3)
    monkeypatch.setattr(call, "SECONDS_TO_CONNECT", 1.0)


def handshake() -> Handshake:
    clock = itertools.count(1700000000)
    return Handshake(ALICE, BOB.public, PSK, lambda: tai64n(next(clock)))


def respond(message: bytes) -> bytes:
    return consume_initiation(BOB, message).respond(PSK, 5)[0]


def respond_to_a_cookie(message: bytes) -> bytes:
    if has_mac2(message, COOKIE):
        return respond(message)
    return CHECKER.reply(message, sender_of(message), COOKIE)


def only_cookies(message: bytes) -> bytes:
    return CHECKER.reply(message, sender_of(message), COOKIE)


ANSWERS = [
    (respond, "answered"),
    (respond_to_a_cookie, "answered"),
    (only_cookies, "loaded"),
    (lambda message: b"HTTP", "foreign"),
]


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(2)
        yield server


def by_udp(server: socket.socket, reply: Reply) -> Called:
    def serve() -> None:
        with suppress(OSError):
            while True:
                message, sender = server.recvfrom(65535)
                if said := reply(message):
                    server.sendto(said, sender)

    threading.Thread(target=serve, daemon=True).start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        return call_by_udp(link, server.getsockname(), handshake())


@pytest.mark.parametrize(("reply", "outcome"), [*ANSWERS, (lambda message: b"", "silent")])
def test_a_call_by_udp(udp: socket.socket, reply: Reply, outcome: str) -> None:
    called = by_udp(udp, reply)
    assert called.outcome == outcome
    assert (called.session is not None) == (outcome == "answered")


def test_a_port_where_nobody_listens_refuses_udp(udp: socket.socket) -> None:
    address = udp.getsockname()
    udp.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        assert call_by_udp(link, address, handshake()).outcome == "refused"


def by_tcp(reply: Reply | None) -> Called:
    """Call a server that says something to each frame, or closes the connection at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                link, _ = server.accept()
                with link:
                    while reply is not None and (begin := link.recv(2)):
                        said = reply(link.recv(int.from_bytes(begin, "big")))
                        if said:
                            link.sendall(prefix(len(said)))
                            for byte in said:  # a frame may arrive in pieces
                                link.sendall(bytes([byte]))

        threading.Thread(target=serve, daemon=True).start()
        return call_by_tcp(socket.AF_INET, server.getsockname(), handshake())


@pytest.mark.parametrize(("reply", "outcome"), [*ANSWERS, (lambda message: b"", "open"), (None, "open")])
def test_a_call_by_tcp(reply: Reply | None, outcome: str) -> None:
    assert by_tcp(reply).outcome == outcome


def test_a_port_where_nobody_listens_refuses_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    assert call_by_tcp(socket.AF_INET, address, handshake()).outcome == "refused"


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (errno.EPERM, "forbidden"),
        (errno.EACCES, "forbidden"),
        (errno.ENETUNREACH, "unreachable"),
        (errno.EHOSTUNREACH, "unreachable"),
        (errno.ETIMEDOUT, "silent"),
        (errno.ECONNREFUSED, "refused"),
    ],
)
def test_errors_of_the_system_are_told_apart(number: int, outcome: str) -> None:
    assert call._failed("udp", OSError(number, "why")).outcome == outcome
