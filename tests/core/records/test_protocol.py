"""What two vpntuns say inside a session, in pairs and at an explicit time: who says what, when and where."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.records.room import room_of
from tests.core.records.two import START, TAKES, TCP, UDP, Two, new_session
from vpntun.core.events import HandshakeWanted, PathVerified, SendRecord
from vpntun.core.records.hello import MOST_UNANSWERED
from vpntun.core.records.pathmtu import BASE
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.records.span import LARGEST_SEND, LEAST_OF_STREAM, MOST
from vpntun.errors import BadPacket
from vpntun.types import NEVER
from vpntun.wire.burst import datagrams_for
from vpntun.wire.message import DATA_OVERHEAD
from vpntun.wire.record import (
    BUNDLE,
    ECHO,
    HELLO,
    LARGEST_RECORD,
    LAST_KIND,
    PROBE,
    REPORT,
    SMALLEST_PROBE,
    TAKES_PARITY,
    TAKES_TSO4,
    Echo,
    Hello,
    Probe,
    Report,
)

# HELLO


def test_both_say_hello_at_once_and_each_then_knows_that_the_other_has_heard() -> None:
    two = Two()
    two.confirm()
    assert two.left.kinds() == two.right.kinds() == [HELLO]
    two.run(0.5)
    for end in (two.left, two.right):
        hellos = [Hello.parse(say.record) for _, say in end.said]
        assert [hello.seen_yours for hello in hellos] == [False, True]
        assert hellos[0].takes == TAKES
        assert end.records.takes_records(end.session, two.now)
    two.run(100)
    assert two.left.kinds() == two.right.kinds() == [HELLO, HELLO]


def test_what_waits_is_told_to_leave_when_the_hello_has_come() -> None:
    two = Two()
    two.confirm()
    assert two.left.ready == 0
    two.run(0.015)
    assert two.left.ready > 0


def test_with_a_shared_key_packets_wait_for_the_hello_however_often_it_is_lost() -> None:
    two = Two()
    two.passes = lambda record, to: two.now >= START + 9.0
    two.confirm()
    two.run(9.0)
    assert not two.packets(two.left)
    assert not two.packets(two.right)
    assert two.left.kinds().count(HELLO) == two.right.kinds().count(HELLO) == 4  # at once, then after 1, 2 and 4 s
    two.run(16.0)
    assert two.packets(two.left)
    assert two.packets(two.right)


def test_to_who_may_be_a_plain_wireguard_packets_do_not_wait_and_the_hello_is_repeated_with_traffic_alone() -> None:
    two = Two(known=False)
    two.passes = lambda record, to: False
    two.confirm()
    assert not two.left.records.awaits_hello(two.left.session, two.now)
    assert room_of(two.left.records, two.left.session, two.now) == 0
    two.run(300)
    assert two.left.kinds() == [HELLO]
    assert two.packets(two.left)
    assert two.left.kinds() == [HELLO, HELLO]
    assert two.left.records.takes == 0


def test_frames_wait_for_the_hello_until_the_peer_seems_to_be_a_plain_wireguard_and_then_no_longer() -> None:
    two = Two(known=False, left_is_tap=True)
    two.passes = lambda record, to: record[0] == BUNDLE
    two.confirm()
    for _ in range(40):
        assert not two.left.ready
        assert two.left.records.awaits_hello(two.left.session, two.now)
        two.packets(two.right)
        two.run(1)
        if two.left.records.seems_plain:
            break
    assert two.left.ready == 1
    assert two.left.kinds().count(HELLO) == MOST_UNANSWERED
    assert not two.left.records.awaits_hello(two.left.session, two.now)


@pytest.mark.parametrize("reports", [True, False])
def test_an_end_that_no_hello_reaches_asks_on_as_long_as_other_records_come(reports: bool) -> None:
    two = Two(known=False)
    hellos = 0

    def passes(record: bytes, to: object) -> bool:
        nonlocal hellos
        if record[0] != HELLO:
            return record[0] == BUNDLE or reports
        hellos += 1
        return hellos != 2 and not Hello.parse(record).seen_yours

    two.passes = passes
    two.confirm()
    for _ in range(200):
        two.packets(two.left)
        two.packets(two.right)
        two.run(1)
    assert (two.left.kinds().count(HELLO) > MOST_UNANSWERED) == reports


def test_a_rekey_inherits_what_the_peer_takes_for_one_second(met: Two) -> None:
    met.now += 100
    met.passes = lambda record, to: False
    met.confirm(2)
    records, session = met.left.records, met.left.session
    assert not records.awaits_hello(session, met.now)
    assert room_of(records, session, met.now) > 1000
    met.now += 0.99
    assert room_of(records, session, met.now) > 1000
    met.now += 0.02
    assert records.awaits_hello(session, met.now)
    assert room_of(records, session, met.now) == 0


def test_records_go_on_through_a_rekey_without_a_gap(met: Two) -> None:
    for number in range(2, 5):
        met.run(30)
        met.confirm(number)
        for _ in range(40):
            met.run(0.05)
            assert met.packets(met.left)
            assert met.left.records.takes == TAKES


def test_a_peer_whose_largest_record_holds_no_packet_takes_none() -> None:
    two = Two(known=False)
    two.confirm()
    two.left.records.received(two.left.session, memoryview(Hello(True, TAKES, 100).pack()), UDP, two.now)
    assert room_of(two.left.records, two.left.session, two.now) == 0


def test_a_record_is_no_longer_than_the_peer_takes(met: Two) -> None:
    for largest in (2000, 1800):
        hello = Hello(True, TAKES, largest).pack()
        met.left.records.received(met.left.session, memoryview(hello), UDP, met.now)
        room = room_of(met.left.records, met.left.session, met.now)
        assert room == min(largest, met.left.records.payload - DATA_OVERHEAD)
        assert met.left.records.room_for(1900) == largest


@pytest.mark.parametrize("path", [1232, 1472, 8972])
def test_a_packet_that_fits_in_no_record_of_one_datagram_gets_as_many_as_it_needs(met: Two, path: int) -> None:
    met.refuses_above = path
    met.packets(met.left)
    met.run(60)
    records = met.left.records
    single = room_of(records, met.left.session, met.now)
    assert single == records.payload - DATA_OVERHEAD
    for size in (20, single, single + 1, 2 * single, 2 * single + 20, 20_000, 60_000):
        datagrams = datagrams_for(size + DATA_OVERHEAD, records.payload)
        room = records.room_for(size)
        assert room >= size
        assert datagrams_for(room + DATA_OVERHEAD, records.payload) == datagrams
        assert datagrams_for(room + 1 + DATA_OVERHEAD, records.payload) == datagrams + 1
    assert records.room_for(LARGEST_SEND) < LARGEST_SEND


def test_over_a_stream_a_packet_gets_the_room_that_it_needs_however_slow_the_path(met: Two) -> None:
    records = met.left.records
    records.moved(TCP, met.now, ipv6=False)
    room_of(records, met.left.session, met.now)
    records.span.largest_record = LEAST_OF_STREAM
    assert records.room == records.room_for(100) == LEAST_OF_STREAM
    assert records.room_for(9019) == 9019
    assert records.room_for(LARGEST_RECORD + 1) == LARGEST_RECORD


def test_a_peer_without_bursts_gets_each_record_whole_be_it_longer_than_the_path() -> None:
    two = Two(takes=(TAKES, TAKES_TSO4))
    two.confirm()
    two.run(0.015)
    records = two.left.records
    room = room_of(records, two.left.session, two.now)
    assert room >= 1420 + 5
    assert datagrams_for(room + DATA_OVERHEAD, records.payload) == 1
    assert not records.dont_fragment
    assert room_of(two.right.records, two.right.session, two.now) > 0
    assert two.right.records.payload == BASE


# REPORT


@pytest.mark.parametrize("takes", [TAKES, TAKES | TAKES_PARITY], ids=["a peer that does not", "a peer that does"])
def test_records_are_protected_only_for_a_peer_that_takes_it(takes: int) -> None:
    two = Two(takes=(TAKES | TAKES_PARITY, takes))
    two.refuses_above = 1472
    two.confirm()
    two.run(0.5)
    lossy = iter(range(10_000))
    two.passes = lambda record, to: record[0] != 2 or next(lossy) % 50 != 0
    for _ in range(1000):
        two.packets(two.left, size=1000)
        two.run(0.002)
    assert two.left.records.takes == TAKES
    assert two.left.records.span.protection.wanted
    assert two.left.records.span.protection.active == bool(takes & TAKES_PARITY)


def test_reports_are_caused_by_packets_and_never_by_reports(met: Two) -> None:
    met.packets(met.left)
    met.run(30)  # the search for the path's length has ended
    quiet_since = met.now
    met.packets(met.left)
    met.run(600)
    assert met.left.kinds(quiet_since) == []
    assert met.right.kinds(quiet_since) == [REPORT]


def test_traffic_both_ways_makes_a_report_each_way_every_fifty_milliseconds(met: Two) -> None:
    met.run(30)
    since = met.now
    for _ in range(100):
        met.packets(met.left)
        met.packets(met.right)
        met.run(0.01)
    for end in (met.left, met.right):
        assert 15 <= end.kinds(since).count(REPORT) <= 21
    met.run(0.2)
    since = met.now
    met.run(600)
    assert met.left.kinds(since) == met.right.kinds(since) == []


def test_an_idle_link_says_nothing() -> None:
    two = Two()
    two.confirm()
    two.run(1)
    since = two.now
    two.run(3600)
    assert two.left.kinds(since) == two.right.kinds(since) == []


def test_records_become_long_by_reports_and_single_again_by_losses(met: Two) -> None:
    span = met.left.records.span
    met.refuses_above = 1472
    met.packets(met.left)
    met.run(10)

    def traffic(count: int) -> None:
        for number in range(count):
            met.passes = lambda record, to, number=number: record[0] != 2 or not every or number % every  # type: ignore[misc]
            met.packets(met.left)
            span.bottleneck.backlogged += 1
            met.run(0.002)

    every = 0
    assert span.span == 1
    traffic(500)
    assert span.span == MOST
    every = 10
    traffic(2000)
    assert span.span == 1


def test_a_report_of_another_session_is_not_believed(met: Two) -> None:
    for _ in range(10):
        met.packets(met.left)
    stranger = new_session(77, met.now)
    before = met.left.records.span.estimator.rate
    events = met.left.records.received(stranger, memoryview(Report(9, 1, 1, 0).pack()), UDP, met.now + 1)
    assert events == []
    assert met.left.records.span.estimator.rate == before


# PROBE and ECHO


def test_a_probe_is_answered_on_the_path_it_came_by_by_a_small_echo(met: Two) -> None:
    probe = Probe(0x1234, 1400).pack()
    (event,) = met.left.records.received(met.left.session, memoryview(probe), TCP, met.now)
    assert isinstance(event, SendRecord)
    assert event.endpoint == TCP
    assert not event.size_matters
    assert Echo.parse(event.record) == Echo(0x1234, 1400)
    assert len(event.record) == 11


def test_a_path_that_is_tried_proves_itself_by_the_echo_that_comes_back_by_it(met: Two) -> None:
    met.act(met.left, met.left.records.try_path(TCP, met.now))
    ((_, said),) = met.left.said
    assert said.endpoint == TCP
    assert said.record[0] == PROBE
    assert len(said.record) == SMALLEST_PROBE
    met.run(0.015)
    assert met.left.proved == []
    met.run(0.010)
    assert met.left.proved == [TCP]
    assert met.right.proved == []


def test_an_echo_that_comes_back_by_another_path_proves_nothing(met: Two) -> None:
    (said,) = met.left.records.try_path(TCP, met.now)
    assert isinstance(said, SendRecord)
    echo = Echo(Probe.parse(said.record).token, SMALLEST_PROBE).pack()
    assert met.left.records.received(met.left.session, memoryview(echo), UDP, met.now) == []
    assert met.left.records.received(met.left.session, memoryview(echo), TCP, met.now) == [PathVerified(TCP)]
    assert met.left.records.received(met.left.session, memoryview(echo), TCP, met.now) == []


def test_an_echo_that_nobody_asked_for_proves_nothing(met: Two) -> None:
    for token in (0, 1, 2**64 - 1):
        echo = Echo(token, 65535).pack()
        assert met.left.records.received(met.left.session, memoryview(echo), UDP, met.now) == []
    assert met.left.records.payload == BASE


def test_a_path_cannot_be_tried_with_a_peer_that_has_not_said_hello() -> None:
    two = Two(known=False)
    assert two.left.records.try_path(TCP, two.now) == []
    two.passes = lambda record, to: False
    two.confirm()
    assert two.left.records.try_path(TCP, two.now) == []


# Whatever comes


@pytest.mark.parametrize("kind", [kind for kind in range(LAST_KIND + 1) if kind not in range(1, 6)])
def test_unknown_kinds_are_dropped(met: Two, kind: int) -> None:
    for size in (1, 2, 100, 65000):
        with pytest.raises(BadPacket, match="unknown record"):
            met.left.records.received(met.left.session, memoryview(bytes([kind]) * size), UDP, met.now)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([HELLO, REPORT, PROBE, ECHO, 0, 6, 63]), st.binary(max_size=50), st.floats(0, 5)),
        max_size=30,
    )
)
def test_no_record_raises_anything_else_makes_the_loop_spin_or_the_answers_more_than_the_questions(
    said: list[tuple[int, bytes, float]],
) -> None:
    two = Two()
    two.confirm()
    two.run(0.5)
    records, session = two.left.records, two.left.session
    for kind, body, pause in said:
        before = len(two.left.said)
        with suppress(BadPacket):
            two.act(two.left, records.received(session, memoryview(bytes([kind]) + body), TCP, two.now))
        assert len(two.left.said) <= before + 1
        two.packets(two.left)
        two.run(pause)
        assert records.payload >= BASE
        assert 0 <= room_of(records, session, two.now) <= LARGEST_RECORD


def test_a_hello_that_nobody_answers_asks_for_a_handshake_since_packets_wait_for_it() -> None:
    records = RecordProtocol(TAKES, 1420, START, peer_is_vpntun=True)
    records.moved(UDP, START, ipv6=False)
    records.confirmed(new_session(1, START), START)
    asked = []
    while records.deadline < START + 20:
        now = records.deadline
        if HandshakeWanted() in records.handle_timer(now, now):
            asked.append(now)
    assert asked
    assert START + 5 <= asked[0] <= START + 10


def test_towards_a_plain_wireguard_nothing_is_refreshed_packet_by_packet() -> None:
    two = Two()
    two.confirm()
    records, session = two.left.records, two.left.session
    assert room_of(records, session, two.now) == 0
    assert records.refresh_due > two.now + 100


def test_a_move_has_the_room_for_a_record_refreshed_in_the_session_of_that_moment(met: Two) -> None:
    records = met.left.records
    assert room_of(records, met.left.session, met.now) > 0
    assert records.refresh_due > met.now
    records.moved(UDP, met.now, ipv6=False)
    assert records.refresh_due <= met.now
    unknown = new_session(99, met.now - 10)
    assert room_of(records, unknown, met.now) == 0


# Verification


def test_a_vpntun_answers_a_verification_once_a_second_and_any_other_path_proves_nothing() -> None:
    two = Two()
    two.confirm()
    two.run(2.0)
    left, verification = two.left, two.left.records.verification
    asked = two.now
    for _ in range(5):
        two.act(left, left.records.verify(two.now))
    assert left.kinds(asked).count(PROBE) == 1
    assert verification.is_awaited
    two.run(0.5)
    assert asked < verification.proven_at <= two.now
    left.records.moved(TCP, two.now, ipv6=False)
    assert verification.proven_at == -NEVER
    two.act(left, left.records.try_path(UDP, two.now))
    two.run(0.5)
    assert verification.proven_at == -NEVER


def test_without_a_session_or_a_hello_nobody_is_asked() -> None:
    two = Two(known=False)
    assert two.left.records.verify(two.now) == []
    two.passes = lambda record, to: False
    two.confirm()
    assert two.left.records.verify(two.now) == []
