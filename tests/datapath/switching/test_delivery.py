"""Only frames that a station could have sent reach the device, each with a header of this end's own making."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.datapath.ends import sealed
from tests.datapath.routing.test_delivery import bundle
from tests.datapath.switching.lan import ALL, carrying, frame, frames, station
from tests.datapath.switching.test_outbound import Pair
from tests.machine import HandLoop
from tests.wire.packets import payload, tcp, tcp_run, tcp_superpacket, udp, unfinished
from vpntun.wire.record import FRAMES
from vpntun.wire.vnet import GSO_TCPV4, NEEDS_CSUM, UNFINISHED, VNET_HEADER

A, B = station(1), station(2)
GOOD = frame(A, B, b"good")
ZERO, GROUP = bytes(6), b"\x01\0\x5e\0\0\1"


@pytest.fixture
def pair(loop: HandLoop) -> Iterator[Pair]:
    made = Pair(loop).meet()
    yield made
    made.close()


def send(pair: Pair, record: bytes, ecn: int = 0) -> list[bytes]:
    """Let Alice send any record; return what reaches Bob's device."""
    pair.bob.device.clear()
    pair.bob.take(sealed(pair.alice.link, record), pair.wire.to_left, ecn)
    pair.wire.run()
    return pair.bob.device.packets


SUPERPACKET = carrying(tcp_superpacket(4, payload(3000)), A, B)


@pytest.mark.parametrize(
    ("given", "field", "reason"),
    [
        pytest.param(frame(ZERO, ALL), 0, "bad source MAC address", id="from nobody"),
        pytest.param(frame(GROUP, ALL), 0, "bad source MAC address", id="from a group"),
        pytest.param(frame(ALL, A), 0, "bad source MAC address", id="from all"),
        pytest.param(frame(A, B, bytes(1509)), 0, "too big for the device", id="longer than the MTU allows"),
        pytest.param(carrying(tcp(4, bytes(1480)), A, B), UNFINISHED, "too big for the device", id="and unfinished"),
        pytest.param(frame(A, B), UNFINISHED, "bad segment field", id="a checksum of ARP"),
        pytest.param(SUPERPACKET, 1400, "bad segment field", id="a superpacket with a finished checksum"),
        pytest.param(SUPERPACKET + b"\0", UNFINISHED | 1400, "bad superpacket length", id="padding"),
        pytest.param(SUPERPACKET[:-1], UNFINISHED | 1400, "bad superpacket length", id="truncated"),
        pytest.param(SUPERPACKET, UNFINISHED | 47, "bad segment size", id="tiny segments"),
        pytest.param(frame(A, B, SUPERPACKET[14:], 0x0806), UNFINISHED | 1400, "bad segment field", id="not IP"),
    ],
)
def test_a_bad_frame_is_dropped_and_the_next_one_arrives(pair: Pair, given: bytes, field: int, reason: str) -> None:
    assert send(pair, frames((given, field), (GOOD, 0))) == [GOOD]
    assert pair.bob.drops == {reason: 1}


def test_a_frame_too_short_for_a_header_ends_the_record(pair: Pair) -> None:
    assert send(pair, frames((GOOD, 0), (GOOD[:13], 0), (GOOD, 0))) == [GOOD]
    assert pair.bob.drops == {"bad bundle": 1}


@pytest.mark.parametrize("record", [bundle((udp(4, b"hello"), 0)), udp(4, b"hello"), udp(6, b"hello")])
def test_no_packet_without_an_ethernet_header_reaches_the_device(pair: Pair, record: bytes) -> None:
    assert send(pair, record) == []
    assert pair.bob.drops == {"other kind of device": 1}


def test_the_longest_frame_of_the_mtu_passes_and_follows_the_mtu(pair: Pair) -> None:
    longest = frame(A, B, bytes(1500), 0x88B5, 7, 8)
    assert send(pair, frames((longest, 0))) == [longest]
    pair.bob.device.mtu = 1400
    pair.bob.engine.follow_mtu()
    assert send(pair, frames((longest, 0), (longest[:-100], 0))) == [longest[:-100]]


