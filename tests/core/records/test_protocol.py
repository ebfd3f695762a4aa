"""What two vpntuns say inside a session, in pairs and at an explicit time: who says what, when and where."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.fakes import FakeEndpoint
from tests.core.records.room import room_of
from vpntun.core.endpoint import Endpoint
from vpntun.core.events import DrainQueue, Event, HandshakeWanted, PathVerified, SendRecord
from vpntun.core.records.black_hole import SILENCE
from vpntun.core.records.pathmtu import BASE
from vpntun.core.records.protocol import UNCUT, RecordProtocol
from vpntun.core.records.span import MOST
from vpntun.crypto.noise import SessionKeys
from vpntun.crypto.session import Session
from vpntun.errors import BadPacket
from vpntun.types import NEVER
from vpntun.wire.burst import datagrams_for
from vpntun.wire.message import DATA_OVERHEAD
from vpntun.wire.record import (
    ECHO,
    HELLO,
    LARGEST_RECORD,
    LAST_KIND,
    PROBE,
    REPORT,
    SMALLEST_PROBE,
    TAKES_BURSTS,
    TAKES_PARITY,
    TAKES_TSO4,
    Echo,
    Hello,
    Probe,
    Report,
)

TAKES = TAKES_BURSTS | TAKES_TSO4
UDP = FakeEndpoint("udp")
TCP = FakeEndpoint("tcp", "tcp")
START = 1000.0


def new_session(number: int, now: float) -> Session:
    return Session(SessionKeys(b"a" * 32, b"b" * 32), number, number, True, now)


@dataclass
class End:
    """One end: its conversation, the session it seals with, and what it has said."""

    records: RecordProtocol
    said: list[tuple[float, SendRecord]] = field(default_factory=list)
    proved: list[Endpoint] = field(default_factory=list)
    ready: int = 0
    handshakes: int = 0
    session: Session = field(default_factory=lambda: new_session(0, START))

    def kinds(self, since: float = 0.0) -> list[int]:
        return [say.record[0] for at, say in self.said if at >= since]


class Two:
    """Two ends and what is under way between them, delivered after `latency`; every path leads to the other end.

    `passes` says which messages do: (record, the endpoint it is sent to) -> bool. Sizes are of whole messages.
    """

    def __init__(self, *, known: bool = True, takes: tuple[int, int] = (TAKES, TAKES), mtu: int = 1420) -> None:
        self.now = START
        self.latency = 0.01
        self.passes: Callable[[bytes, Endpoint], bool] = lambda record, to: True
        self.refuses_above = 1 << 20
        self.left, self.right = (End(RecordProtocol(each, mtu, self.now, peer_is_vpntun=known)) for each in takes)
        for end in (self.left, self.right):
            end.records.moved(UDP, self.now, ipv6=False)
        self._under_way: list[tuple[float, End, bytes, Endpoint, int, int, int]] = []

    def confirm(self, number: int = 1) -> None:
        """A session stands at both ends."""
        for end in (self.left, self.right):
            end.session = new_session(number, self.now)
        for end in (self.left, self.right):
            self.act(end, end.records.confirmed(end.session, self.now))

    def other(self, end: End) -> End:
        return self.right if end is self.left else self.left

    def act(self, end: End, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, SendRecord):
                end.said.append((self.now, event))
                self._say(end, event)
            elif isinstance(event, PathVerified):
                end.proved.append(event.endpoint)
            elif isinstance(event, HandshakeWanted):
                end.handshakes += 1
            else:
                assert event == DrainQueue()
                end.ready += 1

    def _say(self, end: End, say: SendRecord) -> None:
        size = len(say.record) + DATA_OVERHEAD
        if say.size_matters:
            assert say.endpoint is not None
            end.session.send_counter += 1
            end.records.span.probed(end.session.send_counter - 1)
            if size > self.refuses_above:
                self.act(end, end.records.probe_refused(size, self.now))
                return
            end.session.send_counter -= 1
        self.send(end, say.record, say.endpoint or UDP, 1)

    def send(self, end: End, record: bytes, to: Endpoint = UDP, datagrams: int = 1) -> None:
        """A message leaves; it may be lost."""
        counter = end.session.send_counter
        end.session.send_counter += 1
        if self.passes(record, to):
            other = self.other(end)
            number = end.session.local_index
            self._under_way.append((self.now + self.latency, other, record, to, counter, datagrams, number))

    def packets(self, end: End, datagrams: int | None = None, size: int = 4000) -> bool:
        """A record with packets; False if it has to wait. `datagrams`: as many as the path asks for, unless given."""
        records = end.records
        if records.awaits_hello(end.session, self.now):
            return False
        room = room_of(records, end.session, self.now)
        length = min(size, room) + DATA_OVERHEAD if room else 1420
        if datagrams is None:
            datagrams = datagrams_for(length, records.payload)
        self.send(end, bytes([2]) + bytes(length), UDP, datagrams)
        counter = end.session.send_counter - 1
        if datagrams == 1:
            records.sent_singles(end.session, counter, 1, length, length, self.now)
        else:
            records.sent(end.session, counter, length, datagrams, self.now)
        self.act(end, records.on_traffic(end.session, self.now))
        return True

    def run(self, seconds: float) -> None:
        """Let time pass: messages arrive, deadlines are kept."""
        until = self.now + seconds
        at_once = 0
        while True:
            arrival = min((each[0] for each in self._under_way), default=NEVER)
            deadline = min(end.records.deadline for end in (self.left, self.right))
            upcoming = min(arrival, deadline)
            if upcoming > until:
                break
            at_once = at_once + 1 if upcoming <= self.now else 0
            assert at_once < 1000, "the loop would spin"
            self.now = max(self.now, upcoming)
            if arrival <= self.now:
                first = min(self._under_way, key=lambda each: each[0])
                self._under_way.remove(first)
                self._arrive(*first[1:])
            else:
                for end in (self.left, self.right):
                    self.act(end, end.records.handle_timer(self.now, self.now))
        self.now = until

    def _arrive(self, end: End, record: bytes, source: Endpoint, counter: int, datagrams: int, number: int) -> None:
        if number != end.session.local_index:
            return
        if record[0] == 2:
            end.records.opened(end.session, counter, datagrams, self.now, memoryview(record))
        else:
            end.records.opened_control(end.session, counter, datagrams)
            self.act(end, end.records.received(end.session, memoryview(record), source, self.now))


@pytest.fixture
def met() -> Two:
    """Two that have said HELLO, and nothing else."""
    two = Two()
    two.confirm()
    two.run(0.5)
    two.left.said.clear()
    two.right.said.clear()
    return two


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


def test_a_rekey_inherits_what_the_peer_takes_for_one_second(met: Two) -> None:
    met.now += 100
    met.passes = lambda record, to: False
    met.confirm(2)
    records, session = met.left.records, met.left.session
    assert not records.awaits_hello(session, met.now)
    assert room_of(records, session, met.now) > 1500
    met.now += 0.99
    assert room_of(records, session, met.now) > 1500
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
    hello = Hello(True, TAKES, 2000).pack()
    met.left.records.received(met.left.session, memoryview(hello), UDP, met.now)
    assert room_of(met.left.records, met.left.session, met.now) == 2000


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
    assert two.right.records.dont_fragment


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


# Path MTU


def passing_up_to(largest: int) -> Callable[[bytes, Endpoint], bool]:
    return lambda record, to: record[0] == 2 or len(record) + DATA_OVERHEAD <= largest


@pytest.mark.parametrize("largest", [1200, 1232, 1252, 1372, 1452, 1472, 8972, 65507])
def test_the_length_of_the_path_is_found(met: Two, largest: int) -> None:
    met.passes = passing_up_to(largest)
    met.packets(met.left)  # the search begins with the traffic
    met.run(120)
    assert largest - 8 <= met.left.records.payload <= largest
    assert met.left.records.dont_fragment


def test_what_was_found_of_the_path_is_said_where_records_go_over_it_in_datagrams(met: Two) -> None:
    records = met.left.records
    assert records.last_round_trip == (0.0, -NEVER)
    met.latency = 0.02
    met.packets(met.left)
    met.run(30.0)
    assert records.cuts
    assert records.path_payload == 65507
    assert records.last_round_trip[0] == pytest.approx(0.04)
    records.moved(TCP, met.now, ipv6=False)
    assert not records.cuts
    assert records.path_payload is None


def test_lengths_that_this_host_refuses_are_left_out_at_once(met: Two) -> None:
    met.refuses_above = 1472
    met.packets(met.left)
    met.run(1.0)
    assert met.left.records.payload == 1472


def test_the_search_ends_and_begins_again_ten_minutes_later(met: Two) -> None:
    met.refuses_above = 1472
    met.packets(met.left)
    met.run(60)
    since = met.now
    met.run(500)
    assert met.left.kinds(since) == []
    met.refuses_above = 8972
    met.run(200)
    assert met.left.records.payload == 8972


def test_over_a_stream_no_length_is_searched_for(met: Two) -> None:
    met.left.records.moved(TCP, met.now, ipv6=False)
    met.packets(met.left)
    met.left.said.clear()
    met.run(100)
    assert PROBE not in met.left.kinds()


def test_a_burst_that_this_host_refuses_brings_the_length_down_at_once(met: Two) -> None:
    met.packets(met.left)
    met.run(60)
    long = met.left.records.payload
    assert long > 1400
    met.left.records.refused(long, met.now)
    assert met.left.records.payload == BASE
    met.left.records.refused(long, met.now)  # it was sealed before the first was refused
    assert met.left.records.payload == BASE
    assert met.left.records.dont_fragment
    met.passes = passing_up_to(1400)
    met.run(60)
    assert 1392 <= met.left.records.payload <= 1400


def test_a_black_hole_is_found_by_a_small_probe_and_brings_the_length_down(met: Two) -> None:
    met.refuses_above = 1472
    met.packets(met.left)
    met.run(60)
    assert met.left.records.payload == 1472
    records = met.left.records
    met.passes = lambda record, to: (
        (record[0] != 2 if records.payload > 1400 else True) and (record[0] == 2 or len(record) + DATA_OVERHEAD <= 1400)
    )
    for _ in range(400):
        met.packets(met.left)
        if records.span.black_hole.is_seen(met.now):
            met.act(met.left, records.look_for_black_hole(met.now))
        met.run(0.01)
    assert BASE <= records.payload <= 1400
    assert records.span.span == datagrams_for(1420 + DATA_OVERHEAD, records.payload)


def test_bursts_that_vanish_with_everything_else_are_no_black_hole(met: Two) -> None:
    met.refuses_above = 1472
    for _ in range(20):
        met.packets(met.left)
        met.run(0.05)
    assert met.left.records.payload == 1472
    met.passes = lambda record, to: False
    for _ in range(400):
        met.packets(met.left)
        if met.left.records.span.black_hole.is_seen(met.now):
            met.act(met.left, met.left.records.look_for_black_hole(met.now))
        met.run(0.01)
    assert met.left.records.payload == 1472


def test_fragments_that_a_middlebox_drops_are_replaced_by_the_smallest_records(met: Two) -> None:
    records = met.left.records
    met.refuses_above = 1200
    met.passes = lambda record, to: record[0] != 2 or datagrams_for(len(record) + 31, records.payload) == 1
    for _ in range(300):
        met.packets(met.left)
        if records.span.black_hole.is_seen(met.now):
            met.act(met.left, records.look_for_black_hole(met.now))
        met.run(0.01)
    room = room_of(records, met.left.session, met.now)
    assert datagrams_for(room + DATA_OVERHEAD, records.payload) <= 2


@pytest.mark.parametrize("pauses", [(0.2, 0.4, 0.8, 1.6, 3.2), (0.3, 0.6, 1.2, 2.4, 4.8), (1.0, 2.0, 4.0, 8.0)])
def test_fragments_that_a_middlebox_drops_later_are_recognised_by_a_flow_that_backs_off(
    met: Two, pauses: tuple[float, ...]
) -> None:
    # A lone TCP flow sends its first segment again, ever more seldom; it needs two datagrams of 1,200 bytes.
    records = met.left.records
    met.refuses_above = 1200
    for _ in range(40):
        met.packets(met.left)
        met.run(0.05)

    def passes(record: bytes, to: Endpoint) -> bool:
        return record[0] != 2 or datagrams_for(len(record) + 31, records.payload) == 1

    met.passes = passes
    for pause in (0.0, *pauses):
        met.run(pause)
        met.packets(met.left, size=1425)
        if not records.dont_fragment:
            break
        if records.span.black_hole.is_seen(met.now):
            met.act(met.left, records.look_for_black_hole(met.now))
    assert not records.dont_fragment
    assert not records.span.black_hole.passes
    assert datagrams_for(1425 + DATA_OVERHEAD, records.payload) == 1


def test_below_the_base_messages_go_whole_one_packet_each_and_may_be_cut_by_routers(met: Two) -> None:
    records = met.left.records
    room_of(records, met.left.session, met.now)
    records.refused(BASE, met.now)
    assert records.payload == UNCUT
    assert not records.dont_fragment
    room = room_of(records, met.left.session, met.now)
    assert 1420 + 5 <= room < 2000
    records.refused(UNCUT, met.now)  # this host has nothing more to refuse
    assert records.payload == UNCUT


def test_another_endpoint_is_another_path(met: Two) -> None:
    met.packets(met.left)
    met.run(60)
    assert met.left.records.payload > BASE
    met.left.records.moved(FakeEndpoint("elsewhere"), met.now, ipv6=False)
    assert met.left.records.payload == BASE
    assert met.left.records.span.span == datagrams_for(1420 + DATA_OVERHEAD, BASE)


def test_over_a_stream_records_are_as_long_as_they_can_be(met: Two) -> None:
    met.left.records.moved(TCP, met.now, ipv6=False)
    assert room_of(met.left.records, met.left.session, met.now) == LARGEST_RECORD


def test_silence_of_bursts_is_looked_into_by_one_probe_at_a_time(met: Two) -> None:
    met.passes = lambda record, to: False
    met.packets(met.left, datagrams=4)
    met.now += SILENCE
    assert met.left.records.span.black_hole.is_seen(met.now)
    assert len(met.left.records.look_for_black_hole(met.now)) == 2  # one of that length, one small
    assert met.left.records.look_for_black_hole(met.now) == []


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
