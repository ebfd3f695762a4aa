"""The engine: links come and go, observers hear of it, and candidates that lead into the tunnel are refused."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.datapath.ends import ALICE, BOB, End, Wire, ipv4
from tests.machine import HandLoop, logged
from vpntun.carriers.udp import UdpCarrier
from vpntun.core.records.pathmtu import BASE
from vpntun.datapath.engine import takes_of
from vpntun.link.link import Link
from vpntun.tun.device import TCP_OFFLOADS, UDP_OFFLOADS
from vpntun.tun.fake import FakeDevice
from vpntun.wire import record

PACKET = ipv4("10.0.0.1", "10.0.0.2", b"hello")


class Observer:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def link_moved(self, link: Link) -> None:
        self.heard.append("moved")

    def link_changed(self, link: Link, *, up: bool) -> None:
        self.heard.append("up" if up else "down")

    def states_changed(self, link: Link) -> None:
        """Not of interest here."""


class Two:
    """Alice and Bob; `observer` hears of Bob's link."""

    def __init__(self, loop: HandLoop) -> None:
        self.observer = Observer()
        self.alice, self.bob = End(ALICE, loop), End(BOB, loop, observer=self.observer)
        self.alice.know(BOB.public)
        self.bob.know(ALICE.public)
        self.wire = Wire(self.alice, self.bob)


@pytest.fixture
def two(loop: HandLoop) -> Iterator[Two]:
    made = Two(loop)
    yield made
    made.alice.close()
    made.bob.close()


def test_an_observer_hears_when_a_link_moves_comes_up_and_is_removed(two: Two) -> None:
    two.alice.link.peer.endpoint = two.wire.to_right
    two.wire.shake_hands()
    two.alice.send(PACKET)
    two.wire.run()
    assert two.observer.heard == ["moved", "up"]
    two.bob.engine.remove(two.bob.link)
    assert two.observer.heard == ["moved", "up", "down"]


def test_nothing_leads_to_a_removed_link(two: Two) -> None:
    two.wire.shake_hands()
    two.bob.engine.remove(two.bob.link)
    two.alice.send(PACKET)
    two.wire.run()
    assert two.bob.device.packets == []
    two.bob.send(ipv4("10.0.0.2", "10.0.0.1"))
    assert two.bob.drops["no route"] == 1
    assert two.bob.links == {}


def test_a_changed_mtu_is_followed_by_records_of_all_links(two: Two) -> None:
    two.wire.shake_hands()
    records = two.bob.link.records
    records.refused(BASE, two.bob.link.now)  # IP cuts messages from now on
    former = two.bob.link.room_for_record()
    for mtu, room in ((4000, 4000 + 5), (1420, former)):
        two.bob.device.mtu = mtu
        two.bob.engine.follow_mtu()
        assert records.room == room


def test_a_device_that_was_moved_away_has_the_last_mtu_known(two: Two) -> None:
    two.bob.device.mtu = 1300
    assert two.bob.engine.mtu == 1300
    two.bob.device.elsewhere = True
    assert two.bob.engine.mtu == 1300


def test_a_candidate_whose_route_leads_into_the_tunnel_is_refused(loop: HandLoop) -> None:
    udp = UdpCarrier(loop, 0, answers_from_where_asked=False, versions=[socket.AF_INET])
    end = End(ALICE, loop, carriers={"udp": udp})
    end.know(BOB.public, ["192.0.2.0/24"])
    inside, outside = ("192.0.2.7", 55555), ("198.51.100.7", 55555)
    end.inside.add(socket.inet_aton(inside[0]))
    assert end.engine.can_call
    assert end.engine.candidate(inside) is None
    assert end.engine.candidate(outside) == udp.candidate(outside)
    udp.close()
    end.close()


def test_a_candidate_is_called_from_an_address_outside_the_tunnel(loop: HandLoop) -> None:
    udp = UdpCarrier(loop, 0, answers_from_where_asked=False, versions=[socket.AF_INET])
    end = End(ALICE, loop, carriers={"udp": udp})
    end.network.better = socket.inet_aton("192.168.1.2")
    candidate = end.engine.candidate(("198.51.100.7", 55555))
    assert candidate is not None
    assert candidate.flow.source == end.network.better
    udp.close()
    end.close()


def test_without_a_carrier_nobody_can_be_called(two: Two) -> None:
    assert not two.alice.engine.can_call
    assert two.alice.engine.candidate(("192.0.2.7", 55555)) is None


@pytest.mark.parametrize(
    ("offloads", "takes"),
    [
        (0, 0),
        (TCP_OFFLOADS, record.TAKES_CHECKSUM | record.TAKES_TSO4 | record.TAKES_TSO6),
        (TCP_OFFLOADS | UDP_OFFLOADS, record.TAKES_ALL & ~record.TAKES_BURSTS),
    ],
)
def test_an_end_announces_what_its_device_takes(offloads: int, takes: int) -> None:
    device = FakeDevice(offloads=offloads)
    assert takes_of(device) & ~(record.TAKES_BURSTS | record.TAKES_PARITY) == takes & ~record.TAKES_PARITY
    assert takes_of(device) & record.TAKES_BURSTS
    device.close()


def test_after_a_suspend_both_ends_ask_for_sessions_at_once_and_the_log_says_why(two: Two, loop: HandLoop) -> None:
    two.alice.link.peer.endpoint = two.wire.to_right
    two.wire.shake_hands()
    two.wire.run()
    former = two.alice.link.peer.keys.current
    with logged() as lines:
        loop.suspend(200)
    two.wire.run()
    current = two.alice.link.peer.keys.current
    assert current is not None
    assert current is not former
    assert current.created == loop.now
    assert "this machine was suspended for 200 s; asking for new sessions" in lines


def test_after_a_suspend_a_link_that_never_was_asks_nobody(two: Two, loop: HandLoop) -> None:
    two.alice.link.peer.endpoint = two.wire.to_right
    loop.suspend(200)
    assert two.wire.to_right.sent == []
