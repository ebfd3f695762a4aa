"""A hub of TAP devices is a switch: it learns, forwards, floods within bounds, and believes no stolen address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.ends import sealed
from tests.datapath.switching.lan import ALL, Lan, carrying, frame, frames, station
from tests.machine import HandLoop
from tests.wire.packets import payload, tcp_superpacket, udp_superpacket
from vpntun.core.mac_table import AGE, LOCAL
from vpntun.crypto.session import REJECT_AFTER_TIME
from vpntun.datapath.switching.switch import COPIES_AT_ONCE, MOST_WAITING, SECONDS_BETWEEN_CLAIMS
from vpntun.wire.vnet import UNFINISHED

A, B, C, D, NOBODY = map(station, (1, 2, 3, 4, 9))


@pytest.fixture
def lan(loop: HandLoop) -> Iterator[Lan]:
    made = Lan(loop)
    yield made
    made.close()


@pytest.fixture
def known(lan: Lan) -> Lan:
    """The network, once every station has shown itself to all."""
    for end, address in zip(lan.ends, (A, B, C, D), strict=True):
        lan.send(end, frame(address, ALL))
    lan.arrived()
    return lan


def test_a_frame_for_all_reaches_every_device_but_its_own_once(lan: Lan) -> None:
    asked = frame(A, ALL)
    lan.send(lan.alice, asked)
    assert lan.arrived() == ([], [asked], [asked], [asked])
    from_the_hub = frame(B, ALL)
    lan.send(lan.bob, from_the_hub)
    assert lan.arrived() == ([from_the_hub], [], [from_the_hub], [from_the_hub])


def test_a_frame_for_an_unknown_station_goes_everywhere_and_for_a_known_one_only_there(lan: Lan) -> None:
    question, answer = frame(A, C), frame(C, A)
    lan.send(lan.alice, question)
    assert lan.arrived() == ([], [question], [question], [question])
    lan.send(lan.carol, answer)
    assert lan.arrived() == ([answer], [], [], [])
    lan.send(lan.alice, question)
    assert lan.arrived() == ([], [], [question], [])


def test_stations_at_the_hub_reach_those_behind_peers_and_the_reverse(known: Lan) -> None:
    out, back = frame(B, C), frame(C, B)
    known.send(known.bob, out)
    known.send(known.carol, back)
    assert known.arrived() == ([], [back], [out], [])


def test_a_superpacket_crosses_the_hub_whole(loop: HandLoop) -> None:
    lan = Lan(loop, ("tcp", "tcp"))
    lan.send(lan.carol, frame(C, ALL))
    lan.arrived()
    sent = carrying(tcp_superpacket(6, payload(40 * 1400)), A, C, 7)
    for _ in range(3):
        lan.send(lan.alice, (sent, 1400))
        assert lan.carol.device.packets == [sent]
        assert len(lan.carol.device.arrived) == 40
        assert lan.bob.device.packets == lan.dave.device.packets == []
        lan.arrived()
    lan.close()


def test_a_superpacket_is_cut_into_frames_where_a_path_needs_that(known: Lan) -> None:
    sent = carrying(tcp_superpacket(4, payload(10_000)), A, C, 7)
    known.send(known.alice, (sent, 1400))
    arrived = known.arrived()[2]
    assert [len(each) for each in arrived] == [18 + 52 + 1400] * 7 + [18 + 52 + 200]
    assert {each[:18] for each in arrived} == {sent[:18]}
    assert b"".join(each[18 + 52 :] for each in arrived) == payload(10_000)


def test_a_frame_is_not_sent_back_to_where_its_destination_is(known: Lan) -> None:
    other = station(11)
    known.send(known.alice, frame(other, ALL))
    known.arrived()
    known.send_record(known.alices, (frame(A, other), 0))
    assert known.arrived() == ([], [], [], [])
    assert known.bob.drops == {"for the same side": 1}
    known.send(known.bob, frame(B, station(2)))
    assert known.bob.drops["for this side"] == 1


def test_a_peer_cannot_claim_an_address_that_is_fresh_at_another(known: Lan) -> None:
    known.send_record(known.daves, (frame(C, ALL, b"I am Carol"), 0))
    assert known.arrived() == ([], [], [], [])
    assert known.bob.drops == {"MAC address of another peer": 1}
    for_carol = frame(A, C)
    known.send(known.alice, for_carol)
    assert known.arrived() == ([], [], [for_carol], [])


def test_a_station_that_fell_silent_for_five_minutes_may_be_elsewhere(known: Lan, loop: HandLoop) -> None:
    loop.pass_time(AGE)
    known.daves.shake_hands()
    known.send_record(known.daves, (frame(C, ALL, b"I have moved"), 0))
    assert known.bob.engine.switch is not None
    assert known.bob.engine.switch.table.find(C, loop.now) is known.to_dave


def test_frames_that_come_back_are_dropped_counted_and_named(known: Lan, caplog: pytest.LogCaptureFixture) -> None:
    known.send_record(known.alices, (frame(B, ALL), 0))
    assert known.arrived() == ([], [], [], [])
    assert known.bob.drops == {"frame came back": 1}
    assert "a frame of 02:00:00:00:00:02, which is at this side, came from" in caplog.text
    known.send(known.bob, frame(A, ALL))
    assert known.bob.drops == {"frame came back": 2}
    assert known.arrived() == ([], [], [], [])


def test_no_peer_gets_the_address_of_the_device_itself(lan: Lan) -> None:
    lan.send_record(lan.alices, (frame(lan.bob.device.mac, ALL), 0))
    assert lan.arrived() == ([], [], [], [])
    assert lan.bob.drops == {"frame came back": 1}


def test_no_peer_gets_or_keeps_the_address_of_the_bridge_that_the_device_has_joined(known: Lan) -> None:
    known.bob.device.macs = (known.bob.device.mac, A)
    known.bob.engine.device_changed()
    known.send(known.alice, frame(A, ALL))
    assert known.arrived() == ([], [], [], [])
    for_the_bridge = frame(C, A)
    known.send(known.carol, for_the_bridge)
    assert known.arrived() == ([], [for_the_bridge], [], [])


def test_allowed_macs_limit_a_peer_and_no_other(known: Lan) -> None:
    switch = known.bob.engine.switch
    assert switch is not None
    switch.allow(known.to_alice, frozenset({A}))
    good, bad = frame(A, ALL), frame(station(12), ALL)
    known.send(known.alice, good, bad)
    assert known.arrived() == ([], [good], [good], [good])
    known.send(known.carol, bad)
    assert known.arrived() == ([], [bad], [], [bad])
    assert known.bob.drops == {"MAC address not allowed": 1}


def test_frames_for_all_are_bounded_for_each_peer_alone(known: Lan) -> None:
    asked, most = frame(A, ALL), COPIES_AT_ONCE // 3 - 1  # each goes to three ports, and one has gone before
    for _ in range(most // 200 + 2):
        known.send_record(known.alices, *[(asked, 0)] * 200)
    assert known.bob.drops == {"too many frames for all": 200 * (most // 200 + 2) - most}
    assert len(known.arrived()[1]) == most
    from_carol, to_one = frame(C, ALL), frame(A, C)
    known.send(known.carol, from_carol)
    known.send(known.alice, to_one)
    assert known.arrived()[1:] == ([from_carol], [to_one], [from_carol])


def test_peers_that_cannot_be_reached_take_nothing_from_the_bound(known: Lan) -> None:
    for number in range(100):
        known.bob.know(number.to_bytes(32, "big"), ())
    known.send(known.alice, *[frame(A, ALL)] * 100)
    assert len(known.arrived()[1]) == 100
    assert not known.bob.drops


def test_a_frame_for_more_peers_than_the_bound_allows_at_once_still_passes(known: Lan) -> None:
    group = b"\x01\0\x5e\0\0\1"
    sent = carrying(tcp_superpacket(4, payload(64_000)), A, group)
    for number in range(COPIES_AT_ONCE // (64_000 // 1400)):
        known.bob.know(number.to_bytes(32, "big"), ()).peer.endpoint = known.alices.to_left
    known.loop.pass_time(1)
    known.send_record(known.alices, (sent, UNFINISHED | 1400))
    assert known.arrived()[1]


def test_frames_for_all_do_not_fill_the_queue_of_a_peer_that_is_away(known: Lan, loop: HandLoop) -> None:
    loop.pass_time(REJECT_AFTER_TIME)
    known.alices.shake_hands()
    known.daves.shake_hands()
    for_carol = frame(A, C)
    for record in [frames((for_carol, 0))] + [frames(*[(frame(A, ALL, bytes(1500)), 0)] * 40)] * 10:
        known.bob.take(sealed(known.alice.link, record), known.alices.to_left)
    assert known.to_carol.queue.size < 2 * MOST_WAITING
    assert known.bob.drops["queue full"] > 300
    known.run()
    assert known.carol.device.arrived[0] == for_carol


def test_a_superpacket_for_all_counts_as_the_frames_that_it_stands_for(known: Lan) -> None:
    group = b"\x01\0\x5e\0\0\1"
    packet = udp_superpacket(4, payload(6000))
    for _ in range(COPIES_AT_ONCE // (3 * 60)):
        known.send_record(known.alices, (carrying(packet, A, group), UNFINISHED | 100))
    assert known.bob.drops["too many frames for all"] >= 1


def test_an_end_bounds_the_frames_for_all_of_its_own_side(known: Lan) -> None:
    for _ in range(COPIES_AT_ONCE // 100 + 1):
        known.alice.send(*[frame(A, ALL)] * 100)
    assert known.alice.drops == {"too many frames for all": 101}  # it has sent one before


def test_a_station_in_use_keeps_its_place_although_its_frames_are_recognised_by_likeness(
    known: Lan, loop: HandLoop
) -> None:
    switch = known.bob.engine.switch
    assert switch is not None
    sent = carrying(tcp_superpacket(4, payload(14000)), A, C)
    for _ in range(10):
        known.send(known.alice, (sent, 1400))
        loop.pass_time(SECONDS_BETWEEN_CLAIMS)
    ages = {address: seconds for address, port, seconds in switch.table.entries(loop.now) if port is not LOCAL}
    assert ages[A] <= 2 * SECONDS_BETWEEN_CLAIMS
    assert ages[C] > 5 * SECONDS_BETWEEN_CLAIMS


@pytest.mark.parametrize("size", range(14, 22))
def test_the_shortest_frames_pass(known: Lan, size: int) -> None:
    short = frame(A, C, bytes(size - 14))
    known.send(known.alice, short)
    known.send(known.alice, frame(A, ALL, bytes(size - 14)))
    assert known.arrived()[2] == [short, frame(A, ALL, bytes(size - 14))]
