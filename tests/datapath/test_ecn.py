"""ECN and DSCP between inner and outer packets: on every way through the data path, as RFC 6040 says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datapath.ends import ALICE, BOB, End, TwoEnds, sealed, send_long_records
from tests.datapath.routing.test_delivery import bundle
from tests.datapath.routing.test_relay import Hub, one_hop_on
from tests.datapath.test_straight import Two as OverUdp
from tests.datapath.test_straight import over_udp
from tests.machine import HandLoop
from tests.wire.packets import is_right, payload, tcp, tcp_run, tcp_superpacket, udp
from vpntun.core.records.parity import ParityMaker
from vpntun.types import CarrierName
from vpntun.wire.ip import CE, DSCP, ECN, ECT_0, ECT_1, NOT_ECT, tos_of
from vpntun.wire.record import BUNDLE, PARITY, packets_of

EXPEDITED = 0xB8
SEGMENT = 1348

Given = bytes | tuple[bytes, int]


class Two(TwoEnds):
    """Alice and Bob, two vpntuns; or Bob is a WireGuard."""

    def __init__(
        self, loop: HandLoop, carrier: CarrierName = "udp", *, bob_is_plain: bool = False, copies_dscp: bool = False
    ) -> None:
        alice = End(ALICE, loop, copies_dscp=copies_dscp)
        super().__init__(alice, End(BOB, loop, plain=bob_is_plain), carrier)
        self.wire.shake_hands()
        self.bob.drops.clear()

    def sent(self, *packets: Given) -> list[tuple[int, list[bytes]]]:
        """Let Alice send packets; return the TOS byte of each datagram that carries packets, and those packets."""
        self.alice.send(*packets)
        tos = list(self.wire.to_right.tos)
        opened = [(each, self._opened(message)) for each, message in zip(tos, self.wire.to_right.take(), strict=True)]
        return [(each, inside) for each, inside in opened if inside is not None]

    def carry(self, *packets: Given) -> list[bytes]:
        """Let Alice send packets; return those that arrive at Bob's device."""
        self.alice.send(*packets)
        self.wire.run()
        arrived = self.bob.device.arrived
        self.bob.device.clear()
        return arrived

    def _opened(self, message: bytes) -> list[bytes] | None:
        """Return the packets in a message; None for a PARITY, which may follow a run of messages."""
        session = self.bob.link.peer.keys.current
        assert session is not None
        plaintext = memoryview(bytearray(len(message)))
        opened = plaintext[: session.open_into(memoryview(bytearray(message)), plaintext)]
        if opened[0] == PARITY:
            return None
        return [bytes(packet) for packet, _ in packets_of(opened)] if opened[0] == BUNDLE else [bytes(opened)]


@pytest.fixture(params=[False, True], ids=["vpntun", "WireGuard"])
def two(request: pytest.FixtureRequest, loop: HandLoop) -> Iterator[Two]:
    made = Two(loop, bob_is_plain=request.param)
    yield made
    made.close()


# Sending


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("dscp", [0, EXPEDITED])
@pytest.mark.parametrize("ecn", [NOT_ECT, ECT_0, ECT_1, CE])
def test_the_outer_packet_has_the_ecn_field_of_the_inner_one_and_no_dscp(
    two: Two, version: int, dscp: int, ecn: int
) -> None:
    (datagram,) = two.sent(tcp(version, b"data", tos=dscp | ecn))
    assert datagram[0] == ecn


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tos", [0, ECT_0, EXPEDITED, EXPEDITED | CE, 0xC0, 0xFF])
@pytest.mark.parametrize("bob_is_plain", [False, True])
def test_the_dscp_is_copied_if_that_was_asked_for(loop: HandLoop, version: int, tos: int, bob_is_plain: bool) -> None:
    two = Two(loop, bob_is_plain=bob_is_plain, copies_dscp=True)
    assert [datagram[0] for datagram in two.sent(tcp(version, b"data", tos=tos))] == [tos]
    two.close()


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([4, 6]), st.sampled_from([0, 0, 1, 2, 3, EXPEDITED, EXPEDITED | 2]), st.booleans()),
        min_size=1,
        max_size=30,
    ),
    st.booleans(),
    st.booleans(),
)
def test_a_datagram_never_carries_packets_of_different_fields_and_the_order_stays(
    kinds: list[tuple[int, int, bool]], bob_is_plain: bool, copies_dscp: bool
) -> None:
    packets = [
        tcp(version, b"%d" % index, tos=tos) if is_tcp else udp(version, b"%02d" % index, tos=tos)
        for index, (version, tos, is_tcp) in enumerate(kinds)
    ]
    with closing(HandLoop()) as loop, closing(Two(loop, bob_is_plain=bob_is_plain, copies_dscp=copies_dscp)) as two:
        datagrams = two.sent(*packets)
    copied = ECN | DSCP if copies_dscp else ECN
    for tos, inside in datagrams:
        assert {tos_of(packet) & copied for packet in inside} == {tos}
    inner = [packet for _, inside in datagrams for packet in inside]
    assert [packet[: len(expected)] for packet, expected in zip(inner, packets, strict=True)] == packets


