"""Link between the device and a carrier: packets wait for a session, and are sealed only when they are sent."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.datapath.ends import ALICE, BOB, CAROL, End, TwoEnds, Wire, ipv4, ipv6, sealed
from tests.machine import HandLoop, logged
from vpntun.carriers.fake import FakeEndpoint
from vpntun.core.queue import UNKNOWN_RATE_BYTES
from vpntun.core.records.hello import HelloExchange
from vpntun.datapath.sending.device_reader import MOST_PACKETS_PER_TURN
from vpntun.errors import CannotAsk, DeviceError
from vpntun.types import NEVER, CarrierName
from vpntun.wire.inside.request import DOCTOR, Request
from vpntun.wire.message import DATA, INITIATION, LARGEST, kind_of
from vpntun.wire.record import TAKES_ALL, Hello

HERE, THERE = "10.0.0.1", "10.0.0.2"
MOST_WAITING = UNKNOWN_RATE_BYTES // 1020
"""Packets of 1,020 bytes."""


class Two(TwoEnds):
    """Alice and Bob, and the wire between them. Alice knows where Bob is."""

    def __init__(self, loop: HandLoop, mtu: int = 1420, *, bob_is_plain: bool = False) -> None:
        super().__init__(End(ALICE, loop, mtu), End(BOB, loop, mtu, plain=bob_is_plain))
        self.alice.link.peer.endpoint = self.wire.to_right


@pytest.fixture(params=["vpntun", "WireGuard"])
def two(loop: HandLoop, request: pytest.FixtureRequest) -> Iterator[Two]:
    """Alice and Bob, where Bob is a vpntun, or a plain WireGuard."""
    made = Two(loop, bob_is_plain=request.param == "WireGuard")
    yield made
    made.close()


@pytest.fixture
def met(two: Two) -> Two:
    """Alice and Bob with a session and no message under way. If Bob is a WireGuard, he has dropped the HELLO."""
    return after_the_handshake(two)


@pytest.fixture
def wireguard(loop: HandLoop) -> Iterator[Two]:
    """Alice and Bob with a session, where Bob is a plain WireGuard."""
    made = after_the_handshake(Two(loop, bob_is_plain=True))
    yield made
    made.close()


def after_the_handshake(two: Two) -> Two:
    two.wire.shake_hands()
    assert two.bob.link.peer.endpoint is two.wire.to_left
    assert not two.bob.device.packets
    assert set(two.bob.drops) <= {"unknown record"}
    two.bob.drops.clear()
    two.wire.to_right.urgent.clear()
    return two


def test_packets_arrive_as_they_were_in_both_directions_and_both_ip_versions(met: Two) -> None:
    there = [ipv4(HERE, THERE, bytes([size % 256]) * size) for size in (0, 1, 8, 1000, 1400)]
    there += [ipv6("fd00::1", "fd00::2", b"x" * size) for size in (0, 1, 8, 1000, 1380)]
    back = [ipv4(THERE, HERE, b"y" * 99), ipv6("fd00::2", "fd00::1", b"z" * 99)]
    met.alice.send(*there)
    met.wire.run()
    met.bob.send(*back)
    met.wire.run()
    assert met.bob.device.packets == there
    assert met.alice.device.packets == back
    assert not met.alice.drops
    assert not met.bob.drops


def test_the_bytes_of_all_sent_and_all_authenticated_messages_are_counted(two: Two) -> None:
    alice, bob = two.alice.link.peer, two.bob.link.peer
    two.alice.send(ipv4(HERE, THERE, b"x" * 1000), ipv6("fd00::1", "fd00::2", b"y" * 99))
    two.wire.run()
    two.bob.inbound.take_datagram(memoryview(bytearray(b"\4" + bytes(99))), two.wire.to_left)
    assert alice.sent_bytes == bob.received_bytes > 1200
    assert bob.sent_bytes == alice.received_bytes >= 92


def test_undeliverable_messages_are_not_counted_as_sent(met: Two) -> None:
    before = met.alice.link.peer.sent_bytes
    met.wire.to_right.can_deliver = False
    met.alice.send(ipv4(HERE, THERE, b"x" * 100))
    assert met.alice.link.peer.sent_bytes == before


@pytest.mark.parametrize(
    ("size", "padded"),
    [(20, 32), (31, 32), (32, 32), (33, 48), (1408, 1408), (1409, 1420), (1416, 1420), (1420, 1420), (1500, 1500)],
)
def test_a_packet_is_padded_to_sixteen_bytes_but_not_beyond_the_mtu(wireguard: Two, size: int, padded: int) -> None:
    packet = ipv4(HERE, THERE, b"x" * (size - 20))
    wireguard.alice.send(packet)
    (message,) = wireguard.wire.to_right.sent
    assert len(message) == padded + 32
    wireguard.wire.run()
    assert wireguard.bob.device.packets == [packet]


def test_padding_contains_no_bytes_of_an_earlier_packet(wireguard: Two) -> None:
    wireguard.alice.send(ipv4(HERE, THERE, b"secret" * 100))
    wireguard.alice.send(ipv4(HERE, THERE, b"short"))
    first, second = wireguard.wire.to_right.take()
    session = wireguard.bob.link.peer.keys.current
    assert session is not None
    plaintext = memoryview(bytearray(2000))
    session.open_into(first, plaintext)
    size = session.open_into(second, plaintext)
    assert bytes(plaintext[25:size]) == bytes(size - 25)


def test_packets_that_wait_for_a_session_are_sent_in_order(two: Two) -> None:
    packets = [ipv4(HERE, THERE, b"%d" % number) for number in range(20)]
    two.alice.send(*packets)
    assert [kind_of(message) for message in two.wire.to_right.sent] == [INITIATION]
    two.wire.run()
    assert two.bob.device.packets == packets


def test_the_packets_that_wait_at_both_ends_arrive(two: Two) -> None:
    two.bob.send(ipv4(THERE, HERE, b"from bob"))
    assert two.wire.to_left.sent == []
    two.alice.send(ipv4(HERE, THERE, b"from alice"))
    two.wire.run()
    assert two.bob.device.packets == [ipv4(HERE, THERE, b"from alice")]
    assert two.alice.device.packets == [ipv4(THERE, HERE, b"from bob")]


def test_one_initiation_is_sent_however_many_packets_wait(two: Two) -> None:
    for _ in range(50):
        two.alice.send(ipv4(HERE, THERE))
    assert len(two.wire.to_right.sent) == 1


def test_the_oldest_are_dropped_when_too_many_wait_for_a_session(two: Two) -> None:
    packets = [ipv4(HERE, THERE, b"%1000d" % number) for number in range(MOST_WAITING + 30)]
    for packet in packets:
        two.alice.send(packet)
    assert two.alice.drops["queue full"] == 30
    two.wire.run()
    assert two.bob.device.packets == packets[30:]


def test_waiting_packets_are_dropped_and_counted_after_ninety_seconds_without_an_answer(two: Two) -> None:
    two.alice.send(*[ipv4(HERE, THERE)] * 3)
    two.loop.deadline = lambda: two.alice.link.deadline
    two.loop.on_deadline = two.alice.link.handle_deadline
    for _ in range(100):
        two.loop.pass_time(1.0)
    assert two.alice.drops["no session"] == 3
    asked = [message for message in two.wire.to_right.take() if kind_of(message) == INITIATION]
    assert 15 <= len(asked) <= 19


def test_packets_wait_unsealed_while_the_path_is_not_ready(met: Two) -> None:
    session = met.alice.link.peer.keys.current
    assert session is not None
    before = session.send_counter
    met.wire.to_right.is_ready = False
    packets = [ipv4(HERE, THERE, b"%d" % number) for number in range(5)]
    met.alice.send(*packets)
    assert met.wire.to_right.sent == []
    assert session.send_counter == before
    met.wire.to_right.is_ready = True
    met.alice.pump()
    met.wire.run()
    assert met.bob.device.packets == packets


def test_a_packet_does_not_overtake_those_that_wait(met: Two) -> None:
    met.wire.to_right.is_ready = False
    met.alice.send(ipv4(HERE, THERE, b"first"))
    met.wire.to_right.is_ready = True
    met.alice.send(ipv4(HERE, THERE, b"second"))
    met.alice.pump()
    met.wire.run()
    assert met.bob.device.packets == [ipv4(HERE, THERE, b"first"), ipv4(HERE, THERE, b"second")]


def test_a_blocked_link_does_not_hold_up_another(loop: HandLoop) -> None:
    alice, bob, carol = End(ALICE, loop), End(BOB, loop), End(CAROL, loop)
    alice.know(BOB.public, ["10.0.1.0/24"])
    alice.know(CAROL.public, ["10.0.2.0/24"])
    bob.know(ALICE.public)
    carol.know(ALICE.public)
    to_bob, to_carol = Wire(alice, bob), Wire(alice, carol)
    for wire, link in zip((to_bob, to_carol), alice.links.values(), strict=True):
        link.peer.endpoint = wire.to_right
        wire.shake_hands()
    to_bob.to_right.is_ready = False
    for _ in range(MOST_WAITING + 80):
        alice.send(ipv4(HERE, "10.0.1.1", bytes(1000)), ipv4(HERE, "10.0.2.1", bytes(1000)))
    to_carol.run()
    assert len(carol.device.packets) == MOST_WAITING + 80
    assert bob.device.packets == []
    assert alice.drops["queue full"] == 80
    for end in (alice, bob, carol):
        end.close()


def test_an_undeliverable_message_is_counted_and_the_next_one_is_sent(met: Two) -> None:
    met.wire.to_right.can_deliver = False
    met.alice.send(ipv4(HERE, THERE, b"lost"))
    assert met.alice.drops == {"undeliverable": 1}
    met.wire.to_right.can_deliver = True
    met.alice.send(ipv4(HERE, THERE, b"next"))
    met.wire.run()
    assert met.bob.device.packets == [ipv4(HERE, THERE, b"next")]


def test_a_packet_without_a_route_is_counted(loop: HandLoop) -> None:
    alice = End(ALICE, loop)
    alice.know(BOB.public, ["10.0.0.0/24"])
    alice.send(ipv4(HERE, "10.9.9.9"), ipv6("fd00::1", "fd00::2"))
    assert alice.drops == {"no route": 2}
    alice.close()


def test_the_longest_prefix_chooses_the_link(loop: HandLoop) -> None:
    alice = End(ALICE, loop)
    to_bob, to_carol = alice.know(BOB.public, ["10.0.0.0/8"]), alice.know(CAROL.public, ["10.0.2.0/24"])
    alice.send(ipv4(HERE, "10.0.2.1"), ipv4(HERE, "10.0.3.1"), ipv4(HERE, "10.0.2.255"))
    assert (len(to_bob.queue), len(to_carol.queue)) == (1, 2)
    alice.close()


@pytest.mark.parametrize("junk", [b"\x00", b"\x45", bytes(40), b"\x50" + bytes(39), ipv4(HERE, THERE, total=400)])
def test_bytes_that_are_not_a_packet_are_not_sent(met: Two, junk: bytes) -> None:
    met.alice.send(junk)
    assert met.wire.to_right.sent == []
    assert met.alice.drops == {"bad inner packet": 1}


@pytest.mark.parametrize("bob_is_plain", [False, True], ids=["vpntun", "WireGuard"])
@pytest.mark.parametrize(("carrier", "largest"), [("udp", 65507 - 32 - 3), ("tcp", LARGEST - 32)])
@pytest.mark.parametrize("size", [65472, 65475, 65503, 65504, 65520, 65535])
def test_a_packet_of_any_size_that_the_device_can_give_does_no_harm(
    loop: HandLoop, size: int, carrier: CarrierName, largest: int, bob_is_plain: bool
) -> None:
    two = Two(loop, mtu=65535, bob_is_plain=bob_is_plain)
    two.wire = Wire(two.alice, two.bob, carrier=carrier)
    two.wire.shake_hands()
    packet = ipv4(HERE, THERE, bytes(size - 20))
    two.alice.send(packet, ipv4(HERE, THERE, b"next"))
    assert all(len(message) <= LARGEST for message in two.wire.to_right.sent)
    two.wire.run()
    if size > largest:
        assert two.bob.device.packets == [ipv4(HERE, THERE, b"next")]
        assert sum(two.alice.drops.values()) == 1
    else:
        assert two.bob.device.packets == [packet, ipv4(HERE, THERE, b"next")]
    two.close()


def test_a_device_that_has_gone_ends_the_program_with_its_error(met: Two) -> None:
    met.alice.device.gone = True
    with pytest.raises(DeviceError, match="has gone"):
        met.alice.outbound.read_device()


def test_one_turn_reads_a_bounded_number_of_packets(met: Two) -> None:
    met.alice.device.from_the_kernel(*[ipv4(HERE, THERE)] * (MOST_PACKETS_PER_TURN + 9))
    met.alice.outbound.read_device()
    met.wire.run()
    assert 0 < len(met.bob.device.packets) <= MOST_PACKETS_PER_TURN
    met.alice.outbound.read_device()
    met.wire.run()
    assert len(met.bob.device.packets) == MOST_PACKETS_PER_TURN + 9


def test_a_session_outlives_the_carrier_that_made_it(met: Two) -> None:
    other = Wire(met.alice, met.bob, " by TCP", "tcp")
    met.alice.link.act(met.alice.link.peer.move_to(other.to_right))
    met.alice.send(ipv4(HERE, THERE, b"by the other way"))
    assert met.wire.to_right.sent == []
    other.run()
    assert met.bob.device.packets == [ipv4(HERE, THERE, b"by the other way")]
    assert met.bob.link.peer.endpoint is other.to_left
    met.bob.send(ipv4(THERE, HERE, b"and back"))
    other.run()
    assert met.alice.device.packets == [ipv4(THERE, HERE, b"and back")]


def test_a_replaced_connection_is_closed(met: Two) -> None:
    other = Wire(met.alice, met.bob, " by TCP", "tcp")
    with logged() as lines:
        met.alice.link.act(met.alice.link.peer.move_to(other.to_right))
    assert met.wire.to_right.hangs_up
    assert not other.to_right.hangs_up
    assert lines == ["the peer is at right by TCP now (it was at right)"]


def test_an_idle_link_sends_nothing(met: Two) -> None:
    met.loop.deadline = lambda: min(met.alice.link.deadline, met.bob.link.deadline)
    met.loop.on_deadline = lambda: (met.alice.link.handle_deadline(), met.bob.link.handle_deadline())  # type: ignore[assignment, func-returns-value]
    for _ in range(60):
        met.loop.pass_time(1.0)
        met.wire.run()
    assert met.wire.to_right.urgent == []


def test_one_way_traffic_is_answered_by_a_keepalive_that_never_reaches_the_device(met: Two) -> None:
    met.alice.send(ipv4(HERE, THERE, b"x"))
    met.wire.run()
    met.loop.clock.now += 10.0
    met.loop.poll()
    met.bob.link.handle_deadline()
    (keepalive,) = met.wire.to_left.sent
    assert (kind_of(keepalive), len(keepalive)) == (DATA, 32)
    met.wire.run()
    assert met.alice.device.packets == []
    assert not met.alice.drops


def test_a_link_without_an_endpoint_waits_for_the_peer_and_raises_nothing(met: Two) -> None:
    met.bob.link.peer.endpoint = None
    met.bob.send(ipv4(THERE, HERE, b"where are you?"))
    assert met.wire.to_left.sent == []
    met.alice.send(ipv4(HERE, THERE, b"here"))
    met.wire.run()
    assert met.alice.device.packets == [ipv4(THERE, HERE, b"where are you?")]


def test_an_undeliverable_handshake_message_is_counted(loop: HandLoop) -> None:
    alice = End(ALICE, loop)
    link = alice.know(BOB.public)
    nowhere = FakeEndpoint("nowhere")
    nowhere.can_deliver = False
    link.peer.endpoint = nowhere
    link.start()
    assert alice.drops == {"undeliverable": 1}
    alice.close()


def test_the_loop_never_sleeps_past_a_deadline_that_traffic_has_brought_nearer(met: Two) -> None:
    rng = random.Random(5)
    ends = (met.alice, met.bob)
    for _ in range(2000):
        if rng.random() < 0.35:
            met.alice.send(ipv4(HERE, THERE))
        elif rng.random() < 0.5:
            met.bob.send(ipv4(THERE, HERE))
        if rng.random() < 0.9:
            met.wire.run()
        for end in ends:
            deadline = min(end.link.peer.timers.earliest(), end.link.records.deadline)
            assert end.schedule.deadline(met.loop.now) <= deadline
        met.loop.pass_time(rng.choice((0.0001, 0.001, 0.01, 0.06)))
        for end in ends:
            if end.schedule.deadline(met.loop.now) <= met.loop.now:
                end.schedule.handle(met.loop.now)


def test_successive_packets_do_not_make_the_schedule_read_the_deadline_each_time(met: Two) -> None:
    asked = 0
    for _ in range(100):
        met.alice.send(ipv4(HERE, THERE))
        asked += met.alice.link.touched
        met.alice.schedule.deadline(met.loop.now)
        met.loop.pass_time(0.0001)
    assert asked <= 2


def test_the_deadline_of_an_idle_link_is_read_once_more_after_traffic(met: Two) -> None:
    alice = met.alice
    alice.send(ipv4(HERE, THERE))
    met.wire.run()
    woken = []
    while (due := alice.schedule.deadline(met.loop.now)) < met.loop.now + 5:
        met.loop.pass_time(due - met.loop.now)
        alice.schedule.handle(met.loop.now)
        woken.append(due)
        met.bob.schedule.deadline()
        met.bob.schedule.handle(met.loop.now)
        met.wire.run()  # Bob's REPORT
    assert len(woken) <= 3


def ask(two: Two, content: dict[str, Any]) -> list[dict[str, Any] | None]:
    """Let Alice ask Bob; return the list that the answer comes into."""
    answers: list[dict[str, Any] | None] = []
    two.alice.link.ask(DOCTOR, content, answers.append)
    return answers


@pytest.fixture
def vpntuns(loop: HandLoop) -> Iterator[Two]:
    """Two vpntuns with a session."""
    made = Two(loop)
    made.wire.shake_hands()
    yield made
    made.close()


def test_the_other_end_answers_inside_the_tunnel(vpntuns: Two) -> None:
    vpntuns.bob.engine.answers.add(
        DOCTOR,
        lambda link, content: {
            "from": link.peer.public == ALICE.public,
            "text": content["text"] * 3000,
        },
    )
    answers = ask(vpntuns, {"text": "x"})
    assert answers == []
    vpntuns.wire.run()
    assert answers == [{"from": True, "text": "x" * 3000}]
    assert not vpntuns.alice.drops + vpntuns.bob.drops


def test_a_lost_request_is_repeated_by_the_links_deadline(vpntuns: Two, loop: HandLoop) -> None:
    vpntuns.bob.engine.answers.add(DOCTOR, lambda link, content: {})
    answers = ask(vpntuns, {})
    vpntuns.wire.to_right.take()
    assert vpntuns.alice.link.deadline <= loop.now + 0.5
    loop.pass_time(0.5)
    vpntuns.alice.link.handle_deadline()
    vpntuns.wire.run()
    assert answers == [{}]


def test_a_request_that_nobody_answers_ends_after_ten_seconds(vpntuns: Two, loop: HandLoop) -> None:
    answers = ask(vpntuns, {})
    for _ in range(20):
        vpntuns.wire.to_right.take()
        loop.pass_time(0.5)
        vpntuns.alice.link.handle_deadline()
    assert answers == [None]


def test_an_unknown_request_is_refused(vpntuns: Two) -> None:
    answers = ask(vpntuns, {})
    vpntuns.wire.run()
    assert answers == [{"refused": "this vpntun does not know the request"}]


def test_requests_beyond_the_limit_are_dropped_and_counted(vpntuns: Two) -> None:
    for number in range(11):
        record = Request(number, DOCTOR, b"{}").pack()
        vpntuns.bob.take(sealed(vpntuns.alice.link, record), vpntuns.wire.to_left)
    assert vpntuns.bob.drops["too many requests"] == 1


def test_requests_do_not_start_the_data_timers(vpntuns: Two) -> None:
    ask(vpntuns, {})
    vpntuns.wire.run()
    for end in (vpntuns.alice, vpntuns.bob):
        timers = end.link.peer.timers
        assert (timers.keepalive, timers.new_handshake) == (NEVER, NEVER)


@pytest.mark.parametrize("carrier", ["udp", "tcp"])
def test_requests_travel_by_any_carrier(loop: HandLoop, carrier: CarrierName) -> None:
    two = TwoEnds(End(ALICE, loop), End(BOB, loop), carrier)
    two.wire.shake_hands()
    answers: list[Any] = []
    two.alice.link.ask(DOCTOR, {}, answers.append)
    two.wire.run()
    assert len(answers) == 1
    two.close()


def test_a_peer_that_cannot_answer_is_not_asked(loop: HandLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    two = Two(loop)
    with pytest.raises(CannotAsk, match="no link to the peer now"):
        ask(two, {})
    monkeypatch.setattr(HelloExchange, "hello", lambda *_: Hello(True, TAKES_ALL))
    two.wire.shake_hands()
    with pytest.raises(CannotAsk, match="too old"):
        ask(two, {})
    two.close()
    plain = Two(loop, bob_is_plain=True)
    plain.wire.shake_hands()
    with pytest.raises(CannotAsk, match="not a vpntun"):
        ask(plain, {})
    plain.close()


def test_few_requests_wait_at_a_time_and_removal_ends_them(vpntuns: Two) -> None:
    asked = [ask(vpntuns, {}) for _ in range(4)]
    with pytest.raises(CannotAsk, match="too much at once"):
        ask(vpntuns, {})
    vpntuns.alice.engine.remove(vpntuns.alice.link)
    assert asked == [[None]] * 4
