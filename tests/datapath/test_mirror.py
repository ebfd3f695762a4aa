"""The mirror shows each packet once in each direction, changes nothing about it, and leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.ends import ALICE, BOB, End, TwoEnds, ipv4
from tests.datapath.routing.test_relay import Hub, one_hop_on
from tests.datapath.switching.lan import ALL, Lan, frame, station
from tests.machine import HandLoop
from tests.wire.packets import payload, tcp, tcp_superpacket, udp, udp_superpacket, unfinished
from vpntun.datapath.routing.relay import Relay
from vpntun.link.link import Link
from vpntun.types import CarrierName
from vpntun.wire.message import Buffer

Seen = tuple[str, bytes]


class Witness:
    """An observer of an end's mirror. `seen`: a direction and a packet; `unfinished`: those whose checksum is."""

    def __init__(self, end: End) -> None:
        self.seen: list[Seen] = []
        self.links: list[Link] = []
        self.unfinished: list[bytes] = []
        self.mirror = end.engine.mirror
        self.mirror.show(self)

    def saw(self, link: Link, packet: Buffer, *, outbound: bool, unfinished: bool) -> None:
        self.seen.append(("out" if outbound else "in", bytes(packet)))
        self.links.append(link)
        if unfinished:
            self.unfinished.append(bytes(packet))


def is_tapped(end: End, by: Witness) -> bool:
    """Return whether the mirror is in the way of packets in both directions, or in none."""
    ways = {end.outbound.entry is by.mirror, end.delivery.forwarder is by.mirror}
    assert len(ways) == 1
    return ways.pop()


@pytest.fixture(params=["udp", "tcp"])
def ends(loop: HandLoop, request: pytest.FixtureRequest) -> Iterator[TwoEnds]:
    carrier: CarrierName = request.param
    made = TwoEnds(End(ALICE, loop), End(BOB, loop), carrier)
    made.wire.shake_hands()
    yield made
    made.close()


@pytest.fixture
def hub(loop: HandLoop) -> Iterator[Hub]:
    made = Hub(loop)
    yield made
    made.close()


def every_kind(version: int) -> list[bytes | tuple[bytes, int]]:
    """Packets that take every way through the bundler, as the kernel gives them."""
    start = 20 if version == 4 else 40
    flow: list[bytes | tuple[bytes, int]] = [
        (unfinished(udp(version, payload(900), identification=number), 17, start), 0) for number in range(4)
    ]
    return [
        tcp(version, b"first"),
        udp(version, b"second"),
        *flow,
        *((tcp_superpacket(version, payload(60_000)), 1300), (tcp_superpacket(version, payload(60_000)), 1300)),
        *((udp_superpacket(version, payload(5000)), 1200), tcp(version, b"last")),
    ]


@pytest.mark.parametrize("version", [4, 6])
def test_every_packet_is_seen_as_the_device_gave_it_and_arrives_as_if_nobody_looked(
    ends: TwoEnds, version: int
) -> None:
    given = every_kind(version)
    ends.alice.send(*given)
    ends.wire.run()
    unobserved = list(ends.bob.device.arrived)
    ends.bob.device.clear()
    sent, received = Witness(ends.alice), Witness(ends.bob)
    ends.alice.send(*given)
    ends.wire.run()
    assert sent.seen == [("out", each if isinstance(each, bytes) else each[0]) for each in given]
    assert set(sent.links) == {ends.alice.link}
    assert received.seen == [("in", packet) for packet in ends.bob.device.packets]
    assert set(received.links) == {ends.bob.link}
    assert ends.bob.device.arrived[-len(unobserved) :] == unobserved


def test_only_single_packets_are_said_to_have_an_unfinished_checksum(ends: TwoEnds) -> None:
    witness = Witness(ends.alice)
    single = unfinished(udp(4, b"data"), 17, 20)
    ends.alice.send(udp(4, b"finished"), (tcp_superpacket(4, payload(9000)), 1300), (single, 0))
    assert witness.unfinished == [single]


