"""Superpackets are cut into the packets that the kernel would have sent, with every checksum right."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.wire import packets
from tests.wire.offloads import (
    identifications,
    leads,
    sequences,
    split,
    tcp_flags,
    versions,
)
from vpntun.errors import BadPacket
from vpntun.wire import ip
from vpntun.wire.gso import Splitter
from vpntun.wire.vnet import SMALLEST_TCP_SEGMENT, UNFINISHED, header_for, segment_field_of


@given(versions, st.binary(min_size=1, max_size=3000), st.integers(36, 1500), tcp_flags, sequences, identifications)
def test_a_split_tcp_superpacket_is_what_the_kernel_would_have_sent(
    version: int, payload: bytes, size: int, flags: int, seq: int, identification: int
) -> None:
    superpacket = packets.tcp_superpacket(version, payload, flags=flags, seq=seq, identification=identification)
    expected = packets.tcp_run(version, payload, size, flags=flags, seq=seq, identification=identification)
    assert split(superpacket, size) == expected
    assert all(packets.is_right(packet) for packet in expected)


@given(versions, st.binary(min_size=1, max_size=3000), st.integers(30, 1500), identifications)
def test_a_split_udp_superpacket_is_what_the_kernel_would_have_sent(
    version: int, payload: bytes, size: int, identification: int
) -> None:
    superpacket = packets.udp_superpacket(version, payload, identification=identification)
    assert split(superpacket, size) == packets.udp_run(version, payload, size, identification=identification)


@given(st.booleans(), versions, leads, st.binary(min_size=1, max_size=3000), st.integers(36, 1500), identifications)
def test_a_frame_is_cut_into_what_its_ip_packet_is_cut_into_each_behind_the_same_bytes(
    is_tcp: bool, version: int, lead: int, payload: bytes, size: int, identification: int
) -> None:
    make = packets.tcp_superpacket if is_tcp else packets.udp_superpacket
    superpacket = make(version, payload, identification=identification)
    frame = packets.framed(superpacket, lead)
    assert split(frame, size, lead) == [packets.framed(each, lead) for each in split(superpacket, size)]

    alone, behind = Splitter(), Splitter()
    count = alone.cut(memoryview(superpacket), UNFINISHED | size)
    assert behind.cut(memoryview(frame), UNFINISHED | size, lead) == count
    assert behind.fitting(1000 + lead) == alone.fitting(1000)
    out, expected = memoryview(bytearray(5000)), memoryview(bytearray(5000))
    for first in range(0, count, 2):
        length = alone.write_run(first, 2, expected, 3)
        assert behind.write_run(first, 2, out, 3) == lead + length
        assert bytes(out[3 : 3 + lead + length]) == packets.framed(bytes(expected[3 : 3 + length]), lead)
        assert behind.field_of(first, 2) == alone.field_of(first, 2)


def test_a_superpacket_of_the_largest_size_is_split() -> None:
    payload = bytes(range(256)) * 255
    assert split(packets.tcp_superpacket(4, payload), 36) == packets.tcp_run(4, payload, 36)


def test_an_ordinary_packet_splits_into_itself_finished() -> None:
    for packet in (packets.tcp_superpacket(4, b"x" * 99), packets.tcp_superpacket(6, b"")):
        (piece,) = split(packet, 0)
        assert packets.is_right(piece)
        assert len(piece) == len(packet)


@settings(deadline=None)
@given(
    st.booleans(),
    versions,
    st.binary(min_size=1, max_size=9000),
    st.integers(40, 1500),
    st.integers(100, 9000),
    tcp_flags,
    sequences,
    identifications,
)
def test_smaller_superpackets_split_into_the_same_packets_as_the_large_one(
    is_tcp: bool, version: int, payload: bytes, size: int, most: int, flags: int, seq: int, identification: int
) -> None:
    assume(not is_tcp or size >= SMALLEST_TCP_SEGMENT)  # no superpacket of smaller ones is sent to a peer
    if is_tcp:
        superpacket = packets.tcp_superpacket(version, payload, flags=flags, seq=seq, identification=identification)
    else:
        superpacket = packets.udp_superpacket(version, payload, identification=identification)
    splitter = Splitter()
    count = splitter.cut(memoryview(superpacket), UNFINISHED | size)
    each = max(1, splitter.fitting(most))
    headers = len(superpacket) - len(payload)
    packets_again = []
    for first in range(0, count, each):
        room = memoryview(bytearray(len(superpacket) + 7))
        piece = bytes(room[7 : 7 + splitter.write_run(first, each, room, 7)])
        field = splitter.field_of(first, each)
        assert len(piece) <= max(most, headers + size)
        out = bytearray(10)
        header_for(piece, ip.length_of(piece), field, out)  # the other end takes it uncut
        assert segment_field_of(out, memoryview(bytearray(piece))) == field
        packets_again += split(piece, field & 0x3FFF)
    assert packets_again == split(superpacket, size)


def test_as_many_segments_are_cut_off_as_there_is_room_for() -> None:
    splitter = Splitter()
    packet = memoryview(packets.tcp_superpacket(4, bytes(9500)))
    assert splitter.cut(packet, UNFINISHED | 1000) == 10
    assert [splitter.fitting(room) for room in (1051, 1052, 8051, 8052)] == [0, 1, 7, 8]
    out = memoryview(bytearray(65535))
    assert splitter.write_run(0, 7, out, 0) == 7052
    assert splitter.write_run(7, 7, out, 0) == 2552
    assert splitter.write_run(9, 1, out, 0) == 552
    assert (splitter.field_of(0, 7), splitter.field_of(8, 2)) == (UNFINISHED | 1000, UNFINISHED | 1000)
    assert splitter.field_of(9, 1) == splitter.field_of(9, 5) == splitter.field_of(3, 1) == UNFINISHED
    assert splitter.write_run(0, 10, out, 0) == len(packet)
    assert out[: len(packet)] == packet


def test_packets_without_an_unfinished_checksum_or_whole_segment_are_not_split() -> None:
    splitter = Splitter()
    with pytest.raises(BadPacket, match="bad segment field"):
        splitter.split(memoryview(packets.tcp(4, b"x")), 0)
    with pytest.raises(BadPacket, match="not TCP or UDP"):
        splitter.split(memoryview(packets.ip(4, 1, bytes(20))), UNFINISHED)


def test_scapy_finds_the_same_checksums() -> None:
    scapy = pytest.importorskip("scapy.layers.inet")
    inet6 = pytest.importorskip("scapy.layers.inet6")
    payload = bytes(range(250)) * 11
    for version, layer in ((4, scapy.IP), (6, inet6.IPv6)):
        for superpacket in (packets.tcp_superpacket(version, payload), packets.udp_superpacket(version, payload)):
            for piece in split(superpacket, 999):
                again = layer(piece)
                if version == 4:
                    del again.chksum
                del again.payload.chksum
                assert bytes(again) == piece
