"""Packets from the device that no peer's allowed IPs cover: dropped, counted, and answered by an ICMP error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.ends import ALICE, BOB, CAROL, End, Wire, ipv4, ipv6
from tests.machine import HandLoop
from tests.wire.packets import payload, tcp_superpacket, udp
from vpntun.datapath.routing.outbound import ERRORS_AT_ONCE, ERRORS_PER_SECOND
from vpntun.wire.icmp import UNREACHABLE, error_about
from vpntun.wire.ip import destination_of


@pytest.fixture
def alice(loop: HandLoop) -> Iterator[End]:
    made = End(ALICE, loop)
    made.know(CAROL.public, ["10.0.3.0/24"])
    yield made
    made.close()


@pytest.mark.parametrize("version", [4, 6])
def test_the_sender_gets_an_error_from_the_destination(alice: End, version: int) -> None:
    packet = udp(version, b"anybody there?")
    alice.send(packet)
    assert alice.device.packets == [error_about(packet, UNREACHABLE, destination_of(packet))]
    assert set(alice.device.headers) == {bytes(10)}
    assert alice.drops == {"no route": 1}


def test_the_sender_of_a_superpacket_gets_one_error(alice: End) -> None:
    packet = tcp_superpacket(6, payload(30000))
    alice.send((packet, 1300))
    (told,) = alice.device.packets
    assert len(told) == 1280
    assert packet.startswith(told[48:])


def test_errors_are_sent_at_a_limited_rate(alice: End) -> None:
    alice.send(*[udp(4, b"x")] * 100)
    assert len(alice.device.packets) == ERRORS_AT_ONCE
    alice.loop.clock.now += 1
    alice.send(*[udp(4, b"x")] * 100)
    assert len(alice.device.packets) == ERRORS_AT_ONCE + ERRORS_PER_SECOND
    assert alice.drops == {"no route": 200}


def test_multicast_and_errors_cause_no_error_and_do_not_count_towards_the_limit(alice: End) -> None:
    error = error_about(udp(4, b"x"), UNREACHABLE, udp(4, b"x")[16:20])
    alice.send(*[ipv4("10.0.0.1", "224.0.0.251"), ipv6("fe80::1", "ff02::2"), error] * 50)
    assert alice.device.packets == []
    assert alice.drops == {"no route": 50, "multicast": 100}
    alice.send(*[udp(4, b"x")] * 50)
    assert len(alice.device.packets) == ERRORS_AT_ONCE


def test_packets_with_a_route_are_sent_between_packets_without_one(alice: End) -> None:
    loop = alice.loop
    assert isinstance(loop, HandLoop)
    bob = End(BOB, loop)
    bob.know(ALICE.public)
    alice.know(BOB.public, ["10.0.0.2/32"])
    wire = Wire(alice, bob)
    wire.shake_hands()
    good = ipv4("10.0.0.1", "10.0.0.2", b"good")
    alice.send(good, udp(4, payload(1300)), good, udp(6, payload(1300)), good)
    wire.run()
    assert bob.device.packets == [good] * 3
    bob.close()
