"""UDP carrier on real sockets: one message a datagram, both IP versions, and no datagram ends the program."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import random
import socket
import struct
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytest

from tests.carriers.own_network import run_in_own_network
from tests.machine import HandLoop
from vpntun.carriers.ancillary import IP_PKTINFO, IPV6_PKTINFO, UDP_SEGMENT
from vpntun.carriers.listening import TcpListener
from vpntun.carriers.sockets import families
from vpntun.carriers.udp_socket import UdpEndpoint, UdpSocket
from vpntun.core.endpoint import Outcome
from vpntun.errors import PortInUse

FAMILIES = [socket.AF_INET, socket.AF_INET6]
LOCALHOST: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
both_versions = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
SENT_TOS = [(b"\1" + bytes(147), 0x88), (b"\2" + bytes(91), 0x88), (b"\3" + bytes(63), 0x88), (b"\4" + bytes(31), 0)]
"""Messages sent ahead of data, and their TOS bytes, as WireGuard's."""


_ports = itertools.cycle(random.sample(range(10_000, 32_000), 1000))


def free_port(family: int, kind: int = socket.SOCK_DGRAM) -> int:
    """Find a free port below 32768, from which on the kernel gives ephemeral ports to other tests."""
    if family not in families():
        pytest.skip("this machine has no such IP version")
    for port in itertools.islice(_ports, 1000):
        with socket.socket(family, kind) as probe:
            try:
                probe.bind((LOCALHOST[family], port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                pytest.skip("this machine has no loopback address of this IP version")
        return port
    raise AssertionError("none of 1,000 ports is free")


@contextmanager
def bound(family: int, loop: HandLoop, port: int = 0, *, serving: bool = True) -> Iterator[tuple[UdpSocket, Any]]:
    """A carrier's socket on a port, and its address on the loopback interface."""
    port = port or free_port(family)
    udp = UdpSocket(family, port, loop, answers_from_where_asked=serving)
    try:
        yield udp, (LOCALHOST[family], port)
    finally:
        udp.close()


@contextmanager
def stranger(family: int) -> Iterator[socket.socket]:
    """An ordinary socket of a stranger."""
    with socket.socket(family, socket.SOCK_DGRAM) as other:
        other.settimeout(5)
        yield other


def receive_one(udp: UdpSocket, loop: HandLoop) -> tuple[bytes, UdpEndpoint]:
    got: list[tuple[bytes, UdpEndpoint]] = []

    def look() -> bool:
        got.extend((bytes(message), cast(UdpEndpoint, source)) for message, _, _, source, _ in udp.receive())
        return bool(got)

    loop.until(look, "for a datagram")
    assert len(got) == 1
    return got[0]


@both_versions
def test_one_message_is_one_datagram_both_ways(loop: HandLoop, family: int) -> None:
    with bound(family, loop) as (udp, address), stranger(family) as other:
        for message in (b"a", b"b" * 148, b"c" * 65000):
            other.sendto(message, address)
            got, endpoint = receive_one(udp, loop)
            assert got == message
            assert endpoint.send([memoryview(message[::-1])]) is Outcome.SENT
            assert other.recv(65535) == message[::-1]


@both_versions
def test_an_empty_datagram_is_a_message_of_no_bytes(loop: HandLoop, family: int) -> None:
    with bound(family, loop) as (udp, address), stranger(family) as other:
        other.sendto(b"", address)
        assert receive_one(udp, loop)[0] == b""


@both_versions
def test_a_client_needs_no_fixed_port(loop: HandLoop, family: int) -> None:
    with bound(family, loop) as (server, address):
        client = UdpSocket(family, 0, loop, answers_from_where_asked=False)
        assert list(client.receive()) == []
        assert client.endpoint(address).send([memoryview(b"question")]) is Outcome.SENT
        message, endpoint = receive_one(server, loop)
        assert message == b"question"
        endpoint.send_first(b"answer")
        assert receive_one(client, loop)[0] == b"answer"
        client.close()


def tos_received(other: socket.socket) -> list[int]:
    """Return the TOS byte of each datagram that waits at a socket."""
    found = []
    other.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            [(_, _, data)] = other.recvmsg(2000, 100)[1]
            found.append(data[0])
    return found


@both_versions
def test_datagrams_have_the_tos_byte_that_is_asked_for(loop: HandLoop, family: int) -> None:
    with bound(family, loop) as (udp, _), stranger(family) as other:
        other.bind((LOCALHOST[family], 0))
        if family == socket.AF_INET:
            other.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        else:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        endpoint = udp.endpoint(other.getsockname()[:2])
        for tos in (0, 1, 2, 3, 0xB8, 0xFF, 0):
            assert endpoint.send([memoryview(bytes(100))], tos=tos) is Outcome.SENT
            assert endpoint.send_frame(memoryview(bytes(100)), tos=tos) is Outcome.SENT
            assert endpoint.send([memoryview(bytes(300))], 100, tos=tos) is Outcome.SENT
            assert tos_received(other) == [tos] * 5
        udp._has_segmentation = False
        assert endpoint.send([memoryview(bytes(300))], 100, tos=2) is Outcome.SENT
        assert tos_received(other) == [2] * 3
        for message, _ in SENT_TOS:
            endpoint.send_first(message)
        assert tos_received(other) == [tos for _, tos in SENT_TOS]


@both_versions
def test_the_ecn_field_of_each_datagram_is_read(loop: HandLoop, family: int) -> None:
    with bound(family, loop) as (udp, address), bound(family, loop, serving=False) as (client, _):
        fields = [0, 2, 3, 1, 2, 0]
        for ecn in fields:
            client.endpoint(address).send([memoryview(bytes(100))], tos=0xB8 | ecn)
        arrivals = [(source, ecn) for _, _, _, source, ecn in udp.receive()]
        assert [ecn for _, ecn in arrivals] == fields
        assert len({id(source) for source, _ in arrivals}) == 1, "the field does not make another endpoint"
        answered = cast(UdpEndpoint, arrivals[0][0])
        answered.send([memoryview(bytes(3000))], 1000, tos=3)  # in its turn
        assert {ecn for *_, ecn in client.receive()} == {3}


@pytest.mark.parametrize("asked_at", ["127.0.0.1", "127.0.0.2", "127.9.8.7"])
def test_the_answer_comes_from_the_address_that_was_asked(loop: HandLoop, asked_at: str) -> None:
    with bound(socket.AF_INET, loop) as (udp, (_, port)), stranger(socket.AF_INET) as other:
        other.sendto(b"question", (asked_at, port))
        _, endpoint = receive_one(udp, loop)
        endpoint.send([memoryview(b"answer")])
        assert other.recvfrom(100) == (b"answer", (asked_at, port))


@both_versions
def test_each_message_has_the_endpoint_of_its_sender(loop: HandLoop, family: int) -> None:
    with bound(family, loop) as (udp, address), stranger(family) as one, stranger(family) as other:
        for sender in (one, one, other, one, other, other):
            sender.sendto(b"question", address)
            _, endpoint = receive_one(udp, loop)
            endpoint.send([memoryview(b"answer")])
            assert sender.recv(100) == b"answer"


def test_the_address_asked_at_does_not_make_another_endpoint(loop: HandLoop) -> None:
    with bound(socket.AF_INET, loop) as (udp, (_, port)), stranger(socket.AF_INET) as other:
        other.sendto(b"one", ("127.0.0.1", port))
        first = receive_one(udp, loop)[1]
        other.sendto(b"two", ("127.0.0.2", port))
        second = receive_one(udp, loop)[1]
        assert first == second
        assert hash(first) == hash(second)
        assert first == udp.endpoint(("127.0.0.1", other.getsockname()[1]))


@both_versions
def test_two_senders_are_two_endpoints_and_one_sender_is_one(loop: HandLoop, family: int) -> None:
    with bound(family, loop) as (udp, address), stranger(family) as one, stranger(family) as two:
        seen = []
        for sender in (one, two, one):
            sender.sendto(b"x", address)
            seen.append(receive_one(udp, loop)[1])
        assert seen[0] == seen[2] != seen[1]


LOST: dict[int, tuple[int, int, bytes]] = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4x", 0, socket.inet_aton("192.0.2.77"))),
    socket.AF_INET6: (
        socket.IPPROTO_IPV6,
        IPV6_PKTINFO,
        socket.inet_pton(socket.AF_INET6, "2001:db8::77") + bytes(4),
    ),
}


@both_versions
@pytest.mark.parametrize("segment", [0, 1300])
def test_a_source_address_that_this_host_has_lost_is_left_out_and_forgotten(
    loop: HandLoop, family: int, segment: int
) -> None:
    with bound(family, loop) as (udp, _), stranger(family) as other:
        other.bind((LOCALHOST[family], 0))
        endpoint = udp.endpoint(other.getsockname(), (LOST[family],))
        outcomes = [endpoint.send([memoryview(bytes([each]) * 2000)], segment) for each in range(2)]
        assert outcomes == [Outcome.REROUTED, Outcome.SENT]
        wanted = [bytes([each]) * size for each in range(2) for size in ([1300, 700] if segment else [2000])]
        assert [other.recv(5000) for _ in wanted] == wanted
        assert not endpoint.local
        assert udp.endpoint(other.getsockname(), (LOST[family],)) is not endpoint, "it may come back"


@pytest.mark.parametrize("source", ["127.0.0.2", "127.9.8.7", ""])
def test_an_endpoint_sends_from_the_address_that_it_is_told_and_stays_the_same(loop: HandLoop, source: str) -> None:
    with bound(socket.AF_INET, loop) as (udp, _), stranger(socket.AF_INET) as other:
        other.bind(("127.0.0.1", 0))
        endpoint = udp.endpoint(other.getsockname())
        endpoint.send_from(socket.inet_aton("127.3.3.3"))
        endpoint.send_from(socket.inet_aton(source) if source else b"")
        for port in range(1, 1100):  # as many strangers as are remembered
            udp.endpoint(("192.0.2.2", port))
        assert (udp.endpoint(other.getsockname()) is endpoint) == bool(source)
        assert endpoint.send([memoryview(b"x")]) is Outcome.SENT
        assert other.recvfrom(10)[1][0] == (source or "127.0.0.1")
        assert endpoint.flow.source == (socket.inet_aton(source) if source else b"")


@both_versions
def test_an_endpoint_has_the_address_and_port_that_a_cookie_is_made_for_and_the_socket_it_holds_for(
    loop: HandLoop, family: int
) -> None:
    with bound(family, loop) as (udp, _), stranger(family) as other:
        other.bind((LOCALHOST[family], 0))
        address = other.getsockname()
        endpoint = udp.endpoint(address)
        assert endpoint.origin == socket.inet_pton(family, address[0]) + address[1].to_bytes(2, "big")
        assert endpoint.via == udp.endpoint((LOCALHOST[family], 1)).via
        assert endpoint.is_open
        with bound(family, loop) as (another, _):
            assert another.endpoint(address).via != endpoint.via


def test_what_a_cookie_is_kept_by_does_not_keep_a_closed_socket_in_memory(loop: HandLoop) -> None:
    udp = UdpSocket(socket.AF_INET, 0, loop, answers_from_where_asked=False)
    via, alive = udp.endpoint(("127.0.0.1", 1)).via, weakref.ref(udp)
    udp.close()
    del udp
    gc.collect()
    assert alive() is None
    with bound(socket.AF_INET, loop) as (another, _):
        assert another.endpoint(("127.0.0.1", 1)).via != via


def test_a_remembered_address_is_forgotten_until_a_datagram_arrives_there_again(loop: HandLoop) -> None:
    with bound(socket.AF_INET, loop) as (udp, (_, port)), stranger(socket.AF_INET) as other:
        for _ in range(2):
            other.sendto(b"x", ("127.0.0.5", port))
            _, endpoint = receive_one(udp, loop)
            assert endpoint.flow.source == socket.inet_aton("127.0.0.5")
            endpoint.send_from(b"")
            endpoint.send([memoryview(b"y")])
            assert other.recvfrom(10)[1][0] == "127.0.0.1"


@pytest.mark.parametrize(("size", "outcome"), [(100, Outcome.UNDELIVERABLE), (65508, Outcome.TOO_BIG)])
def test_a_source_address_is_kept_if_the_datagram_is_refused_for_another_reason(
    loop: HandLoop, size: int, outcome: Outcome
) -> None:
    with bound(socket.AF_INET, loop) as (udp, _):
        local = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4x", 0, socket.inet_aton("127.0.0.1")))
        endpoint = udp.endpoint(("127.0.0.1", 0 if size == 100 else 9), (local,))
        assert endpoint.send([memoryview(bytes(size))]) is outcome
        assert endpoint.local == (local,)


class RefusingSegments:
    """A socket of a kernel that answers EINVAL where datagrams of UDP_SEGMENT are longer than the path's MTU."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def sendmsg(self, buffers: list[memoryview], ancillary: list[tuple[int, int, bytes]], *rest: Any) -> int:
        if any(kind == UDP_SEGMENT for _, kind, _ in ancillary):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self._real.sendmsg(buffers, ancillary, *rest)


def test_a_source_address_is_kept_if_only_the_segments_are_too_long(loop: HandLoop) -> None:
    with bound(socket.AF_INET, loop) as (udp, _), stranger(socket.AF_INET) as other:
        other.bind(("127.0.0.1", 0))
        udp._socket = cast("socket.socket", RefusingSegments(udp._socket))
        local = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4x", 0, socket.inet_aton("127.0.0.7")))
        endpoint = udp.endpoint(other.getsockname(), (local,))
        assert endpoint.send([memoryview(bytes(2000))], 1300, dont_fragment=False) is Outcome.SENT
        assert endpoint.local == (local,)
        assert [other.recvfrom(5000)[1][0] for _ in range(2)] == ["127.0.0.7"] * 2


@pytest.mark.parametrize("address", [("255.255.255.255", 9), ("127.0.0.1", 0)])
def test_a_datagram_that_this_host_cannot_send_is_reported_and_the_next_one_is_sent(
    loop: HandLoop, address: tuple[str, int]
) -> None:
    with bound(socket.AF_INET, loop) as (udp, _), stranger(socket.AF_INET) as other:
        assert udp.endpoint(address).send([memoryview(b"lost")]) is Outcome.UNDELIVERABLE
        assert udp.endpoint(address).ready()
        other.bind(("127.0.0.1", 0))
        assert udp.endpoint(other.getsockname()).send([memoryview(b"next")]) is Outcome.SENT
        assert other.recv(100) == b"next"


def test_a_message_that_is_too_large_for_a_datagram_is_reported(loop: HandLoop) -> None:
    with bound(socket.AF_INET, loop) as (udp, address):
        for dont_fragment, outcome in ((True, Outcome.TOO_BIG), (False, Outcome.UNDELIVERABLE)):
            assert udp.endpoint(address).send([memoryview(bytes(65508))], dont_fragment=dont_fragment) is outcome
        assert udp.endpoint(address).send([memoryview(bytes(65507))]) is Outcome.SENT


@both_versions
def test_sending_to_a_port_without_a_listener_is_not_an_error(loop: HandLoop, family: int) -> None:
    with bound(family, loop) as (udp, address), stranger(family) as other:
        nobody = udp.endpoint((LOCALHOST[family], free_port(family)))
        for _ in range(5):
            assert nobody.send([memoryview(b"anybody?")]) is Outcome.SENT
            loop.poll()
            assert list(udp.receive()) == []
        other.sendto(b"here", address)
        assert receive_one(udp, loop)[0] == b"here"


def test_one_turn_reads_a_bounded_number_of_datagrams(loop: HandLoop) -> None:
    with bound(socket.AF_INET, loop) as (udp, address), stranger(socket.AF_INET) as other:
        for _ in range(150):
            other.sendto(b"x", address)
        first = len(list(udp.receive()))
        assert 0 < first < 150
        rest = 0
        while taken := len(list(udp.receive())):
            rest += taken
        assert first + rest == 150


def test_endpoints_of_many_strangers_take_bounded_memory(loop: HandLoop) -> None:
    with bound(socket.AF_INET, loop) as (udp, _):
        endpoint = udp.endpoint(("192.0.2.1", 1))
        for port in range(1, 5000):
            udp.endpoint(("192.0.2.2", port))
        assert udp.endpoint(("192.0.2.1", 1)) == endpoint
        assert udp.endpoint(("192.0.2.1", 1)) is not endpoint


def test_an_endpoint_prints_as_an_operator_writes_it(loop: HandLoop) -> None:
    with bound(socket.AF_INET, loop) as (udp, _):
        assert str(udp.endpoint(("192.0.2.1", 55555))) == "192.0.2.1:55555 over UDP"
        assert udp.endpoint(("192.0.2.1", 55555)).carrier == "udp"
        six = UdpEndpoint(socket.AF_INET6, ("2001:db8::1", 55555, 0, 0), udp)
        assert str(six) == "[2001:db8::1]:55555 over UDP"


@both_versions
def test_a_port_in_use_raises_port_in_use_and_leaves_no_descriptor(loop: HandLoop, family: int) -> None:
    with bound(family, loop) as (_, (_, port)):
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(PortInUse, match=f"UDP port {port} is in use"):
            UdpSocket(family, port, loop, answers_from_where_asked=True)
        assert len(os.listdir("/proc/self/fd")) == before


def test_the_two_ip_versions_share_a_port(loop: HandLoop) -> None:
    free_port(socket.AF_INET6)
    port = free_port(socket.AF_INET)
    with bound(socket.AF_INET, loop, port) as (four, _), bound(socket.AF_INET6, loop, port) as (six, _):
        for udp in (four, six):
            with socket.socket(fileno=os.dup(udp.fileno())) as same:
                assert same.getsockname()[1] == port


@both_versions
def test_a_tcp_port_in_use_raises_port_in_use(family: int) -> None:
    port = free_port(family, socket.SOCK_STREAM)
    listener = TcpListener(family, port)
    try:
        with pytest.raises(PortInUse, match=f"TCP port {port} is in use"):
            TcpListener(family, port)
    finally:
        listener.close()


HELD = """
from vpntun.core.endpoint import Outcome
from vpntun.carriers.udp_socket import UdpSocket

ip("link", "add", "near", "type", "veth", "peer", "name", "far")
ip("address", "add", "192.0.2.1/24", "dev", "near")
ip("link", "set", "near", "up")
ip("link", "set", "far", "up")

udp = UdpSocket(socket.AF_INET, 4242, loop, answers_from_where_asked=False)
with socket.socket(fileno=os.dup(udp.fileno())) as same:
    same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
woken, outcomes = [], []
late = lambda endpoint, *outcome: outcomes.append(outcome)
loop.watch(udp.fileno(), lambda: list(udp.receive()), lambda: udp.flush(late) and woken.append(True))
silent = udp.endpoint(("192.0.2.9", 1))  # nobody answers ARP: datagrams wait in the kernel
sent = 0
while silent.send([memoryview(b"%4d" % sent + bytes(1000))]) is Outcome.SENT:
    sent += 1
    assert sent < 100
assert not silent.ready()
loop.poll()
assert not woken and udp.held

watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
watch.bind(("far", 0x0800))
watch.settimeout(5)
ip("neighbour", "replace", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "near")
loop.until(lambda: woken, "for room in the socket")
assert silent.ready()
got = [int(watch.recv(2000)[28:32]) for _ in range(sent + 1)]
assert got == list(range(sent + 1)), got
assert not outcomes
calls = len(woken)
loop.settle()
assert len(woken) == calls, "the loop spins"

def hold():
    ip("neighbour", "del", "192.0.2.9", "dev", "near")
    for number in range(100):
        if silent.send([memoryview(bytes(1000))]) is not Outcome.SENT:
            return
    assert False, "there is always room"

def release():
    del woken[:], outcomes[:]
    ip("neighbour", "replace", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "near")
    loop.until(lambda: woken, "for room in the socket")
    return outcomes

hold()
ip("link", "set", "near", "mtu", "700")
assert release() == [(Outcome.TOO_BIG, 1, 1000)], outcomes
ip("link", "set", "near", "mtu", "1500")
hold()
ip("route", "add", "blackhole", "192.0.2.9")
assert release() == [(Outcome.UNDELIVERABLE, 1, 1000)], outcomes
ip("route", "del", "blackhole", "192.0.2.9")

ip("address", "del", "192.0.2.1/24", "dev", "near")
assert udp.endpoint(("198.51.100.1", 1)).send([memoryview(b"x")]) is Outcome.UNDELIVERABLE
print("done")
"""


def test_a_datagram_without_room_in_the_kernel_is_held_and_sent_first_later() -> None:
    run_in_own_network(HELD)
