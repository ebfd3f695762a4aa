"""Loop guard: no endpoint is inside the tunnel, few questions to the kernel, and own packets are dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

import pytest

from tests.datapath.ends import ALICE, BOB, CAROL, End, Wire, sealed
from tests.machine import HandLoop, logged
from tests.wire.packets import A4, B4, B6, payload, tcp, udp, udp_run, udp_superpacket
from vpntun.carriers.fake import FakeEndpoint
from vpntun.core.endpoint import Endpoint, Flow
from vpntun.datapath.routing.loopguard import (
    QUESTIONS_AT_ONCE,
    QUESTIONS_PER_SECOND,
    SECONDS_AN_ANSWER_SERVES,
    LoopGuard,
)
from vpntun.runtime.log import NOTICE
from vpntun.wire.checksum import TCP, UDP
from vpntun.wire.record import Hello, Probe

OWN_PORT, PORT, TCP_PORT = 40000, 53, 5201
"""The ports of the packets that the tests make."""


def at(address: str | bytes, protocol: int = UDP, port: int = PORT) -> FakeEndpoint:
    """Return an endpoint at an address."""
    path = FakeEndpoint(str(ip_address(address)), "tcp" if protocol == TCP else "udp")
    path.flow = Flow(protocol, b"", OWN_PORT, ip_address(address).packed, port)
    return path


class Kernel:
    """A fake kernel that answers questions. `inside`: the addresses that it routes into the device."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self.asked: list[str] = []

    def leads_inside(self, flow: Flow) -> bool:
        address = str(ip_address(flow.destination))
        self.asked.append(address)
        return address in self.inside


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def alice(loop: HandLoop) -> Iterator[End]:
    made = End(ALICE, loop)
    made.know(BOB.public, ["10.0.0.0/8", "fd00::/8"])
    yield made
    made.close()


@pytest.fixture
def guard(alice: End, kernel: Kernel) -> LoopGuard:
    return LoopGuard(alice.loop, alice.routes.covers, kernel.leads_inside, alice.routes.empty_caches)


@pytest.fixture
def may_be_at(guard: LoopGuard) -> Callable[[Endpoint], bool]:
    return guard.for_a_peer()


# Refused endpoints


def test_the_kernel_is_not_asked_about_an_address_that_no_allowed_ip_covers(
    kernel: Kernel, may_be_at: Callable[[Endpoint], bool]
) -> None:
    kernel.inside = {"192.0.2.1", "2001:db8::1"}
    assert may_be_at(at("192.0.2.1"))
    assert may_be_at(at("2001:db8::1"))
    assert kernel.asked == []


@pytest.mark.parametrize("protocol", [UDP, TCP])
@pytest.mark.parametrize("address", ["10.66.1.1", "fd09::3"])
def test_a_covered_address_is_refused_if_its_route_leads_inside_and_taken_if_not(
    kernel: Kernel, may_be_at: Callable[[Endpoint], bool], address: str, protocol: int
) -> None:
    kernel.inside = {address}
    assert not may_be_at(at(address, protocol))
    kernel.inside = set()
    assert may_be_at(at(address, protocol, port=PORT + 1))


def test_an_answer_is_used_for_two_seconds(kernel: Kernel, alice: End, may_be_at: Callable[[Endpoint], bool]) -> None:
    kernel.inside = {"10.66.1.1"}
    for _ in range(100):
        assert not may_be_at(at("10.66.1.1"))
    assert kernel.asked == ["10.66.1.1"]
    kernel.inside = set()
    alice.loop.pass_time(SECONDS_AN_ANSWER_SERVES)
    assert may_be_at(at("10.66.1.1"))


def test_a_peer_that_keeps_moving_is_refused_and_others_are_not(
    kernel: Kernel, alice: End, guard: LoopGuard, may_be_at: Callable[[Endpoint], bool]
) -> None:
    hops = [at(f"10.66.{number >> 8}.{number & 255}") for number in range(2000)]
    assert sum(map(may_be_at, hops)) == QUESTIONS_AT_ONCE == len(kernel.asked)
    assert may_be_at(hops[0])  # known still
    assert not may_be_at(hops[-1])
    assert guard.for_a_peer()(hops[-1])
    alice.loop.pass_time(1)
    assert sum(map(may_be_at, hops[1000:1900])) == QUESTIONS_PER_SECOND


def test_questions_about_configured_addresses_are_not_limited(kernel: Kernel, guard: LoopGuard) -> None:
    kernel.inside = {"192.0.2.7"}
    refused = [number for number in range(100) if guard.refuses(at(f"192.0.2.{number}"))]
    assert refused == [7]


def test_one_log_line_says_what_to_do(kernel: Kernel, guard: LoopGuard) -> None:
    kernel.inside = {"10.66.1.1", "10.66.1.2"}
    with logged(NOTICE) as lines:
        for number in (1, 2):
            guard.refuses(at(f"10.66.1.{number}"))
    [line] = lines
    assert line.startswith("the route to 10.66.1.1 leads into the tunnel itself")
    assert "AllowedIPs" in line


def test_a_peer_at_an_inside_address_does_not_suppress_log_lines_about_another(
    kernel: Kernel, guard: LoopGuard
) -> None:
    kernel.inside = {"10.66.1.1", "10.66.1.2"}
    hostile, other = guard.for_a_peer(), guard.for_a_peer()
    with logged(NOTICE) as lines:
        for _ in range(20):
            hostile(at("10.66.1.1"))
        other(at("10.66.1.2"))
        guard.refuses(at("10.66.1.2"))
    assert [line.split()[3] for line in lines] == ["10.66.1.1", "10.66.1.2", "10.66.1.2"]


