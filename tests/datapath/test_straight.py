"""The straight path of a flow's superpackets: whatever happens between two of them takes effect on the next one."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from tests.datapath.ends import ALICE, BOB, CAROL, End, TwoEnds, Wire, sealed
from tests.datapath.test_delivery import bundle
from tests.machine import HandLoop
from tests.wire.packets import A4, B4, payload, tcp, tcp_run, tcp_superpacket
from vpntun.carriers.fake import FakeEndpoint
from vpntun.core.endpoint import Flow
from vpntun.crypto.session import REJECT_AFTER_TIME
from vpntun.wire.record import Hello
from vpntun.wire.vnet import UNFINISHED

SEGMENT = 1348
BIG = (tcp_superpacket(4, payload(40 * SEGMENT)), SEGMENT)
"""A superpacket, and the size of its segments. Two of them don't fit in one record."""
SINGLES = tcp_run(4, payload(40 * SEGMENT), SEGMENT)


class Two(TwoEnds):
    """Alice and Bob, vpntuns with a session over a stream."""

    def __init__(self, loop: HandLoop) -> None:
        super().__init__(End(ALICE, loop), End(BOB, loop), carrier="tcp")
        self.wire.shake_hands()

    def send(self, *packets: bytes | tuple[bytes, int]) -> None:
        """Let Alice send, and Bob receive."""
        self.alice.send(*packets)
        self.wire.run()

    def run_straight(self) -> None:
        """Send superpackets until they go straight."""
        self.send(BIG)
        self.send(BIG)
        assert self.alice.link._straight_until > self.loop.now
        self.bob.device.packets.clear()
        self.bob.device.headers.clear()


@pytest.fixture
def two(loop: HandLoop) -> Iterator[Two]:
    made = Two(loop)
    yield made
    made.close()


def test_superpackets_and_the_packets_between_arrive_as_they_were_and_in_order(two: Two) -> None:
    two.run_straight()
    small = [tcp(4, bytes([number]) * 60) for number in range(3)]
    two.send(BIG, small[0], BIG, BIG, small[1], small[2], BIG)
    assert two.bob.device.arrived == [*SINGLES, small[0], *SINGLES, *SINGLES, small[1], small[2], *SINGLES]
    assert not two.alice.drops
    assert not two.bob.drops


def test_their_bytes_are_counted(two: Two) -> None:
    two.run_straight()
    before = two.alice.link.peer.sent_bytes, two.bob.link.peer.received_bytes
    two.send(BIG)
    sent = two.alice.link.peer.sent_bytes - before[0]
    assert sent == two.bob.link.peer.received_bytes - before[1] == len(BIG[0]) + 5 + 32


def test_they_wait_unsealed_while_the_path_is_not_ready_and_keep_their_order(two: Two) -> None:
    two.run_straight()
    two.wire.to_right.is_ready = False
    counter = two.alice.link.peer.keys.current.send_counter  # type: ignore[union-attr]
    two.send(BIG, tcp(4, b"behind"))
    assert two.alice.link.peer.keys.current.send_counter == counter  # type: ignore[union-attr]
    two.wire.to_right.opens()
    two.send(tcp(4, b"later"))
    two.alice.pump()
    two.wire.run()
    assert two.bob.device.arrived == [*SINGLES, tcp(4, b"behind"), tcp(4, b"later")]


def test_no_key_of_180_seconds_seals_one(two: Two) -> None:
    two.run_straight()
    session = two.alice.link.peer.keys.current
    assert session is not None
    counter = session.send_counter
    two.loop.clock.now = session.created + REJECT_AFTER_TIME
    two.loop.poll()
    two.alice.send(BIG)
    assert session.send_counter == counter


def test_a_new_session_seals_the_next_one(two: Two) -> None:
    two.run_straight()
    former = two.alice.link.peer.keys.current
    two.loop.pass_time(6.0)
    two.wire.shake_hands()
    session = two.alice.link.peer.keys.current
    assert session is not None
    assert session is not former
    counter = session.send_counter
    two.send(BIG)
    assert session.send_counter > counter
    assert two.bob.device.arrived == SINGLES


