"""The straight path of records with one packet: whatever happens between two of them takes effect on the next one."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_network

import pytest

from tests.datapath.ends import ALICE, BOB, CAROL, End, TwoEnds, Wire, sealed, send_long_records
from tests.datapath.routing.test_delivery import bundle
from tests.machine import HandLoop
from tests.wire.packets import A4, B4, payload, tcp, tcp_run, tcp_superpacket, unfinished
from vpntun.carriers.fake import FakeEndpoint
from vpntun.core.endpoint import Flow
from vpntun.core.single_read import HABIT
from vpntun.crypto.session import REJECT_AFTER_TIME
from vpntun.tun.fake import kernels_header
from vpntun.types import CarrierName
from vpntun.wire.record import Hello
from vpntun.wire.vnet import UNFINISHED

SEGMENT = 1348
BIG = (tcp_superpacket(4, payload(40 * SEGMENT)), SEGMENT)
"""A superpacket, and the size of its segments. Two of them don't fit in one record."""
SINGLES = tcp_run(4, payload(40 * SEGMENT), SEGMENT)


class Two(TwoEnds):
    """Alice and Bob, vpntuns with a session, over a stream unless another carrier is named."""

    def __init__(self, loop: HandLoop, carrier: CarrierName = "tcp") -> None:
        super().__init__(End(ALICE, loop), End(BOB, loop), carrier)
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
        self.bob.device.clear()

    def send_one_at_a_time(self, *packets: bytes | tuple[bytes, int]) -> None:
        """Send packets with pauses, in which the loop turns."""
        for packet in packets:
            self.send(packet)
            self.loop.poll()

    def run_straight_one_at_a_time(self) -> None:
        """Send small packets with pauses until they go straight."""
        self.alice.link.records.span.protection.wanted = False
        self.alice.link.records.span._follow(self.loop.now)
        self.send_one_at_a_time(*[tcp(4, b"begin")] * (HABIT + 1))
        assert self.alice.link._straight_until > self.loop.now
        assert self.alice.outbound._single_read._in_a_row == HABIT
        self.bob.device.clear()


def over_udp(loop: HandLoop) -> Two:
    """Return Alice and Bob on a path that is known to take datagrams of 1,472 bytes."""
    two = Two(loop, "udp")
    for end in (two.alice, two.bob):
        records = end.link.records
        records._path.payload, records._path.is_proven = 1472, True
        records._follow_path(loop.now)
    return two


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
    two.wire.to_right.take()
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


def test_they_go_straight_again_once_a_record_holds_one_that_had_to_be_cut(loop: HandLoop) -> None:
    with closing(over_udp(loop)) as two:
        two.send(BIG)  # cut into single records, and read apart from then on
        send_long_records(two.alice.link)
        two.send(BIG, BIG, BIG)
        before = two.alice.link.records.span.sent_log.next
        two.send(BIG)
        assert two.alice.link.records.span.sent_log.next == before + 1, "one record"
        assert two.alice.bundler._read_at > 0
        assert two.bob.device.arrived == 5 * SINGLES


@pytest.mark.parametrize("packet", [BIG, tcp(4, payload(1000))], ids=["a burst", "a packet that comes alone"])
@pytest.mark.parametrize(("outcome", "drops"), [("blocked", {}), ("too big", {"too big for the path": 1})])
def test_over_udp_what_does_not_leave_is_held_or_counted(
    loop: HandLoop, outcome: str, drops: dict[str, int], packet: bytes | tuple[bytes, int]
) -> None:
    with closing(over_udp(loop)) as two:
        if packet is BIG:
            send_long_records(two.alice.link)
            two.run_straight()
        else:
            two.run_straight_one_at_a_time()
        if outcome == "blocked":
            two.wire.to_right.opens(1)
        else:
            two.wire.to_right.largest = 1000
        two.alice.send(packet)
        assert two.alice.drops == drops
        two.alice.send(packet)
        assert bool(two.alice.link.queue) is (outcome == "blocked")


def test_over_udp_the_next_one_is_cut_as_soon_as_records_are_to_be_short(loop: HandLoop) -> None:
    with closing(over_udp(loop)) as two:
        send_long_records(two.alice.link)
        two.run_straight()
        two.alice.link.records.span._give_up_long()
        two.alice.link.records.span._follow(loop.now)
        two.alice.link.act([])  # as after the REPORT that said so
        two.alice.send(BIG)
        assert max(map(len, two.wire.to_right.sent)) <= two.alice.link.records.payload
        assert len(two.wire.to_right.sent) >= 40


@pytest.mark.parametrize("carrier", ["udp", "tcp"])
def test_packets_that_come_one_at_a_time_arrive_as_they_were_and_are_counted(
    loop: HandLoop, carrier: CarrierName
) -> None:
    with closing(over_udp(loop) if carrier == "udp" else Two(loop)) as two:
        two.run_straight_one_at_a_time()
        alice, bob = two.alice.link, two.bob.link
        sent, received, records = alice.peer.sent_bytes, bob.peer.received_bytes, alice.records.span.sent_log.next
        small = [tcp(4, bytes([number]) * 20 * number) for number in range(5)]
        two.send_one_at_a_time(*small[:3], BIG, *small[3:])
        assert two.bob.device.arrived == [*small[:3], *SINGLES, *small[3:]]
        assert alice.peer.sent_bytes - sent == bob.peer.received_bytes - received > sum(map(len, small)) + len(BIG[0])
        assert alice.records.span.sent_log.next >= records + 6
        assert not two.alice.drops


