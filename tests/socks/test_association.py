"""UDP through the SOCKS5 proxy: whose datagrams are taken, where they go, and when that ends."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.machine import HandLoop
from tests.socks.ends import Client, OtherSide, Proxy, family_and_address, packed_name, request
from tests.socks.test_session import LOCALHOST, LOCALHOST_V6, NAME, UDP_ASSOCIATE, V4, V6
from vpntun.forwards.connections import MOST_WAITING_BYTES
from vpntun.socks.association import MOST_LOOK_UPS, SECONDS_OF_A_NAME


class DatagramClient:
    """A client with an association. `place`: where the proxy takes its datagrams."""

    def __init__(self, loop: HandLoop, proxy: Proxy, host: str = "127.0.0.1") -> None:
        self.loop = loop
        self.control = Client(loop, (host, proxy.port))
        self.reply = self.control.ask(request(UDP_ASSOCIATE, V4, bytes(4), 0))
        self.place = host, int.from_bytes(self.reply[-2:], "big")
        self.socket = socket.socket(family_and_address(*self.place)[0], socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.setblocking(False)

    def close(self) -> None:
        self.control.socket.close()
        self.socket.close()

    def send(self, kind: int, host: bytes, port: int, data: bytes, *, fragment: int = 0) -> None:
        self.socket.sendto(datagram(kind, host, port, data, fragment=fragment), self.place)

    def receive(self) -> bytes:
        return arrival(self.loop, self.socket)[0]


def datagram(kind: int, host: bytes, port: int, data: bytes, *, fragment: int = 0) -> bytes:
    return bytes([0, 0, fragment, kind]) + host + port.to_bytes(2, "big") + data


def arrival(loop: HandLoop, arriving: socket.socket) -> tuple[bytes, tuple[str, int]]:
    """Wait for a datagram, and return it with its sender."""
    data, sender = loop.arrival(arriving)
    return data, sender[:2]


def server_at(host: str) -> socket.socket:
    family, address = family_and_address(host, 0)
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind(address)
    server.setblocking(False)
    return server


@pytest.fixture
def client(loop: HandLoop, proxy: Proxy) -> Iterator[DatagramClient]:
    with closing(DatagramClient(loop, proxy)) as made:
        yield made


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with server_at("127.0.0.1") as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "host", "listens"),
    [(V4, LOCALHOST, "127.0.0.1"), (V6, LOCALHOST_V6, "::1"), (NAME, packed_name("desk"), "127.0.0.1")],
    ids=["ipv4", "ipv6", "name"],
)
def test_a_datagram_reaches_an_address_or_a_name_and_its_answer_comes_back(
    client: DatagramClient, proxy: Proxy, side: OtherSide, kind: int, host: bytes, listens: str
) -> None:
    side.names["desk"] = ["127.0.0.1"]
    with server_at(listens) as server:
        port = server.getsockname()[1]
        client.send(kind, host, port, b"question")
        data, sender = arrival(client.loop, server)
        assert data == b"question"
        server.sendto(b"the answer", sender)
        v6 = listens == "::1"
        assert client.receive() == datagram(V6 if v6 else V4, LOCALHOST_V6 if v6 else LOCALHOST, port, b"the answer")
    status = proxy.status()
    assert (status["connections"], status["sent_bytes"], status["received_bytes"]) == (1, 8, 10)


def test_the_reply_names_the_address_to_which_the_client_has_connected(client: DatagramClient) -> None:
    assert client.reply[:8] == b"\x05\x00\x00\x01" + LOCALHOST


def test_a_client_of_ipv4_at_a_listener_for_both_versions_is_given_an_address_of_ipv4(
    loop: HandLoop, side: OtherSide, server: socket.socket
) -> None:
    with closing(Proxy(loop, side, "::")) as proxy, closing(DatagramClient(loop, proxy)) as client:
        assert client.reply[:8] == b"\x05\x00\x00\x01" + LOCALHOST
        client.send(V4, LOCALHOST, server.getsockname()[1], b"question")
        assert arrival(loop, server)[0] == b"question"


def test_the_largest_datagram_passes(client: DatagramClient, server: socket.socket) -> None:
    client.send(V4, LOCALHOST, server.getsockname()[1], bytes(65507 - 10))
    assert len(arrival(client.loop, server)[0]) == 65507 - 10


def test_only_the_client_is_listened_to(loop: HandLoop, client: DatagramClient, server: socket.socket) -> None:
    port = server.getsockname()[1]
    with ExitStack() as stack:
        elsewhere = stack.enter_context(server_at("127.0.0.2"))
        elsewhere.sendto(datagram(V4, LOCALHOST, port, b"from another host"), client.place)
        client.send(V4, LOCALHOST, port, b"first")
        assert arrival(loop, server)[0] == b"first"
        other = stack.enter_context(server_at("127.0.0.1"))
        other.sendto(datagram(V4, LOCALHOST, port, b"from another port"), client.place)
        client.send(V4, LOCALHOST, port, b"second")
        assert arrival(loop, server)[0] == b"second"


@pytest.mark.parametrize(
    ("kind", "fragment"), [(V4, 1), (V4, 0x81), (2, 0)], ids=["fragment", "last fragment", "type of address"]
)
def test_what_cannot_be_passed_on_is_dropped_and_the_next_datagram_is_not(
    client: DatagramClient, server: socket.socket, kind: int, fragment: int
) -> None:
    port = server.getsockname()[1]
    client.socket.sendto(b"", client.place)
    client.socket.sendto(b"\x00\x00\x00", client.place)
    client.send(kind, LOCALHOST, port, b"bad", fragment=fragment)
    client.send(V4, LOCALHOST, 0, b"to no port")
    client.send(V4, bytes([255] * 4), port, b"to all")
    client.send(V4, LOCALHOST, port, b"good")
    assert arrival(client.loop, server)[0] == b"good"


def test_a_side_without_sockets_loses_datagrams_and_no_more(
    client: DatagramClient, side: OtherSide, server: socket.socket
) -> None:
    port = server.getsockname()[1]
    side.error = errno.EMFILE
    client.send(V4, LOCALHOST, port, b"lost")
    client.loop.settle(0.01)
    side.error = None
    client.send(V4, LOCALHOST, port, b"found")
    assert arrival(client.loop, server)[0] == b"found"


def test_a_name_is_looked_up_once_in_a_while_and_its_first_address_that_works_is_used(
    client: DatagramClient, side: OtherSide, server: socket.socket
) -> None:
    port = server.getsockname()[1]
    side.names["desk"] = ["255.255.255.255", "127.0.0.1"]  # which the kernel refuses
    for data in (b"1", b"2", b"3"):
        client.send(NAME, packed_name("desk"), port, data)
    assert [arrival(client.loop, server)[0] for _ in range(3)] == [b"1", b"2", b"3"]
    client.send(NAME, packed_name("desk"), port, b"4")
    assert arrival(client.loop, server)[0] == b"4"
    assert side.asked == ["desk"]
    client.loop.pass_time(SECONDS_OF_A_NAME)
    client.send(NAME, packed_name("desk"), port, b"5")
    assert arrival(client.loop, server)[0] == b"5"
    assert side.asked == ["desk", "desk"]


def test_names_that_are_not_answered_hold_up_nobody_else_and_are_few(
    client: DatagramClient, side: OtherSide, server: socket.socket
) -> None:
    side.is_silent = True
    for number in range(3 * MOST_LOOK_UPS):
        client.send(NAME, packed_name(f"silent{number}"), 53, bytes(1000))
        client.loop.poll()
    client.send(V4, LOCALHOST, server.getsockname()[1], b"goes on")
    assert arrival(client.loop, server)[0] == b"goes on"
    assert len(side.asked) == MOST_LOOK_UPS


def test_datagrams_that_wait_take_of_the_room_of_all_until_the_end(
    client: DatagramClient, proxy: Proxy, side: OtherSide
) -> None:
    side.is_silent = True
    room = proxy.connections.waiting
    assert room.take(MOST_WAITING_BYTES - 2000)
    for number in range(3):
        client.send(NAME, packed_name(f"silent{number}"), 53, bytes(900))
    client.loop.settle(0.01)
    assert side.asked == ["silent0"]
    client.control.socket.close()
    client.loop.until(lambda: proxy.status()["connections"] == 0)
    assert room.take(2000)


def test_the_end_of_the_clients_connection_ends_its_association(
    client: DatagramClient, proxy: Proxy, side: OtherSide, server: socket.socket
) -> None:
    client.send(V4, LOCALHOST, server.getsockname()[1], b"question")
    arrival(client.loop, server)
    client.control.socket.close()
    client.loop.until(lambda: proxy.status()["connections"] == 0)
    assert [each.fileno() for each in side.opened] == [-1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
        another.bind(client.place)  # it is free again


def test_an_answer_to_a_look_up_after_the_end_is_ignored(client: DatagramClient, proxy: Proxy, side: OtherSide) -> None:
    side.names["desk"] = ["127.0.0.1"]
    client.send(NAME, packed_name("desk"), 53, b"question")
    client.control.socket.close()
    client.loop.until(lambda: proxy.status()["connections"] == 0)
    client.loop.settle(0.01)
    assert side.opened == []