@pytest.mark.parametrize("record", [Probe(7).pack(), Hello(seen_yours=False, takes=0).pack()])
def test_no_reply_is_sent_to_an_address_inside(loop: HandLoop, record: bytes) -> None:
    alice, bob = End(ALICE, loop), End(BOB, loop)
    link, _ = alice.know(BOB.public), bob.know(ALICE.public)
    wire = Wire(alice, bob)
    wire.shake_hands()
    inside = at("10.66.1.1")
    bob.inside.add(ip_address("10.66.1.1").packed)
    bob.take(sealed(link, record), inside)
    assert (inside.sent, inside.urgent) == ([], [])
    assert bob.link.peer.endpoint is wire.to_left
    elsewhere = at("10.66.1.2")
    bob.take(sealed(link, Probe(8).pack()), elsewhere)
    assert len(elsewhere.sent) == 1
    for end in (alice, bob):
        end.close()


# Dropped packets


def move_to(end: End, path: FakeEndpoint | None) -> None:
    """Move the only peer to this endpoint."""
    end.link.peer.endpoint = path
    end.guard.follow(end.link)


@pytest.fixture
def everywhere(loop: HandLoop) -> Iterator[End]:
    """A machine with one peer, which is allowed all addresses and has no session, so that packets to it wait."""
    made = End(ALICE, loop)
    made.know(BOB.public)
    yield made
    made.close()


def waiting(end: End) -> int:
    return len(end.link.queue)


@pytest.mark.parametrize("version", [4, 6])
def test_own_datagrams_are_dropped_and_other_packets_to_the_same_address_are_not(everywhere: End, version: int) -> None:
    there = B4 if version == 4 else B6
    move_to(everywhere, at(there))
    everywhere.send(udp(version, b"own"), (udp_superpacket(version, payload(9000)), 1000))
    assert everywhere.drops == {"routing loop": 2}
    everywhere.send(udp(version, b"x", port=PORT + 1), tcp(version, b"x"))
    assert waiting(everywhere) == 2
    assert everywhere.drops == {"routing loop": 2}


@pytest.mark.parametrize("version", [4, 6])
def test_own_tcp_segments_are_dropped(everywhere: End, version: int) -> None:
    move_to(everywhere, at(B4 if version == 4 else B6, TCP, TCP_PORT))
    everywhere.send(tcp(version, b"own"), udp(version, b"x"))
    assert everywhere.drops == {"routing loop": 1}
    assert waiting(everywhere) == 1


def test_a_flow_of_own_datagrams_is_dropped_in_the_middle_of_another_flow(everywhere: End) -> None:
    move_to(everywhere, at(B4))
    own = [(each, 0) for each in udp_run(4, payload(3000), 1000)]
    other = [(each.replace(B4, A4), 0) for each in udp_run(4, payload(3000), 1000)]
    everywhere.send(*(each for both in zip(own, other, strict=True) for each in both))
    assert everywhere.drops == {"routing loop": 3}
    assert waiting(everywhere) == 3


def test_all_fragments_of_an_own_datagram_are_dropped_and_those_of_others_are_not(everywhere: End) -> None:
    move_to(everywhere, at(B4))

    def fragments(identification: int, port: int) -> list[bytes]:
        whole = udp(4, payload(1600), identification=identification, port=port, df=False)
        first, rest = bytearray(whole[:1020]), bytearray(whole[:20] + whole[1020:])
        for piece, flags in ((first, 0x2000), (rest, 125)):
            piece[2:4], piece[6:8] = len(piece).to_bytes(2, "big"), flags.to_bytes(2, "big")
        return [bytes(first), bytes(rest)]

    everywhere.send(*fragments(7, PORT), *fragments(8, PORT + 1), *fragments(9, PORT))
    assert everywhere.drops == {"routing loop": 4}
    assert waiting(everywhere) == 2


def test_packets_to_a_former_endpoint_are_not_dropped(everywhere: End) -> None:
    move_to(everywhere, at(B4))
    move_to(everywhere, at("198.51.100.7"))
    everywhere.send(udp(4, b"x"))
    move_to(everywhere, None)
    assert everywhere.guard.endpoints == {}
    everywhere.send(udp(4, b"x"))
    assert not everywhere.drops
    assert waiting(everywhere) == 2


def test_an_endpoint_of_two_peers_is_watched_until_both_are_forgotten(everywhere: End) -> None:
    other = everywhere.know(CAROL.public, [])
    for link in everywhere.links.values():
        link.peer.endpoint = at(B4)
        everywhere.guard.follow(link)
    everywhere.guard.forget(other)
    everywhere.send(udp(4, b"x"))
    assert everywhere.drops == {"routing loop": 1}


def test_an_endpoint_that_nothing_covers_is_not_watched_until_an_allowed_ip_covers_it(alice: End) -> None:
    move_to(alice, at("192.0.2.1"))
    assert alice.guard.endpoints == {}
    alice.routes.add(ip_network("192.0.2.0/24"), alice.link)
    alice.guard.follow(alice.link)
    assert list(alice.guard.endpoints) == [ip_address("192.0.2.1").packed]