def test_packets_that_come_one_at_a_time_need_no_full_check(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    two.run_straight_one_at_a_time()
    checked: list[memoryview] = []
    monkeypatch.setattr(two.alice.link, "send_record", lambda record, *_, **__: checked.append(record))
    two.send_one_at_a_time(tcp(4, b"one"), tcp(4, b"two"))
    assert two.bob.device.arrived == [tcp(4, b"one"), tcp(4, b"two")]
    assert not checked
    two.alice.link.touch()
    two.send_one_at_a_time(tcp(4, b"three"))
    assert len(checked) == 1


def test_packets_that_come_one_at_a_time_get_a_parity_as_soon_as_losses_ask_for_it(loop: HandLoop) -> None:
    with closing(over_udp(loop)) as two:
        two.run_straight_one_at_a_time()
        span = two.alice.link.records.span
        span.protection.wanted = span.protection.possible = True
        span._follow(loop.now)
        assert span.protection.active
        two.alice.link.act([])  # as after the REPORT that said so
        two.send_one_at_a_time(*[tcp(4, b"first")] * span.protection.group)
        two.alice.send(tcp(4, b"lost"))
        two.wire.to_right.take()
        two.send_one_at_a_time(*[tcp(4, b"more")] * span.protection.group)
        assert tcp(4, b"lost") in two.bob.device.arrived


def test_only_records_after_which_the_device_had_another_packet_are_a_backlog(two: Two) -> None:
    bottleneck = two.alice.link.records.span.bottleneck
    for _ in range(20):
        two.send(tcp(4, b"alone"))
    assert bottleneck.backlogged == 0
    two.run_straight()
    two.send(BIG, BIG, BIG)
    assert bottleneck.backlogged == 2


# What is known about a flow, at the sender


def test_a_superpacket_behind_one_that_is_an_ordinary_packet_stays_a_superpacket(two: Two) -> None:
    short = tcp_superpacket(4, payload(SEGMENT))
    header = bytearray(kernels_header(BIG[0], SEGMENT))
    two.alice.device._far.sendmsg([header, short])
    two.loop.poll()
    two.send(BIG)
    assert two.bob.device.arrived == [*tcp_run(4, payload(SEGMENT), SEGMENT), *SINGLES]


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
    two.bob.device.clear()
    two.bob.take(sealed(two.alice.link, bundle((short, UNFINISHED | SEGMENT))), two.wire.to_left)
    two.bob.take(sealed(two.alice.link, bundle((BIG[0], UNFINISHED | SEGMENT))), two.wire.to_left)
    assert two.bob.device.arrived == [*tcp_run(4, payload(SEGMENT), SEGMENT), *SINGLES]


def test_an_acknowledgement_does_not_keep_segments_from_being_joined(two: Two) -> None:
    two.bob.take(sealed(two.alice.link, bundle((unfinished(tcp(4, b""), 6, 20), UNFINISHED))), two.wire.to_left)
    segments = [unfinished(each, 6, 20) for each in SINGLES]
    messages = [sealed(two.alice.link, bundle((each, UNFINISHED))) for each in segments]
    two.bob.take_together(messages, two.wire.to_left)
    assert len(two.bob.device.packets) == 2
    assert two.bob.device.arrived == [tcp(4, b""), *SINGLES]


# What is known about the sender of a message


def take_straight(two: Two, plaintext: bytes) -> None:
    """Let Bob receive a message that skips the checks which the message before it has passed."""
    assert two.bob.inbound._last is not None
    two.bob.take(sealed(two.alice.link, plaintext), two.wire.to_left)


def test_a_message_on_keys_of_180_seconds_is_dropped_behind_one_that_was_accepted(two: Two) -> None:
    two.run_straight()
    session = two.bob.link.peer.keys.current
    assert session is not None
    two.loop.clock.now = session.created + REJECT_AFTER_TIME
    two.loop.poll()
    take_straight(two, bundle((BIG[0], UNFINISHED | SEGMENT)))
    assert two.bob.device.packets == []
    assert two.bob.drops == {"expired session": 1}


def test_a_replay_of_a_message_is_dropped_behind_it(two: Two) -> None:
    two.run_straight()
    message = sealed(two.alice.link, bundle((BIG[0], UNFINISHED | SEGMENT)))
    for _ in range(3):
        two.bob.take(message, two.wire.to_left)
    assert two.bob.device.arrived == SINGLES
    assert two.bob.drops == {"replayed": 2}


def test_nothing_of_a_removed_peer_is_accepted_or_kept(two: Two) -> None:
    two.run_straight()
    message = sealed(two.alice.link, bundle((BIG[0], UNFINISHED | SEGMENT)))
    link = weakref.ref(two.bob.link)
    two.bob.engine.remove(two.bob.link)
    two.bob.take(message, two.wire.to_left)
    assert two.bob.device.packets == []
    two.wire.to_left.peer = None
    two.loop.pass_time(REJECT_AFTER_TIME + 10)  # the monitor looks at each session when it ends
    gc.collect()
    assert link() is None


def test_a_message_from_another_place_moves_the_peer_there(two: Two) -> None:
    two.run_straight()
    elsewhere = FakeEndpoint("elsewhere", "tcp")
    two.bob.take(sealed(two.alice.link, bundle((BIG[0], UNFINISHED | SEGMENT))), elsewhere)
    assert two.bob.link.endpoint is elsewhere
    two.bob.take(sealed(two.alice.link, bundle((BIG[0], UNFINISHED | SEGMENT))), two.wire.to_left)
    assert two.bob.link.endpoint is two.wire.to_left
    assert two.bob.device.arrived == 2 * SINGLES
