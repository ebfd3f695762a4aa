"""Likeness of TCP packets: whatever it covers, the full checks would have found the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.packets import ACK, CWR, FIN, LEADS, PSH, SYN, framed, tcp, tcp_superpacket, udp
from vpntun.errors import BadPacket
from vpntun.wire.ip import destination_of, length_of, source_of
from vpntun.wire.likeness import MOST_KINDS, Likeness, LikenessCache, likeness_of
from vpntun.wire.transport_header import shape_of

versions = pytest.mark.parametrize("version", [4, 6])


def likeness(packet: bytes) -> Likeness:
    found = likeness_of(packet)
    assert found is not None
    return found


def covers(first: bytes, second: bytes) -> bool:
    return likeness(first).covers(memoryview(second))


@versions
def test_packets_of_one_flow_of_any_length_are_alike(version: int) -> None:
    first = tcp(version, bytes(1000))
    assert covers(first, first)
    assert covers(first, tcp(version, b"", seq=77, flags=ACK | PSH))
    assert covers(first, tcp(version, bytes(60_000), seq=1, flags=ACK | FIN))


@versions
def test_another_flow_between_the_same_hosts_is_alike(version: int) -> None:
    start = 20 if version == 4 else 40
    other = bytearray(tcp(version, b"other"))
    other[start : start + 4] = b"\x01\x02\x03\x04"
    assert covers(tcp(version, b""), bytes(other))


@versions
@pytest.mark.parametrize("change", ["version", "source", "destination", "protocol", "options", "cwr"])
def test_what_would_change_the_checks_is_not_alike(version: int, change: str) -> None:
    first = tcp(version, bytes(100))
    start = 20 if version == 4 else 40
    changed = bytearray(first)
    at, bits = {
        "version": (0, 0x20),
        "source": (12 if version == 4 else 8, 1),
        "destination": (start - 1, 1),
        "protocol": (9 if version == 4 else 6, 1),
        "options": (start + 12, 0x10),
        "cwr": (start + 13, CWR),
    }[change]
    changed[at] ^= bits
    assert not covers(first, bytes(changed))


@versions
@pytest.mark.parametrize("lead", LEADS)
def test_frames_are_alike_if_all_before_the_ip_header_is_equal_and_their_packets_are_alike(
    version: int, lead: int
) -> None:
    first = framed(tcp(version, bytes(1000)), lead)
    found = likeness_of(first, lead=lead)
    assert found is not None
    for other in (tcp(version, b"", seq=77, flags=ACK | PSH), tcp(version, bytes(60_000), seq=1, flags=ACK | FIN)):
        assert found.covers(memoryview(framed(other, lead)))
        assert not found.covers(memoryview(framed(other, lead) + b"\0"))
        assert not found.covers(memoryview(framed(other, lead)[:-1]))
        assert not found.covers(memoryview(other))
    assert not found.covers(memoryview(framed(tcp(version, b"", flags=ACK | CWR), lead)))
    assert not found.covers(memoryview(framed(udp(version, bytes(100)), lead)))
    for at in range(lead):
        changed = bytearray(first)
        changed[at] ^= 1
        assert not found.covers(memoryview(changed))


@versions
def test_of_a_frames_superpacket_only_superpackets_are_alike_up_to_the_longest(version: int) -> None:
    found = likeness_of(framed(tcp_superpacket(version, bytes(3000)), 18), 1348, 9000, 18)
    assert found is not None
    headers = 18 + (20 if version == 4 else 40) + 32
    for size, is_alike in ((1348, False), (1349, True), (9000 - headers, True), (9001 - headers, False)):
        assert found.covers(memoryview(framed(tcp_superpacket(version, bytes(size)), 18))) is is_alike


@versions
@pytest.mark.parametrize("lead", [0, *LEADS])
def test_no_packet_is_like_a_syn(version: int, lead: int) -> None:
    syn, other = (framed(tcp(version, b"", flags=flags), lead) for flags in (SYN | ACK, ACK))
    found = likeness_of(other, lead=lead)
    assert found is not None
    assert found.covers(memoryview(other))
    assert not found.covers(memoryview(syn))
    assert likeness_of(syn, lead=lead) is None


def test_a_fragment_is_not_alike() -> None:
    first = tcp(4, bytes(100))
    for at, value in ((6, 0x60), (7, 1)):
        changed = bytearray(first)
        changed[at] = value
        assert not covers(first, bytes(changed))


@versions
def test_a_packet_longer_or_shorter_than_it_says_is_not_alike(version: int) -> None:
    first = tcp(version, bytes(100))
    assert not covers(first, first + b"\0")
    assert not covers(first, first[:-1])


@versions
def test_a_packet_that_ends_within_its_tcp_header_is_not_alike(version: int) -> None:
    first = tcp(version, bytes(100))
    start = 20 if version == 4 else 40
    short = bytearray(first[: start + 16])
    at, counted = (2, len(short)) if version == 4 else (4, 16)
    short[at : at + 2] = counted.to_bytes(2, "big")
    assert not covers(first, bytes(short))


@versions
def test_of_a_superpacket_only_superpackets_are_alike(version: int) -> None:
    found = likeness_of(tcp_superpacket(version, bytes(3000)), 1348)
    assert found is not None
    for size, is_alike in ((0, False), (1348, False), (1349, True), (60_000, True)):
        assert found.covers(memoryview(tcp_superpacket(version, bytes(size)))) is is_alike


def test_superpackets_of_small_segments_have_no_likeness() -> None:
    assert likeness_of(tcp_superpacket(4, bytes(3000)), 255) is None
    assert likeness_of(tcp_superpacket(4, bytes(3000)), 256) is not None


def test_a_cache_keeps_one_likeness_of_each_kind_until_it_is_emptied() -> None:
    cache: LikenessCache[str, int] = LikenessCache()
    four, six = memoryview(tcp(4, b"")), memoryview(tcp(6, b""))
    cache.keep("a", likeness_of(four), 4)
    assert (cache.find("a", four), cache.find("a", six), cache.find("b", four)) == (4, None, None)
    cache.keep("a", likeness_of(six), 6)
    assert (cache.find("a", four), cache.find("a", six)) == (None, 6)
    cache.keep("a", None, 7)
    assert cache.find("a", six) == 6
    cache.clear()
    assert cache.find("a", six) is None


def test_a_cache_is_bounded() -> None:
    cache: LikenessCache[int, int] = LikenessCache()
    packet = memoryview(tcp(4, b""))
    for kind in range(10 * MOST_KINDS):
        cache.keep(kind, likeness_of(packet), kind)
    assert sum(cache.find(kind, packet) is not None for kind in range(10 * MOST_KINDS)) <= MOST_KINDS


@versions
def test_only_tcp_has_a_likeness(version: int) -> None:
    assert likeness_of(udp(version, b"payload")) is None


@given(st.sampled_from([4, 6]), st.integers(0, 200), st.data())
def test_whatever_is_alike_passes_the_full_checks_with_the_same_result(
    version: int, size: int, data: st.DataObject
) -> None:
    first = tcp(version, bytes(50))
    changed = bytearray(tcp(version, bytes(size)))
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, min(len(changed), 80) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(24, len(changed)))
    if data.draw(st.booleans()):  # make the length right again
        at, counted = (2, end) if version == 4 else (4, max(0, end - 40))
        changed[at : at + 2] = counted.to_bytes(2, "big")
    packet = bytes(changed[:end])
    if covers(first, packet):
        assert length_of(packet) == len(packet)
        assert shape_of(packet, len(packet)) == shape_of(first, len(first))
        assert (source_of(packet), destination_of(packet)) == (source_of(first), destination_of(first))


@given(st.binary(max_size=100))
def test_random_bytes_are_alike_only_if_they_are_a_packet(packet: bytes) -> None:
    if likeness(tcp(4, b"")).covers(memoryview(packet)):
        try:
            shape_of(packet, length_of(packet))
        except BadPacket as bad:
            raise AssertionError from bad