def test_packets_of_one_field_share_a_record_and_another_field_begins_the_next(loop: HandLoop) -> None:
    two = Two(loop)
    marked, unmarked = [tcp(4, b"%d" % number, tos=ECT_0) for number in range(3)], tcp(4, b"ACK")
    assert two.sent(*marked, unmarked, unmarked, *marked) == [
        (ECT_0, marked),
        (NOT_ECT, [unmarked, unmarked]),
        (ECT_0, marked),
    ]
    two.close()


@pytest.mark.parametrize("long", [False, True])
def test_a_superpacket_takes_as_few_calls_with_ecn_as_without(loop: HandLoop, long: bool) -> None:
    calls = []
    for tos in (NOT_ECT, ECT_0):
        two = over_udp(loop)
        two.alice.link.records.span.protection.wanted = False
        send_long_records(two.alice.link) if long else two.alice.link.records.span._follow(loop.now)
        two.wire.to_right.calls.clear()
        two.alice.send((tcp_superpacket(4, payload(40 * SEGMENT), tos=tos), SEGMENT), tcp(4, b"ACK"))
        calls.append(len(two.wire.to_right.calls))
        assert two.wire.to_right.tos[-1] == NOT_ECT
        assert set(two.wire.to_right.tos[:-1]) == {tos}
        two.wire.run()
        assert two.bob.device.arrived == [*tcp_run(4, payload(40 * SEGMENT), SEGMENT, tos=tos), tcp(4, b"ACK")]
        two.close()
    assert calls[1] <= calls[0] + 1


def test_what_takes_the_straight_path_has_its_own_field(loop: HandLoop) -> None:
    two: OverUdp = over_udp(loop)
    two.run_straight_one_at_a_time()
    fields = [NOT_ECT, ECT_0, ECT_0, NOT_ECT, CE, NOT_ECT, ECT_1]
    for number, tos in enumerate(fields):
        two.alice.send(tcp(4, b"%d" % number, tos=tos))
        assert two.wire.to_right.tos == [tos]
        two.wire.run()
    assert [tos_of(packet) for packet in two.bob.device.arrived] == fields
    two.close()


def test_packets_that_waited_have_their_own_fields(loop: HandLoop) -> None:
    two = Two(loop)
    fields = [NOT_ECT, ECT_0, ECT_0, CE, NOT_ECT, ECT_1]
    two.wire.to_right.is_ready = False
    two.alice.send(*(tcp(4, b"%d" % number, tos=tos) for number, tos in enumerate(fields)))
    two.wire.to_right.opens()
    two.alice.pump()
    assert two.wire.to_right.tos == [NOT_ECT, ECT_0, CE, NOT_ECT, ECT_1]
    two.close()


def test_a_parity_is_not_ect_whatever_it_protects(loop: HandLoop) -> None:
    two = over_udp(loop)
    protection = two.alice.link.records.span.protection
    protection.possible = protection.active = True
    two.alice.send(*(tcp(4, payload(1300), tos=ECT_0) for _ in range(16)))
    assert set(two.wire.to_right.tos) == {ECT_0, NOT_ECT}
    assert two.wire.to_right.tos.count(NOT_ECT) == 1
    two.close()


# Receiving


def test_a_congested_router_marks_what_may_be_marked(two: Two) -> None:
    two.wire.is_congested = True
    for version in (4, 6):
        for before, after in ((NOT_ECT, NOT_ECT), (ECT_0, CE), (ECT_1, CE), (CE, CE)):
            packet = tcp(version, payload(500), tos=EXPEDITED | before)
            assert two.carry(packet) == [tcp(version, payload(500), tos=EXPEDITED | after)]
            assert two.carry(packet, packet) == [tcp(version, payload(500), tos=EXPEDITED | after)] * 2
    assert not two.bob.drops


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("long", [False, True])
def test_all_packets_of_a_superpacket_are_marked_and_have_right_checksums(
    loop: HandLoop, version: int, long: bool
) -> None:
    two = over_udp(loop)
    if long:
        send_long_records(two.alice.link)
    two.wire.is_congested = True
    two.send(*[(tcp_superpacket(version, payload(20 * SEGMENT), tos=ECT_0), SEGMENT)] * 2)
    arrived = two.bob.device.arrived
    assert arrived == tcp_run(version, payload(20 * SEGMENT), SEGMENT, tos=CE) * 2
    assert all(map(is_right, arrived))
    two.close()


def test_over_a_stream_the_inner_field_stays(loop: HandLoop) -> None:
    two = Two(loop, "tcp")
    two.wire.is_congested = True
    assert two.carry(tcp(4, b"data", tos=ECT_0)) == [tcp(4, b"data", tos=ECT_0)]
    two.close()


