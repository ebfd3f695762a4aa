"""Server and client on real loopback sockets, connected as by the daemon, except for the device and the clock."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address

import pytest

from tests.carriers.test_udp_socket import free_port
from tests.datapath.ends import ALICE, BOB, PSK, End, RecordedTcp, Stamps, ipv4, sealed
from tests.machine import HandLoop
from tests.wire.packets import tcp_run, tcp_superpacket, udp_run, udp_superpacket
from vpntun.carriers.base import Carrier
from vpntun.carriers.udp import UdpCarrier
from vpntun.core.events import HandshakeWanted
from vpntun.core.selection.client import ClientCarriers
from vpntun.core.wireguard.peer import Peer
from vpntun.errors import CannotTry
from vpntun.link.client_link import ClientLink
from vpntun.runtime.resolver import Found, Lookups, Resolver
from vpntun.types import CarrierName, Transport
from vpntun.wire.stream_framing import prefix

HERE, THERE = "10.0.0.1", "10.0.0.2"
LOCALHOST: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


class Server(End):
    """Bob, who waits for Alice on the given carriers."""

    def __init__(
        self,
        loop: HandLoop,
        family: int,
        port: int,
        *,
        udp: bool = True,
        tcp: bool = True,
        knows_vpntun: bool = False,
    ) -> None:
        self.udp = UdpCarrier(loop, port, answers_from_where_asked=True, versions=[family] if udp else ())
        self.tcp = RecordedTcp(loop, port if tcp else None, versions=[family])
        carriers: dict[CarrierName, Carrier] = {"udp": self.udp, "tcp": self.tcp}
        super().__init__(BOB, loop, knows_vpntun=knows_vpntun, carriers=carriers)
        self.port = port
        self.know(ALICE.public)

    def open_udp(self, family: int, port: int) -> None:
        self.udp.close()
        self.udp = UdpCarrier(self.loop, port, answers_from_where_asked=True, versions=[family])
        self.udp.start(self.engine)

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()
        super().close()


class Client(End):
    """Alice, who calls Bob at an address."""

    def __init__(
        self, loop: HandLoop, family: int, port: int, transport: Transport, *, knows_vpntun: bool = False
    ) -> None:
        self.udp = UdpCarrier(loop, 0, answers_from_where_asked=False, versions=[family])
        self.tcp = RecordedTcp(loop, None)
        carriers: dict[CarrierName, Carrier] = {"udp": self.udp, "tcp": self.tcp}
        super().__init__(ALICE, loop, stamps=Stamps(), knows_vpntun=knows_vpntun, carriers=carriers)
        rng = random.Random(3)
        peer = Peer(ALICE, BOB.public, PSK, self.node.indices, Stamps(), rng, keepalive=25.0, chooses_carrier=True)
        self.node.add(peer)
        self.lookups = Lookups(loop)
        resolver = Resolver(self.lookups, LOCALHOST[family], port, self._resolved)
        selector = ClientCarriers(peer, transport, rng)
        self.calling = ClientLink(self.engine, peer, selector, self.records(), resolver)
        self.add(self.calling)

    def _resolved(self, found: Found) -> None:
        candidates = [self.engine.candidate(address) for _, address in found]
        self.calling.resolved([each for each in candidates if each is not None])

    @property
    def carrier(self) -> str | None:
        endpoint = self.calling.peer.endpoint
        return endpoint.carrier if endpoint is not None else None

    def close(self) -> None:
        self.calling.stop()
        self.udp.close()
        self.lookups.close()
        super().close()


@contextmanager
def meeting(
    loop: HandLoop,
    family: int,
    transport: Transport,
    *,
    udp: bool = True,
    tcp: bool = True,
    knows_vpntun: bool = False,
) -> Iterator[tuple[Client, Server]]:
    port = free_port(family)
    server = Server(loop, family, port, udp=udp, tcp=tcp, knows_vpntun=knows_vpntun)
    client = Client(loop, family, port, transport, knows_vpntun=knows_vpntun)
    loop.deadline = lambda: min(client.calling.deadline, server.link.deadline)

    def on_deadline() -> None:
        client.calling.handle_deadline()
        server.link.handle_deadline()

    loop.on_deadline = on_deadline
    try:
        yield client, server
    finally:
        loop.deadline = lambda: float("inf")
        client.close()
        server.close()


def exchange(client: Client, server: Server, count: int = 10) -> None:
    """Check that packets in both directions arrive in order."""
    there = [ipv4(HERE, THERE, b"there %d" % number) for number in range(count)]
    back = [ipv4(THERE, HERE, b"back %d" % number) for number in range(count)]
    server.device.packets.clear()
    client.device.packets.clear()
    client.send(*there)
    client.loop.until(lambda: len(server.device.packets) == count, "for the packets there")
    server.send(*back)
    client.loop.until(lambda: len(client.device.packets) == count, "for the packets back")
    assert server.device.packets == there
    assert client.device.packets == back


both_versions = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])


@both_versions
@pytest.mark.parametrize("transport", ["auto", "udp", "tcp"])
def test_a_client_shakes_hands_at_the_start_and_packets_flow(loop: HandLoop, family: int, transport: Transport) -> None:
    with meeting(loop, family, transport) as (client, server):
        client.calling.start()
        loop.until(lambda: client.carrier)
        assert client.carrier == ("tcp" if transport == "tcp" else "udp")
        exchange(client, server)
        assert not client.drops
        assert not server.drops


@both_versions
@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("waits_for_hello", [False, True], ids=["", "for the HELLO"])
def test_superpackets_arrive_as_the_packets_that_they_are_made_of(
    loop: HandLoop, family: int, transport: Transport, waits_for_hello: bool
) -> None:
    with meeting(loop, family, transport, knows_vpntun=waits_for_hello) as (client, server):
        client.calling.start()
        loop.until(lambda: client.carrier)
        for number in range(20):
            data = bytes([number]) * (3000 * (number + 1))
            superpackets = (tcp_superpacket(4, data), 1448), (udp_superpacket(6, data), 1200)
            expected = [*tcp_run(4, data, 1448), *udp_run(6, data, 1200)]
            client.send(*superpackets)
            server.send(*superpackets)
            for end in (server, client):
                loop.until(lambda: len(end.device.arrived) >= len(expected), "for the packets")  # noqa: B023
                assert end.device.arrived == expected
                end.device.clear()
        assert not client.drops
        assert not server.drops


def test_tcp_is_tried_beside_udp_after_two_seconds_without_an_answer(loop: HandLoop) -> None:
    with meeting(loop, socket.AF_INET, "auto", udp=False) as (client, server):
        client.calling.start()
        client.send(ipv4(HERE, THERE, b"staged"))
        loop.settle()
        assert client.carrier is None
        assert client.tcp.connections == []
        loop.pass_time(2.1)
        loop.until(lambda: client.carrier == "tcp")
        loop.until(lambda: server.device.packets)
        assert server.device.packets == [ipv4(HERE, THERE, b"staged")]
        exchange(client, server)


def test_packets_flow_again_after_the_connection_was_cut(loop: HandLoop) -> None:
    with meeting(loop, socket.AF_INET, "tcp") as (client, server):
        client.calling.start()
        loop.until(lambda: client.carrier == "tcp")
        exchange(client, server)
        loop.pass_time(1.0)
        server.tcp.connections[0].close()
        loop.until(lambda: len(client.tcp.connections) == 2, "for a new connection")
        loop.until(lambda: client.carrier == "tcp" and server.link.peer.endpoint is not None)
        exchange(client, server)
        assert client.drops["undeliverable"] == 0


def test_a_stream_of_packets_over_tcp_arrives_whole_and_in_order(loop: HandLoop) -> None:
    with meeting(loop, socket.AF_INET, "tcp") as (client, server):
        client.calling.start()
        loop.until(lambda: client.carrier == "tcp")
        packets = [ipv4(HERE, THERE, b"%06d" % number * 200) for number in range(1000)]
        for start in range(0, len(packets), 50):
            client.send(*packets[start : start + 50])
            loop.until(lambda: len(server.device.packets) >= start + 50)  # noqa: B023
        assert server.device.packets == packets


def test_a_client_that_is_back_on_udp_closes_the_connection(loop: HandLoop) -> None:
    with meeting(loop, socket.AF_INET, "auto", udp=False) as (client, server):
        client.calling.start()
        loop.pass_time(2.1)
        loop.until(lambda: client.carrier == "tcp")
        server.open_udp(socket.AF_INET, server.port)
        for _ in range(10):
            loop.pass_time(5.0)
            loop.settle(0.02)
        loop.until(lambda: client.carrier == "udp", "for the way back to UDP")
        exchange(client, server)
        loop.pass_time(2.5)
        loop.until(lambda: client.tcp.connections[0].fileno() < 0, "for the connection to close")
        exchange(client, server)


def test_without_an_answer_from_the_peer_nothing_is_raised(loop: HandLoop) -> None:
    with meeting(loop, socket.AF_INET, "auto", udp=False, tcp=False) as (client, server):
        client.calling.start()
        for _ in range(30):
            loop.pass_time(5.0)
            loop.settle(0.01)
        assert client.carrier is None
        assert server.device.packets == []


@pytest.mark.parametrize("junk", [b"\x00\x20" + bytes(32), b"\x00\x94\x01" + bytes(147), bytes(64)])
def test_a_stranger_on_tcp_gets_no_reply_and_the_peer_is_not_disturbed(loop: HandLoop, junk: bytes) -> None:
    with meeting(loop, socket.AF_INET, "tcp") as (client, server), socket.socket() as stranger:
        client.calling.start()
        loop.until(lambda: client.carrier == "tcp")
        stranger.connect(("127.0.0.1", server.port))
        stranger.sendall(junk)
        loop.until(lambda: len(server.tcp.connections) == 2)
        loop.settle()
        exchange(client, server)
        loop.pass_time(10.1)
        stranger.settimeout(5)
        with suppress(ConnectionError):
            assert stranger.recv(1) == b""
        exchange(client, server)
        assert sum(server.drops.values()) >= 1


def test_a_full_packet_of_a_live_session_authenticates_a_new_connection(loop: HandLoop) -> None:
    # A relay before a plain WireGuard has connected again in mid-session, and this happens to come first.
    packet = ipv4(HERE, THERE, bytes(1372))
    with meeting(loop, socket.AF_INET, "tcp") as (client, server), socket.socket() as relay:
        client.calling.start()
        loop.until(lambda: client.carrier == "tcp")
        message = sealed(client.link, packet)
        relay.connect(("127.0.0.1", server.port))
        relay.sendall(prefix(len(message)) + message)
        loop.until(lambda: server.device.packets == [packet])
        assert server.tcp.connections[1].is_endpoint
        assert not server.drops


@pytest.mark.parametrize("fault", ["replayed", "of no session"])
def test_a_full_packet_that_fits_no_live_session_closes_the_connection(loop: HandLoop, fault: str) -> None:
    with meeting(loop, socket.AF_INET, "tcp") as (client, server), socket.socket() as stranger:
        client.calling.start()
        loop.until(lambda: client.carrier == "tcp")
        exchange(client, server)
        counter = 0 if fault == "replayed" else 10_000
        index = client.link.peer.keys.current.remote_index ^ (fault != "replayed")  # type: ignore[union-attr]
        stranger.connect(("127.0.0.1", server.port))
        stranger.sendall(prefix(1452) + struct.pack("<IIQ", 4, index, counter) + bytes(1436))
        loop.until(lambda: server.drops["bad frame length"])
        assert server.tcp.connections[1].fileno() < 0
        exchange(client, server)


def test_a_client_whose_port_is_spoilt_calls_from_a_fresh_one_and_its_own_packets_are_still_known(
    loop: HandLoop,
) -> None:
    with meeting(loop, socket.AF_INET, "udp") as (client, server):
        client.calling.start()
        loop.until(lambda: client.calling.peer.sending_session(loop.now), "for the first session")
        spoilt = client.udp.sockets[socket.AF_INET].port
        receive = server.udp.sockets[socket.AF_INET].receive
        server.udp.sockets[socket.AF_INET].receive = lambda: (
            each for each in receive() if each[3].address[1] != spoilt
        )
        session = client.calling.peer.keys.current
        client.calling.act([HandshakeWanted()])

        def is_back() -> bool:
            loop.pass_time(0.5)
            loop.settle(0.01)
            return client.calling.peer.keys.current is not session

        loop.until(is_back, "for a session from another port")
        fresh = client.udp.sockets[socket.AF_INET].port
        assert client.calling.peer.endpoint is not None
        assert client.calling.peer.endpoint.flow.source_port == fresh != spoilt
        packet = ipv4(HERE, THERE, b"hello")
        client.send(packet)
        loop.until(lambda: packet in server.device.packets, "for a packet from the fresh port")
        assert client.guard.endpoints[ip_address("127.0.0.1").packed] == [client.calling.peer.endpoint.flow.ports]


# Trials of the carrier that is not in use.


def traffic(client: Client, server: Server) -> None:
    """Send a packet each way, so that both ends know that the other takes records."""
    for end, source, target in ((client, HERE, THERE), (server, THERE, HERE)):
        end.send(ipv4(source, target))
    client.loop.until(lambda: server.device.arrived and client.device.arrived)


def drive(client: Client) -> None:
    """Have the link's deadlines observed, as the schedule does."""
    client.loop.deadline = lambda: client.calling.deadline
    client.loop.on_deadline = client.calling.handle_deadline