def test_the_next_one_goes_to_the_peers_new_endpoint(two: Two) -> None:
    two.run_straight()
    elsewhere = FakeEndpoint("elsewhere", "tcp")
    two.alice.link.act(two.alice.link.peer.move_to(elsewhere))
    two.wire.to_right.sent.clear()
    two.alice.send(BIG)
    assert not two.wire.to_right.sent
    assert elsewhere.sent


def test_a_hello_that_withdraws_all_offloads_makes_single_packets_of_the_next_one(two: Two) -> None:
    two.run_straight()
    two.alice.take(sealed(two.bob.link, Hello(True, 0).pack()), two.wire.to_right)
    two.alice.send(BIG)
    (message,) = two.wire.to_right.sent
    assert len(message) > len(b"".join(SINGLES)), "with headers of their own"
    two.wire.run()
    assert two.bob.device.arrived == SINGLES


def test_it_asks_for_a_handshake_when_nothing_comes_back_for_fifteen_seconds(two: Two) -> None:
    two.run_straight()
    two.bob.send(tcp(4, b"back"))
    two.wire.run()
    two.alice.send(BIG)
    assert two.loop.now + 15 <= two.alice.link.peer.timers.new_handshake < two.loop.now + 16


# What is known about a flow, at the sender


def test_a_flow_goes_to_another_peer_as_soon_as_the_allowed_ips_say_so(loop: HandLoop) -> None:
    alice, bob, carol = End(ALICE, loop), End(BOB, loop), End(CAROL, loop)
    to_bob, to_carol = alice.know(BOB.public), alice.know(CAROL.public, ["192.0.2.0/24"])
    bob.know(ALICE.public)
    carol.know(ALICE.public)
    wires = Wire(alice, bob), Wire(alice, carol, " carol")
    for wire in wires:
        wire.shake_hands()
    alice.send(BIG)
    alice.routes.add(ip_network("10.1.2.0/24"), to_carol)
    alice.send(BIG)
    alice.routes.remove(ip_network("10.1.2.0/24"))
    alice.routes.remove(ip_network("0.0.0.0/0"))
    alice.send(BIG)
    for wire in wires:
        wire.run()
    assert bob.device.arrived == carol.device.arrived == SINGLES
    assert alice.drops == {"no route": 1}
    assert to_bob.endpoint is not to_carol.endpoint
    for end in (alice, bob, carol):
        end.close()


def test_a_flow_that_turns_out_to_be_the_tunnels_own_is_dropped(two: Two) -> None:
    two.run_straight()
    two.wire.to_right.flow = Flow(6, A4, int.from_bytes(BIG[0][20:22], "big"), B4, int.from_bytes(BIG[0][22:24], "big"))
    two.alice.guard.follow(two.alice.link)
    two.send(BIG)
    assert two.bob.device.packets == []
    assert two.alice.drops == {"routing loop": 1}


# What is known about a flow, at the receiver


def test_a_flow_is_refused_as_soon_as_its_source_is_no_longer_allowed(two: Two) -> None:
    two.run_straight()
    two.bob.routes.remove(ip_network("0.0.0.0/0"))
    two.send(BIG)
    assert two.bob.device.packets == []
    assert two.bob.drops == {"source not allowed": 1}


def test_another_peers_packets_are_not_taken_for_the_flows(loop: HandLoop) -> None:
    alice, bob, carol = End(ALICE, loop), End(BOB, loop), End(CAROL, loop)
    for end in (alice, carol):
        end.know(BOB.public)
    bob.know(ALICE.public)
    bob.know(CAROL.public, ["192.0.2.0/24"])
    wires = Wire(alice, bob), Wire(carol, bob, " carol")
    for wire in wires:
        wire.shake_hands()
    for end in (alice, carol):
        end.send(BIG)
    for wire in wires:
        wire.run()
    assert bob.device.arrived == SINGLES
    assert bob.drops["source not allowed"] > 0
    for end in (alice, bob, carol):
        end.close()


def test_a_packet_that_is_no_superpacket_gets_the_header_of_an_ordinary_one(two: Two) -> None:
    two.run_straight()
    short = tcp_superpacket(4, payload(SEGMENT))
    two.send(BIG, BIG)
    two.bob.device.packets.clear()
    two.bob.device.headers.clear()
    two.bob.take(sealed(two.alice.link, bundle((short, UNFINISHED | SEGMENT))), two.wire.to_left)
    assert two.bob.device.arrived == tcp_run(4, payload(SEGMENT), SEGMENT)
