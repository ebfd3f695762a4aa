"""Runs of UDP datagrams joined inside a record: cutting the superpacket gives back the same datagrams."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire import packets
from tests.wire.offloads import leads, moved, versions
from vpntun.wire.gso import Splitter
from vpntun.wire.record import ENTRY_SIZE, begin_bundle, packets_of, put_entry
from vpntun.wire.udp_coalescer import UdpCoalescer
from vpntun.wire.vnet import NEEDS_CSUM, SEGMENT_SIZE, UNFINISHED, VNET_HEADER, header_for

HEADERS = {version: VNET_HEADER.pack(NEEDS_CSUM, 0, 0, 0, start, 6) for version, start in ((4, 20), (6, 40))}


def unfinished(packet: bytes) -> bytes:
    return packets.unfinished(packet, 17, packets.start_of(packet))


def sent(stream: list[bytes], room: int = 65535, lead: int = 0) -> list[tuple[bytes, int]]:
    """The entries of the bundle that results when these packets are read one after the other."""
    record = memoryview(bytearray(4 * 65535))
    at = begin_bundle(record)
    run = UdpCoalescer(record)
    for packet in stream:
        header = memoryview(moved(HEADERS[packet[lead] >> 4], lead))
        begin = at + ENTRY_SIZE
        record[begin : begin + len(packet)] = packet
        end = run.extend(header, begin, len(packet), room)
        if end:
            at = end
            continue
        run.finish()
        entry, at = at, put_entry(record, at, len(packet), UNFINISHED)
        run.begin(header, entry, len(packet), lead)
    run.finish()
    return [(bytes(packet), field) for packet, field in packets_of(record[:at])]


def cut(entries: list[tuple[bytes, int]]) -> list[bytes]:
    pieces = []
    for packet, field in entries:
        header_for(packet, len(packet), field, bytearray(10))  # the other end accepts it
        splitter = Splitter()
        for index in range(splitter.split(memoryview(packet), field)):
            out = memoryview(bytearray(splitter.length))
            pieces.append(bytes(out[: splitter.write_run(index, 1, out, 0)]))
    return pieces


def run_of(version: int, count: int, size: int, *, port: int = 53, df: bool = True, first: int = 5) -> list[bytes]:
    return [
        packets.udp(version, bytes([index & 255]) * size, identification=first + index & 0xFFFF, port=port, df=df)
        for index in range(count)
    ]


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_too_long_for_a_segment_field_are_not_joined(version: int) -> None:
    for size, entries in ((SEGMENT_SIZE, 1), (SEGMENT_SIZE + 1, 2)):
        stream = [unfinished(packet) for packet in run_of(version, 2, size)]
        assert len(sent(stream)) == entries


@given(
    st.sampled_from([4, 6]),
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 600), st.sampled_from([53, 123]), st.booleans()), max_size=5),
    st.sampled_from([5, 65530]),
)
def test_joined_datagrams_are_cut_into_the_same_datagrams_again(
    version: int, runs: list[tuple[int, int, int, bool]], first: int
) -> None:
    stream = [
        packet
        for count, size, port, df in runs
        for packet in run_of(version, count, size, port=port, df=df, first=first)
    ]
    again = cut(sent([unfinished(packet) for packet in stream])) if stream else []
    assert list(map(packets.but_for_what_df_frees, again)) == list(map(packets.but_for_what_df_frees, stream))
    assert all(map(packets.is_right, again))


@given(
    versions, st.lists(st.tuples(st.integers(1, 6), st.integers(0, 200), st.booleans()), min_size=1, max_size=4), leads
)
def test_frames_are_joined_as_their_ip_packets_would_be(
    version: int, runs: list[tuple[int, int, bool]], lead: int
) -> None:
    stream = [unfinished(packet) for count, size, df in runs for packet in run_of(version, count, size, df=df)]
    expected = [(packets.framed(packet, lead), field) for packet, field in sent(stream)]
    assert sent([packets.framed(packet, lead) for packet in stream], lead=lead) == expected


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("lead", packets.LEADS)
def test_frames_with_other_addresses_or_tags_are_not_joined(version: int, lead: int) -> None:
    first, second = (packets.framed(unfinished(packet), lead) for packet in run_of(version, 2, 100))
    assert len(sent([first, second], lead=lead)) == 1
    for at in range(lead):
        other = bytearray(second)
        other[at] ^= 1
        assert len(sent([first, bytes(other)], lead=lead)) == 2


@pytest.mark.parametrize("version", [4, 6])
def test_64_datagrams_of_one_flow_are_one_entry(version: int) -> None:
    entries = sent([unfinished(packet) for packet in run_of(version, 65, 100)])
    assert [field & SEGMENT_SIZE for _, field in entries] == [100, 0]
    assert len(entries[0][0]) == len(run_of(version, 1, 100)[0]) + 63 * 100


@pytest.mark.parametrize("version", [4, 6])
def test_another_flow_or_size_or_lifetime_is_not_joined(version: int) -> None:
    first = run_of(version, 1, 100)[0]
    lifetime = 8 if version == 4 else 7
    older = bytearray(run_of(version, 2, 100)[1])
    older[lifetime] -= 1
    others = [run_of(version, 2, 100, port=54)[1], run_of(version, 2, 99)[1], bytes(older)]
    for other in others:
        assert len(sent([unfinished(first), unfinished(other)])) == 2


def test_an_identification_out_of_sequence_is_joined_only_if_df_makes_it_meaningless() -> None:
    with_df = [packets.udp(4, b"x" * 50, identification=7) for _ in range(2)]
    without = [packets.udp(4, b"x" * 50, identification=7, df=False) for _ in range(2)]
    assert len(sent([unfinished(packet) for packet in with_df])) == 1
    assert len(sent([unfinished(packet) for packet in without])) == 2


def test_options_other_protocols_and_empty_datagrams_begin_no_run() -> None:
    empty = [packets.udp(4, b"") for _ in range(2)]
    assert len(sent([unfinished(packet) for packet in empty])) == 2
    tcp = [packets.unfinished(packet, 6, 20) for packet in packets.tcp_run(4, b"x" * 200, 100)]
    assert len(sent(tcp)) == 2
    options = bytearray(unfinished(run_of(4, 1, 100)[0]))
    options[0] = 0x46
    struct.pack_into("!H", options, 2, len(options))
    assert len(sent([bytes(options)] * 2)) == 2


def test_a_run_ends_where_the_record_does() -> None:
    stream = [unfinished(packet) for packet in run_of(4, 10, 100)]
    alone = 1 + ENTRY_SIZE + len(stream[0])
    assert len(sent(stream, room=alone + 299)[0][0]) == len(stream[0]) + 200


def test_a_packet_whose_header_from_the_device_differs_is_not_joined() -> None:
    record = memoryview(bytearray(4096))
    run = UdpCoalescer(record)
    packet = unfinished(run_of(4, 1, 100)[0])
    record[5 : 5 + len(packet)] = packet
    at = put_entry(record, 1, len(packet), UNFINISHED)
    run.begin(memoryview(HEADERS[4]), 1, len(packet))
    record[at + 4 : at + 4 + len(packet)] = packet
    assert run.extend(memoryview(bytes(10)), at + 4, len(packet), 4096) == 0
