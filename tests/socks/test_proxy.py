"""The SOCKS5 proxy as a whole: its limits, what its status counts, and its end."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, closing, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.sample_status import SOCKS5
from tests.machine import HandLoop, logged
from tests.socks.ends import GREETING, Client, OtherSide, Proxy, listening, request
from tests.socks.test_session import CONNECT, LOCALHOST, V4, accepted
from vpntun.types import written


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_the_status_counts_clients_and_the_bytes_of_both_directions(loop: HandLoop, proxy: Proxy) -> None:
    with listening() as server:
        client = Client(loop, proxy.place)
        client.ask(request(CONNECT, V4, LOCALHOST, server.getsockname()[1]))
        refused = Client(loop, proxy.place)
        refused.ask(request(2, V4, LOCALHOST, 80))
        refused.socket.close()
        with accepted(server) as far:
            client.send(b"question")
            far.send(b"the answer")
            client.receive(10)
            loop.until(lambda: proxy.status()["connections"] == 1)
            running = {
                "listen": f"127.0.0.1:{proxy.port}",
                "connections": 1,
                "connections_total": 2,
                "connections_refused": 0,
                "connections_failed": 1,
                "sent_bytes": 8,
                "received_bytes": 10,
                "last_failure": "asked for command 2, which is not offered here",
            }
            assert proxy.status() == running
            assert list(running) == list(SOCKS5)
        client.socket.close()
        loop.until(lambda: proxy.status()["connections"] == 0)
        assert proxy.status() == running | {"connections": 0}


def test_a_client_too_many_is_reset_and_the_others_go_on(loop: HandLoop, side: OtherSide) -> None:
    with closing(Proxy(loop, side, most=2)) as proxy, listening() as server, ExitStack() as stack, logged() as lines:
        clients = [Client(loop, proxy.place) for _ in range(4)]
        for each in clients:
            stack.enter_context(each.socket)
        loop.until(lambda: proxy.status()["connections_refused"] == 2)
        with pytest.raises(ConnectionResetError):
            clients[2].receive(1)
        assert lines == ["refused: there is no room for another client of the SOCKS5 proxy"]
        for each in clients[:2]:
            assert each.ask(request(CONNECT, V4, LOCALHOST, server.getsockname()[1]))[1] == 0
        clients[0].socket.close()
        accepted(server).close()
        loop.until(lambda: proxy.status()["connections"] == 1)
        late = Client(loop, proxy.place)
        with late.socket:
            assert late.ask(request(CONNECT, V4, LOCALHOST, server.getsockname()[1]))[1] == 0


def test_the_end_of_the_proxy_ends_its_clients_in_whatever_state(loop: HandLoop, proxy: Proxy) -> None:
    with listening() as server:
        before = descriptors()
        silent, relayed, associated = (Client(loop, proxy.place) for _ in range(3))
        relayed.ask(request(CONNECT, V4, LOCALHOST, server.getsockname()[1]))
        associated.ask(request(3, V4, bytes(4), 0))
        with accepted(server) as far:
            proxy.close()
            with pytest.raises(ConnectionResetError):
                far.recv(1)
        for each in (silent, relayed, associated):
            loop.until(each.has_been_closed)
            each.socket.close()
        assert descriptors() == before - 1  # the listener's
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port))


@pytest.mark.parametrize(("at", "is_told"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("::", True)])
def test_a_proxy_that_other_machines_may_reach_says_so(loop: HandLoop, side: OtherSide, at: str, is_told: bool) -> None:
    with logged() as lines, closing(Proxy(loop, side, at)) as proxy:
        where = written((at, proxy.port))
        told = f"everybody who reaches {where} can use the tunnel: the SOCKS5 proxy asks for no password"
        assert lines == [told] * is_told


pieces = st.sampled_from(
    [
        GREETING,
        request(1, 1, LOCALHOST, 9),
        request(1, 3, b"\x04desk", 80),
        request(1, 4, bytes(16), 0),
        request(3, 1, bytes(4), 0),
        b"\x05",
        b"\x05\xff",
        b"\x05\x01\x00\x03\xff",
    ]
) | st.binary(min_size=1, max_size=30)


@settings(max_examples=60)
@given(st.lists(pieces, max_size=6))
def test_no_client_says_anything_that_the_proxy_does_not_survive(said: list[bytes]) -> None:
    loop = HandLoop()
    with closing(loop), closing(Proxy(loop, OtherSide(loop))) as proxy:
        client = Client(loop, proxy.place)
        with client.socket, suppress(ConnectionError):
            for piece in said:
                client.socket.send(piece)
                loop.poll()
                loop.poll()
        loop.until(lambda: proxy.status()["connections"] == 0)
        assert loop.internal_errors.count == 0