def test_tcp_is_tried_while_udp_is_used_and_neither_end_moves(loop: HandLoop) -> None:
    with meeting(loop, socket.AF_INET, "auto", knows_vpntun=True) as (client, server):
        traffic(client, server)
        endpoints = client.calling.endpoint, server.link.endpoint
        trial = client.calling.try_other_carrier()
        loop.until(lambda: trial.outcome is not None)
        assert f"{trial.carrier} beside {trial.used}: {trial.outcome}" == "tcp beside udp: answered"
        assert (client.calling.endpoint, server.link.endpoint) == endpoints
        (accepted,) = server.tcp.connections
        loop.until(lambda: not accepted.is_open)
        assert (client.drops, server.drops) == ({}, {})
        client.send(ipv4(HERE, THERE, b"after"))
        loop.until(lambda: len(server.device.arrived) == 2)


def test_another_request_gets_the_same_trial_for_ten_seconds(loop: HandLoop) -> None:
    with meeting(loop, socket.AF_INET, "auto", tcp=False, knows_vpntun=True) as (client, server):
        traffic(client, server)
        trial = client.calling.try_other_carrier()
        assert client.calling.try_other_carrier() is trial
        loop.until(lambda: trial.outcome == "refused")
        loop.pass_time(9.9)
        assert client.calling.try_other_carrier() is trial
        loop.pass_time(0.1)
        assert client.calling.try_other_carrier() is not trial