def test_a_packet_that_cannot_be_marked_is_delivered_as_it_is(two: Two) -> None:
    two.alice.send(tcp(4, b"data"))
    for message in two.wire.to_right.take():
        two.bob.take(message, two.wire.to_left, CE)
    assert two.bob.device.arrived == [tcp(4, b"data")]


def test_only_the_packets_of_a_record_that_can_be_marked_are(loop: HandLoop) -> None:
    two = Two(loop)
    record = bundle((tcp(4, b"1", tos=ECT_0), 0), (tcp(4, b"2"), 0), (tcp(6, b"3", tos=ECT_1), 0))
    two.bob.take(sealed(two.alice.link, record), two.wire.to_left, CE)
    assert two.bob.device.arrived == [tcp(4, b"1", tos=CE), tcp(4, b"2"), tcp(6, b"3", tos=CE)]
    two.close()


def test_a_mark_on_a_keepalive_or_a_record_without_packets_is_ignored(loop: HandLoop) -> None:
    two = Two(loop)
    for message in (sealed(two.alice.link, b""), sealed(two.alice.link, bytes((4,)) + bytes(8))):
        two.bob.take(message, two.wire.to_left, CE)
    assert not two.bob.drops
    two.close()


@pytest.mark.parametrize("marked", [0, 5, -1])
def test_a_mark_on_any_piece_of_a_record_marks_its_packets(loop: HandLoop, marked: int) -> None:
    two = over_udp(loop)
    send_long_records(two.alice.link)
    two.alice.send((tcp_superpacket(4, payload(20 * SEGMENT), tos=ECT_0), SEGMENT))
    pieces = two.wire.to_right.take()
    assert len(pieces) > 10
    marks = [ECT_0] * len(pieces)
    marks[marked] = CE
    for piece, ecn in zip(pieces, marks, strict=True):
        two.bob.take(piece, two.wire.to_left, ecn)
    assert two.bob.device.arrived == tcp_run(4, payload(20 * SEGMENT), SEGMENT, tos=CE)
    two.close()


def test_pieces_with_ect_0_and_ect_1_are_no_mark(loop: HandLoop) -> None:
    two = over_udp(loop)
    send_long_records(two.alice.link)
    two.alice.send((tcp_superpacket(4, payload(20 * SEGMENT), tos=ECT_0), SEGMENT))
    for number, piece in enumerate(two.wire.to_right.take()):
        two.bob.take(piece, two.wire.to_left, (ECT_0, ECT_1)[number & 1])
    assert two.bob.device.arrived == tcp_run(4, payload(20 * SEGMENT), SEGMENT, tos=ECT_0)
    two.close()


def test_a_record_whose_piece_was_marked_is_followed_by_one_that_is_not(loop: HandLoop) -> None:
    two = over_udp(loop)
    send_long_records(two.alice.link)
    for marks in ({0: CE}, {}):
        two.alice.send((tcp_superpacket(4, payload(20 * SEGMENT), tos=ECT_0), SEGMENT))
        pieces = list(enumerate(two.wire.to_right.take()))
        for number, piece in reversed(pieces):
            two.bob.take(piece, two.wire.to_left, marks.get(number, ECT_0))
    run = [tcp_run(4, payload(20 * SEGMENT), SEGMENT, tos=tos) for tos in (CE, ECT_0)]
    assert two.bob.device.arrived == [*run[0], *run[1]]
    two.close()


def test_marks_do_not_spoil_what_a_parity_restores(loop: HandLoop) -> None:
    two = Two(loop)
    session = two.alice.link.peer.keys.current
    assert session is not None
    for first in range(2):  # Bob keeps records once a parity has come
        maker, messages, parity = ParityMaker(), [], b""
        for number in range(4):
            record = bundle((tcp(4, b"%d" % number, tos=ECT_0), 0))
            parity = maker.add(session.send_counter, memoryview(record), 4)
            messages.append(sealed(two.alice.link, record))
        two.bob.device.clear()
        for message in messages[:2] + messages[2 + first :]:
            two.bob.take(message, two.wire.to_left, CE)
        two.bob.take(sealed(two.alice.link, parity), two.wire.to_left)
    assert two.bob.device.arrived == [
        *(tcp(4, b"%d" % number, tos=CE) for number in (0, 1, 3)),
        tcp(4, b"2", tos=ECT_0),
    ]
    two.close()


def test_a_relay_passes_marks_on(loop: HandLoop) -> None:
    hub = Hub(loop)
    hub.alices.is_congested = True
    hub.alice.send(tcp(4, b"data", tos=ECT_0))
    hub.alices.run()
    assert hub.carols.to_left.tos == [CE] or hub.carols.to_right.tos == [CE]
    hub.run()
    assert hub.carol.device.arrived == [one_hop_on(tcp(4, b"data", tos=CE))]
    hub.close()
