"""Sessions of the SOCKS5 proxy: what each client asks for, in whatever pieces, and the codes of what fails."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.machine import HandLoop, logged
from tests.socks.ends import (
    GREETING,
    REPLY_OF_IPV4,
    WELCOME,
    Client,
    OtherSide,
    Proxy,
    listening,
    packed_name,
    request,
)
from vpntun.forwards.connecting import SECONDS_FOR_TARGET
from vpntun.socks.session import SECONDS_FOR_REQUEST, SECONDS_TO_CLOSE

CONNECT, BIND, UDP_ASSOCIATE = 1, 2, 3
V4, NAME, V6 = 1, 3, 4
LOCALHOST, LOCALHOST_V6 = bytes([127, 0, 0, 1]), bytes(15) + b"\x01"


@pytest.fixture
def client(loop: HandLoop, proxy: Proxy) -> Iterator[Client]:
    made = Client(loop, proxy.place)
    with made.socket:
        yield made


def accepted(server: socket.socket) -> socket.socket:
    """Accept what the proxy has connected."""
    server.settimeout(5)
    return server.accept()[0]


@pytest.mark.parametrize(
    ("kind", "host", "listens"),
    [(V4, LOCALHOST, "127.0.0.1"), (V6, LOCALHOST_V6, "::1"), (NAME, packed_name("desk.office"), "127.0.0.1")],
    ids=["ipv4", "ipv6", "name"],
)
def test_a_client_is_connected_to_an_address_or_a_name_of_the_other_side(
    client: Client, side: OtherSide, kind: int, host: bytes, listens: str
) -> None:
    side.names["desk.office"] = ["127.0.0.1"]
    with listening(listens) as server:
        reply = client.ask(request(CONNECT, kind, host, server.getsockname()[1]))
        with accepted(server) as far:
            assert reply[:4] == bytes([5, 0, 0, V6 if kind == V6 else V4])
            assert reply[4:] == (LOCALHOST_V6 if kind == V6 else LOCALHOST) + far.getpeername()[1].to_bytes(2, "big")
            client.send(b"question")
            client.loop.settle(0.01)
            assert far.recv(100) == b"question"
            far.send(b"answer")
            assert client.receive(6) == b"answer"
            client.socket.shutdown(socket.SHUT_WR)
            client.loop.settle(0.01)
            assert far.recv(100) == b""
            far.send(b"and more")
            assert client.receive(8) == b"and more"
        client.loop.until(client.has_been_closed)


def test_addresses_of_a_name_are_tried_in_turn(client: Client, side: OtherSide) -> None:
    side.names["desk"] = ["::1", "127.0.0.1"]
    with listening() as server:
        reply = client.ask(request(CONNECT, NAME, packed_name("desk"), server.getsockname()[1]))
        assert reply[1] == 0


def test_a_request_in_single_bytes_is_understood(client: Client) -> None:
    with listening() as server:
        for byte in GREETING + request(CONNECT, V4, LOCALHOST, server.getsockname()[1]):
            client.send(bytes([byte]))
            client.loop.poll()
        reply = client.receive(2 + REPLY_OF_IPV4)
        assert reply[:4] == WELCOME + b"\x05\x00"


def test_data_sent_without_waiting_for_any_reply_arrives(client: Client) -> None:
    with listening() as server:
        client.send(GREETING + request(CONNECT, V4, LOCALHOST, server.getsockname()[1]) + b"question")
        assert client.receive(2 + REPLY_OF_IPV4)[3] == 0
        with accepted(server) as far:
            client.loop.settle(0.01)
            assert far.recv(100) == b"question"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errno.ENETUNREACH, 3),
        (errno.EHOSTUNREACH, 4),
        (errno.ECONNREFUSED, 5),
        (errno.ETIMEDOUT, 6),
        (errno.EAFNOSUPPORT, 8),
        (errno.EPERM, 2),
        (errno.EMFILE, 1),
    ],
    ids=lambda value: errno.errorcode[value] if value > 10 else str(value),
)
def test_the_code_of_a_reply_says_why_there_is_no_connection(
    client: Client, side: OtherSide, error: int, code: int
) -> None:
    side.error = error
    assert client.ask(request(CONNECT, V4, LOCALHOST, 9))[:2] == bytes([5, code])
    client.loop.until(client.has_been_closed)


def test_a_port_where_nobody_listens_and_an_unknown_name_are_told_apart(loop: HandLoop, proxy: Proxy) -> None:
    with listening() as server:
        port = server.getsockname()[1]
    for host, code in ((V4, LOCALHOST), 5), ((NAME, packed_name("nobody.office")), 4):
        client = Client(loop, proxy.place)
        with client.socket:
            assert client.ask(request(CONNECT, *host, port))[1] == code


def test_a_host_that_stays_silent_is_a_timeout(client: Client, side: OtherSide) -> None:
    side.is_silent = True
    client.send(GREETING + request(CONNECT, NAME, packed_name("silent"), 80))
    client.loop.until(lambda: side.asked)
    client.loop.pass_time(SECONDS_FOR_TARGET + 1)
    assert client.receive(2 + REPLY_OF_IPV4)[3] == 6


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (request(BIND, V4, LOCALHOST, 0), 7),
        (request(9, V4, LOCALHOST, 0), 7),
        (request(CONNECT, 2, LOCALHOST, 80), 8),
        (request(CONNECT, NAME, packed_name(""), 80), 1),
        (request(CONNECT, NAME, packed_name("a b"), 80), 1),
    ],
    ids=["bind", "unknown command", "unknown type of address", "no name", "bad name"],
)
def test_what_is_not_offered_is_refused_by_its_code(client: Client, asked: bytes, code: int) -> None:
    assert client.ask(asked)[:2] == bytes([5, code])
    client.loop.until(client.has_been_closed)


def test_a_unix_socket_offers_no_udp(loop: HandLoop, side: OtherSide, tmp_path: Path) -> None:
    with closing(Proxy(loop, side, tmp_path / "proxy.sock")) as proxy:
        client = Client(loop, proxy.place)
        with client.socket, listening() as server:
            assert client.ask(request(UDP_ASSOCIATE, V4, bytes(4), 0))[1] == 7
        client = Client(loop, proxy.place)
        with client.socket, listening() as server:
            assert client.ask(request(CONNECT, V4, LOCALHOST, server.getsockname()[1]))[1] == 0


@pytest.mark.parametrize("said", [b"GET http://desk/ HTTP/1.1\r\n\r\n", b"CONNECT desk:80 HTTP/1.1\r\n", b"\x04\x01"])
def test_another_protocol_is_closed_without_a_byte_and_the_log_says_what_to_do(client: Client, said: bytes) -> None:
    with logged() as lines:
        client.send(said)
        client.loop.until(client.has_been_closed)
    assert lines == ["a client of the SOCKS5 proxy spoke another protocol: set it to SOCKS version 5"]


def test_a_client_that_insists_on_a_password_is_told_so(client: Client) -> None:
    with logged() as lines:
        client.send(b"\x05\x01\x02")
        assert client.receive(3) == b"\x05\xff"
        client.socket.close()
        client.loop.until(lambda: lines)
    assert lines == ["a client of the SOCKS5 proxy insists on a password: set none in it"]


def test_a_refused_client_reads_why_although_it_has_sent_more(client: Client, side: OtherSide) -> None:
    side.error = errno.ECONNREFUSED
    client.send(GREETING + request(CONNECT, V4, LOCALHOST, 9) + bytes(100_000))
    client.loop.settle(0.02)
    assert client.receive(100) == WELCOME + b"\x05\x05\x00\x01" + bytes(6)


def test_a_refused_client_that_stays_is_closed(client: Client, proxy: Proxy) -> None:
    client.ask(request(BIND, V4, LOCALHOST, 0))
    assert proxy.status()["connections"] == 1
    client.loop.pass_time(SECONDS_TO_CLOSE)
    client.loop.until(lambda: proxy.status()["connections"] == 0)


@pytest.mark.parametrize("said", [b"", b"\x05", GREETING, GREETING + b"\x05\x01\x00\x03\x10abc"])
def test_a_client_that_makes_no_request_is_closed_in_time(client: Client, proxy: Proxy, said: bytes) -> None:
    with logged() as lines:
        if said:
            client.send(said)
        client.loop.settle(0.01)
        client.loop.pass_time(SECONDS_FOR_REQUEST - 1)
        assert not lines
        client.loop.pass_time(1)
        assert lines == ["a client of the SOCKS5 proxy made no request within 30 s"]
    assert proxy.status()["connections"] == 0


def test_a_connection_that_was_asked_for_in_time_may_last(client: Client) -> None:
    with listening() as server:
        client.ask(request(CONNECT, V4, LOCALHOST, server.getsockname()[1]))
        with accepted(server) as far:
            client.loop.pass_time(SECONDS_FOR_REQUEST + SECONDS_FOR_TARGET)
            far.send(b"answer")
            assert client.receive(6) == b"answer"


def test_a_client_that_leaves_while_it_is_being_connected_is_forgotten(
    client: Client, proxy: Proxy, side: OtherSide
) -> None:
    side.is_silent = True
    client.send(GREETING + request(CONNECT, NAME, packed_name("silent"), 80))
    client.loop.until(lambda: side.asked)
    client.receive(2)
    client.socket.close()
    client.loop.until(lambda: proxy.status()["connections"] == 0)


def test_a_client_that_waits_for_its_connection_does_not_keep_the_loop_awake(client: Client, side: OtherSide) -> None:
    side.is_silent = True
    client.send(GREETING + request(CONNECT, NAME, packed_name("silent"), 80) + b"question")
    client.loop.until(lambda: side.asked)
    client.loop.settle(0.01)
    client.loop.poll()
    assert client.loop.is_idle