def test_udp_that_answers_a_trial_takes_the_link_back(loop: HandLoop) -> None:
    with meeting(loop, socket.AF_INET, "auto", udp=False, knows_vpntun=True) as (client, server):
        client.calling.start()
        loop.pass_time(2.1)
        traffic(client, server)
        assert client.carrier == "tcp"
        silent = client.calling.try_other_carrier()
        for _ in range(5):
            loop.pass_time(1.0)
        assert (silent.outcome, client.carrier) == ("silent", "tcp")
        server.open_udp(socket.AF_INET, server.port)
        loop.pass_time(5.0)
        trial = client.calling.try_other_carrier()
        loop.until(lambda: client.carrier == "udp")
        loop.until(lambda: server.link.endpoint is not None and server.link.endpoint.carrier == "udp")
        assert trial.outcome == "answered"


@pytest.mark.parametrize(
    ("transport", "plain", "reason"),
    [("udp", False, "uses UDP alone"), ("tcp", False, "uses TCP alone"), ("auto", True, "no vpntun")],
)
def test_nothing_is_tried_where_there_is_nothing_to_try(
    loop: HandLoop, transport: Transport, plain: bool, reason: str
) -> None:
    with meeting(loop, socket.AF_INET, transport) as (client, server):
        traffic(client, server)
        if plain:
            client.calling.records.takes_records = lambda session, now: False  # type: ignore[method-assign]
        with pytest.raises(CannotTry, match=reason):
            client.calling.try_other_carrier()
        assert client.calling.trial is None


def test_nothing_is_tried_while_the_peer_is_being_looked_for(loop: HandLoop) -> None:
    with meeting(loop, socket.AF_INET, "auto") as (client, server):
        traffic(client, server)
        client.calling.act([HandshakeWanted()])
        with pytest.raises(CannotTry, match="wait until it is connected"):
            client.calling.try_other_carrier()


def test_a_link_that_stops_ends_its_trial_and_closes_the_connection(loop: HandLoop) -> None:
    with meeting(loop, socket.AF_INET, "auto", knows_vpntun=True) as (client, server):
        traffic(client, server)
        client.calling.try_other_carrier()
        loop.until(lambda: client.tcp.connections)
        client.calling.stop()
        assert not client.tcp.connections[0].is_open
