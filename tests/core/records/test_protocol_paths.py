"""The length of the path between two vpntuns: the record protocol finds it, follows it, and notices black holes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.core.fakes import FakeEndpoint
from tests.core.records.room import room_of
from tests.core.records.two import TCP, Two
from vpntun.core.endpoint import Endpoint
from vpntun.core.events import Event, SendRecord
from vpntun.core.records.black_hole import SILENCE
from vpntun.core.records.pathmtu import BASE
from vpntun.core.records.protocol import UNCUT
from vpntun.types import NEVER
from vpntun.wire.burst import datagrams_for
from vpntun.wire.message import DATA_OVERHEAD
from vpntun.wire.record import LARGEST_RECORD, PROBE, SMALLEST_PROBE

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


def test_on_a_path_of_576_bytes_nothing_is_lost_before_and_after_it_is_known(met: Two) -> None:
    def passes(record: bytes, to: Endpoint) -> bool:
        length = len(record) + DATA_OVERHEAD
        return length <= 548 if record[0] == PROBE else not (records.dont_fragment and length > 548)

    met.passes = passes
    records, sent = met.left.records, 0
    for _ in range(40):
        sent += met.packets(met.left, size=1425)
        met.run(0.2)
    assert sent == 40
    assert records.span.reported_sent > 40
    assert records.span.reported_lost <= 0, "PROBEs do not count"
    assert (records.payload, records.dont_fragment) == (UNCUT, False)
    assert records.path_payload is None


def test_routers_may_fragment_datagrams_until_some_of_their_length_have_passed(met: Two) -> None:
    records = met.left.records
    met.packets(met.left)
    assert (records.payload, records.dont_fragment) == (BASE, False)
    met.refuses_above = 1472
    met.run(0.1)
    assert (records.payload, records.dont_fragment) == (1472, True)


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
    assert not met.left.records.dont_fragment, "nothing is known of shorter ones"
    met.passes = passing_up_to(1400)
    met.run(60)
    assert 1392 <= met.left.records.payload <= 1400
    assert met.left.records.dont_fragment


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
    assert records.span.span == 1


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
    met.drops_pieces = True
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

    met.drops_pieces = True
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
    assert met.left.records.span.span == 1


def test_over_a_stream_records_are_as_long_as_they_can_be(met: Two) -> None:
    met.left.records.moved(TCP, met.now, ipv6=False)
    assert room_of(met.left.records, met.left.session, met.now) == LARGEST_RECORD


def sizes(event: Event) -> tuple[int, int]:
    """Return a PROBE's bytes, and the number of datagrams that it is sent in."""
    assert isinstance(event, SendRecord)
    size = len(event.record) + DATA_OVERHEAD
    return size, datagrams_for(size, event.datagram or size)


@pytest.fixture
def narrow(met: Two) -> Two:
    """Two ends on a path whose datagrams are too short for the packets that left sends; their length is known."""
    met.refuses_above = 1232
    met.packets(met.left)
    met.run(60)
    return met


def lost_in(met: Two, seconds: float, every: float) -> list[float]:
    """Send packets from the left end at this interval. Return the seconds after which packets were lost."""
    since, lost = met.now, []
    while met.now < since + seconds:
        counter = met.left.session.send_counter
        met.packets(met.left, size=1425)
        if not any(each[4] == counter for each in met._under_way):
            lost.append(met.now - since)
        met.act(met.left, met.left.records.look_for_black_hole(met.now))
        met.run(every)
    return lost


@pytest.mark.parametrize("every", [0.02, 0.2, 0.4, 1.0, 3.0])
@pytest.mark.parametrize("was_used", [True, False], ids=["in use", "at first"])
def test_a_firewall_that_drops_pieces_costs_less_than_a_second_of_packets_in_ten_minutes(
    narrow: Two, every: float, was_used: bool
) -> None:
    if was_used:
        assert lost_in(narrow, 3.0, every) == []
    narrow.drops_pieces = True
    lost = lost_in(narrow, 600.0, every)
    assert lost
    assert max(lost) < 1
    assert not narrow.left.records.dont_fragment


def test_bursts_are_sent_again_once_the_firewall_lets_a_probe_pass(narrow: Two) -> None:
    records = narrow.left.records
    narrow.drops_pieces = True
    lost_in(narrow, 30.0, 0.2)
    assert not records.span.black_hole.passes
    narrow.drops_pieces = False
    assert lost_in(narrow, 30.0, 0.2) == []
    assert records.span.black_hole.passes
    assert 1220 < records.payload <= 1232


def test_while_nothing_is_sent_bursts_are_not_tried_again(narrow: Two) -> None:
    narrow.drops_pieces = True
    lost_in(narrow, 2.0, 0.2)
    narrow.run(5)
    since = narrow.now
    narrow.run(300)
    assert narrow.left.kinds(since) == []


def test_a_lone_burst_that_is_lost_is_looked_into_once(narrow: Two) -> None:
    narrow.passes = lambda record, to: False
    narrow.packets(narrow.left, size=1425)
    narrow.passes = lambda record, to: True
    since = narrow.now
    narrow.run(300)
    looked = [sizes(event)[1] for at, event in narrow.left.said if at >= since and event.record[0] == PROBE]
    assert looked == [1, 2, 1]
    assert narrow.left.records.span.black_hole.passes


def test_on_a_path_with_a_long_round_trip_reports_are_waited_for(narrow: Two) -> None:
    narrow.latency = 0.4
    for _ in range(30):
        narrow.packets(narrow.left)
        narrow.run(0.5)
    since = narrow.now
    for _ in range(30):
        narrow.packets(narrow.left, size=1425)
        narrow.act(narrow.left, narrow.left.records.look_for_black_hole(narrow.now))
        narrow.run(0.5)
    assert PROBE not in narrow.left.kinds(since)


def test_silence_of_bursts_is_looked_into_by_one_probe_at_a_time(met: Two) -> None:
    met.passes = lambda record, to: False
    met.packets(met.left, datagrams=4)
    met.now += SILENCE
    assert met.left.records.span.black_hole.is_seen(met.now)
    looked = met.left.records.look_for_black_hole(met.now)
    assert [sizes(each) for each in looked] == [(BASE, 1), (BASE + 1, 2), (SMALLEST_PROBE + DATA_OVERHEAD, 1)]
    assert met.left.records.look_for_black_hole(met.now) == []