@pytest.mark.parametrize("vlans", [(), (7,), (7, 8)], ids=len)
def test_a_superpackets_header_counts_from_the_start_of_the_frame(pair: Pair, vlans: tuple[int, ...]) -> None:
    whole = carrying(tcp_superpacket(4, payload(3000)), A, B, *vlans)
    lead = 14 + 4 * len(vlans)
    for _ in range(2):
        assert send(pair, frames((whole, UNFINISHED | 1400))) == [whole]
        header = VNET_HEADER.unpack(pair.bob.device.headers[0])
        assert header == (NEEDS_CSUM, GSO_TCPV4, lead + 52, 1400, lead + 20, 16)


def test_consecutive_segments_are_joined_and_those_of_another_vlan_are_not(pair: Pair) -> None:
    run = [carrying(each, A, B, 7) for each in tcp_run(4, payload(6000), 1000)]
    other = [carrying(each, A, B, 8) for each in tcp_run(4, payload(2000), 1000)]
    written = send(pair, frames(*((each, 0) for each in [*run[:3], *other, *run[3:]])))
    assert len(written) == 3
    assert pair.bob.device.arrived == [*run[:3], *other, *run[3:]]


def test_an_ack_with_an_unfinished_checksum_is_known_by_its_likeness_only_behind_the_same_header(pair: Pair) -> None:
    ack = unfinished(tcp(4, b""), 6, 20)
    for vlan in (7, 8, 7, 7):
        given = carrying(ack, A, B, vlan)
        assert send(pair, frames((given, UNFINISHED))) == [given]
        assert pair.bob.device.arrived == [carrying(tcp(4, b""), A, B, vlan)]
    given = carrying(ack, station(9), B, 7)
    switch = pair.bob.engine.switch
    assert switch is not None
    switch.allow(pair.bob.link, frozenset({A}))
    assert send(pair, frames((given, UNFINISHED))) == []
    assert pair.bob.drops == {"MAC address not allowed": 1}


@pytest.mark.parametrize(
    ("given", "marked"),
    [
        pytest.param(carrying(udp(4, b"hello", tos=2), A, B), True, id="IPv4"),
        pytest.param(carrying(udp(6, b"hello", tos=2), A, B), True, id="IPv6"),
        pytest.param(carrying(udp(4, b"hello", tos=2), A, B) + bytes(10), True, id="padded"),
        pytest.param(carrying(udp(4, b"hello", tos=2), A, B, 7), False, id="with a VLAN tag"),
        pytest.param(frame(A, B, b"\x45\2" + bytes(40)), False, id="ARP"),
        pytest.param(frame(A, B, b"\x45\2", 0x0800), False, id="truncated"),
    ],
)
def test_congestion_marks_a_packet_right_behind_the_header_alone(pair: Pair, given: bytes, marked: bool) -> None:
    (written,) = send(pair, frames((given, 0)), ecn=3)
    assert (written != given) is marked


def test_router_messages_pass(pair: Pair) -> None:
    advertisement = frame(
        A, b"\x33\x33\0\0\0\1", b"\x60" + bytes(3) + b"\0\x10\x3a\xff" + bytes(32) + b"\x86" + bytes(15), 0x86DD
    )
    assert send(pair, frames((advertisement, 0))) == [advertisement]


@given(
    records=st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=200).map(lambda rest: bytes([FRAMES]) + rest),
            st.lists(
                st.tuples(st.binary(min_size=14, max_size=120), st.integers(0, 0xFFFF)), min_size=1, max_size=4
            ).map(lambda entries: frames(*entries)),
            st.builds(
                lambda kind, cut, field: frames((kind[:cut], field)),
                st.sampled_from([SUPERPACKET, carrying(tcp_superpacket(6, payload(500)), A, B, 7)]),
                st.integers(14, 3200),
                st.integers(0, 0xFFFF),
            ),
        ),
        min_size=1,
        max_size=8,
    ),
    ecn=st.integers(0, 3),
)
def test_no_record_of_frames_raises_or_stops_the_link(records: list[bytes], ecn: int) -> None:
    loop = HandLoop()
    pair = Pair(loop).meet()
    for record in records:
        send(pair, record, ecn)
    last = frame(station(77), B, b"good")
    assert send(pair, frames((last, 0))) == [last]
    pair.close()
    loop.close()