def test_packets_still_go_straight_while_somebody_looks(loop: HandLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = TwoEnds(End(ALICE, loop), End(BOB, loop), "tcp")
    ends.wire.shake_hands()
    superpacket = (tcp_superpacket(4, payload(60_000)), 1300)
    ends.alice.send(superpacket)
    ends.wire.run()
    witness, link, went = Witness(ends.alice), ends.alice.link, []
    straight = link.send_straight

    def noting(record: memoryview, tos: int) -> bool:
        went.append(straight(record, tos))
        return went[-1]

    monkeypatch.setattr(link, "send_straight", noting)
    ends.alice.send(superpacket)
    assert went == [True]
    assert witness.seen == [("out", superpacket[0])]
    ends.close()


def test_a_relayed_packet_is_seen_from_one_link_and_to_the_other(loop: HandLoop) -> None:
    hub = Hub(loop, ("tcp", "tcp"))
    witness = Witness(hub.bob)
    packets = [udp(4, b"hello"), tcp_superpacket(4, payload(20_000))]
    hub.send(packets[0], (packets[1], 1300))
    ways = [seen for packet in packets for seen in (("in", packet), ("out", one_hop_on(packet)))]
    assert sorted(witness.seen) == sorted(ways)
    for (way, _), link in zip(witness.seen, witness.links, strict=True):
        assert link is (hub.to_alice if way == "in" else hub.to_carol)
    assert hub.carol.device.packets == [one_hop_on(packet) for packet in packets]
    hub.close()


def test_what_the_hub_itself_sends_and_gets_is_seen_as_well(hub: Hub) -> None:
    witness = Witness(hub.bob)
    question, answer = ipv4("100.64.0.1", "10.9.0.1", b"question"), ipv4("10.9.0.1", "100.64.0.1", b"answer")
    hub.send(question)
    assert hub.bob.device.packets == [question]
    hub.bob.send(answer)
    hub.run()
    assert witness.seen == [("in", question), ("out", answer)]
    expired = ipv4("100.64.0.1", "10.1.2.3", b"last hop")
    expired = expired[:8] + b"\1" + expired[9:]
    hub.send(expired)
    [(came, dropped), (left, error)] = witness.seen[2:]
    assert (came, dropped, left) == ("in", expired, "out")
    assert error in hub.alice.device.packets


def test_a_frame_is_seen_once_for_each_link_that_it_passes_and_once_it_is_known_for_one_alone(loop: HandLoop) -> None:
    lan = Lan(loop)
    witness = Witness(lan.bob)
    a, b, c = map(station, (1, 2, 3))
    asked, answer, own = frame(a, ALL), frame(c, a), frame(b, ALL)
    lan.send(lan.alice, asked)
    assert witness.seen == [("in", asked), ("out", asked), ("out", asked)]
    assert witness.links[0] is lan.to_alice
    assert set(witness.links[1:]) == {lan.to_carol, lan.to_dave}
    lan.send(lan.carol, answer)
    assert witness.seen[3:] == [("in", answer), ("out", answer)]
    assert witness.links[3:] == [lan.to_carol, lan.to_alice]
    lan.send(lan.bob, own)
    assert witness.seen[5:] == [("out", own)] * 3
    assert lan.arrived() == ([answer, own], [asked], [asked, own], [asked, own])
    lan.close()


def test_packets_that_no_link_has_are_not_seen(hub: Hub) -> None:
    witness = Witness(hub.bob)
    hub.bob.send(ipv4("10.9.0.1", "203.0.113.1", b"no route"))
    assert hub.bob.drops["no route"] == 1
    assert witness.seen == []


def test_the_mirror_is_in_the_way_only_while_somebody_looks(hub: Hub) -> None:
    bob = hub.bob
    relay = bob.engine._relay
    first, second = Witness(bob), Witness(bob)
    assert is_tapped(bob, by=first)
    first.mirror.hide(first)
    hub.send(udp(4, b"hello"))
    assert (len(first.seen), len(second.seen)) == (0, 2)
    second.mirror.hide(second)
    assert not is_tapped(bob, by=first)
    assert bob.outbound.entry is bob.bundler
    assert bob.delivery.forwarder is relay is not None
    assert bob.engine._distributor.add == bob.bundler.add
    hub.send(udp(4, b"hello"))
    assert (len(first.seen), len(second.seen)) == (0, 2)
    assert len(hub.carol.device.packets) == 2
    assert hub.alice.outbound.entry is hub.alice.bundler
    assert hub.alice.delivery.forwarder is None


def test_an_observer_may_go_while_it_is_shown_a_packet(ends: TwoEnds) -> None:
    class Brief(Witness):
        def saw(self, link: Link, packet: Buffer, *, outbound: bool, unfinished: bool) -> None:
            super().saw(link, packet, outbound=outbound, unfinished=unfinished)
            self.mirror.hide(self)

    brief, lasting = Brief(ends.alice), Witness(ends.alice)
    ends.alice.send(udp(4, b"first"), udp(4, b"second"))
    assert (len(brief.seen), len(lasting.seen)) == (1, 2)
    lasting.mirror.hide(lasting)
    ends.alice.send(udp(4, b"third"))
    ends.wire.run()
    assert len(ends.bob.device.arrived) == 3


def test_an_observer_from_before_the_start_sees_what_is_relayed_and_leaves_the_relay_in_place(loop: HandLoop) -> None:
    end = End(BOB, loop, relays_as=("10.0.0.254",), is_started=False)
    witness = Witness(end)
    end.engine.start()
    assert is_tapped(end, witness)
    witness.mirror.hide(witness)
    relay = end.delivery.forwarder
    assert isinstance(relay, Relay)
    assert end.engine._distributor.add == end.bundler.add
    assert end.outbound.entry is end.bundler
    end.close()
