"""The server's sockets, on the loopback device in place of a tunnel's: datagrams, connections, and who is refused."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

import dns.message
import pytest

from tests.machine import HandLoop
from tests.names.directories import directory, peer
from tests.names.outside import Outside, records
from tests.names.test_forwarding import servers_of
from vpntun.errors import PortInUse, VpntunError
from vpntun.names.responder import Responder
from vpntun.names.server import MOST_CONNECTIONS, SECONDS_IDLE, NameServer

KNOWN = directory(peer("laptop", "10.9.0.2/32"))
HOME = ip_address("127.0.0.1")


def query(name: str = "laptop.office.internal") -> bytes:
    return dns.message.make_query(name, "A").to_wire()


class Served:
    """A server on 127.0.0.1, at a port that was free."""

    def __init__(self, loop: HandLoop, outside: Outside) -> None:
        self.loop = loop
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.responder = Responder(loop, lambda: KNOWN, servers_of(outside.place), lambda _: None, Counter())
        self.server = NameServer(loop, self.responder, "lo", [HOME], port=self.port)

    def connect(self, kind: int) -> socket.socket:
        client = socket.socket(type=kind)
        client.connect(("127.0.0.1", self.port))
        client.setblocking(False)
        return client

    def read(self, client: socket.socket) -> bytes:
        return self.loop.arrival(client)[0]


@pytest.fixture
def served(loop: HandLoop, outside: Outside) -> Iterator[Served]:
    made = Served(loop, outside)
    yield made
    made.server.close()


def test_a_datagram_is_answered_also_when_the_answer_comes_later(served: Served, outside: Outside) -> None:
    with served.connect(socket.SOCK_DGRAM) as client:
        client.send(b"?")
        client.send(query())
        assert records(dns.message.from_wire(served.read(client))) == ["10.9.0.2"]
        client.send(query("www.example.org"))
        outside.next_question()
        outside.answer("203.0.113.7")
        assert records(dns.message.from_wire(served.read(client))) == ["203.0.113.7"]


def test_a_connection_carries_several_questions(served: Served, outside: Outside) -> None:
    with served.connect(socket.SOCK_STREAM) as client:
        for name in ("www.example.org", "laptop.office.internal"):
            asked = query(name)
            client.send(struct.pack("!H", len(asked)) + asked)
        outside.next_question()
        outside.answer("203.0.113.7")
        data = b""
        found: list[list[str]] = []
        while len(found) < 2:
            data += served.read(client)
            while len(data) >= 2 and len(data) >= 2 + struct.unpack_from("!H", data)[0]:
                size = struct.unpack_from("!H", data)[0]
                found.append(records(dns.message.from_wire(data[2 : 2 + size])))
                data = data[2 + size :]
        assert found == [["203.0.113.7"], ["10.9.0.2"]]


def test_connections_are_limited_and_a_new_one_takes_the_place_of_an_idle_one(served: Served) -> None:
    clients = [served.connect(socket.SOCK_STREAM) for _ in range(MOST_CONNECTIONS)]
    served.loop.settle()
    with served.connect(socket.SOCK_STREAM) as last:
        asked = query()
        last.send(struct.pack("!H", len(asked)) + asked)
        assert served.read(last)
        assert served.read(clients[0]) == b""
    for client in clients:
        client.close()


def test_a_connection_without_questions_is_closed_after_a_while(served: Served) -> None:
    asked = query()
    with served.connect(socket.SOCK_STREAM) as silent, served.connect(socket.SOCK_STREAM) as asking:
        served.loop.settle()
        for _ in range(3):
            served.loop.pass_time(SECONDS_IDLE / 2)
            asking.send(struct.pack("!H", len(asked)) + asked)
            assert served.read(asking)
        assert served.read(silent) == b""
        for _ in range(3):
            served.loop.pass_time(SECONDS_IDLE / 2)
        assert served.read(asking) == b""


def test_an_answer_that_comes_after_the_end_is_dropped(served: Served, outside: Outside) -> None:
    with served.connect(socket.SOCK_DGRAM) as client:
        client.send(query("www.example.org"))
        outside.next_question()
    served.server.close()
    outside.answer("203.0.113.7")
    served.loop.settle()
    served.server = NameServer(served.loop, served.responder, "lo", [HOME], port=served.port)


def test_an_address_in_use_is_refused_and_nothing_stays_open(served: Served) -> None:
    with socket.create_server(("127.0.0.2", served.port)):
        with pytest.raises(PortInUse, match="stop the name server that listens there"):
            NameServer(
                served.loop,
                served.responder,
                "lo",
                [ip_address("127.0.0.3"), ip_address("127.0.0.2")],
                port=served.port,
            )
        with socket.create_server(("127.0.0.3", served.port)):
            pass


def test_a_device_that_is_gone_is_an_error_of_the_operators_kind(served: Served) -> None:
    with pytest.raises(VpntunError, match="the name server cannot listen"):
        NameServer(served.loop, served.responder, "no-such-dev", [HOME], port=1)
