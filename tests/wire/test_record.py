"""Records: packing and parsing are inverse, and a hostile peer's nonsense raises only BadPacket."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire import packets
from vpntun.errors import BadPacket
from vpntun.wire import record
from vpntun.wire.record import Echo, Hello, Parity, Probe, Report

u8, u16, u64 = st.integers(0, 2**8 - 1), st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1)


def test_the_fields_are_where_the_table_puts_them() -> None:
    assert Hello(True, 0x3F, 0x1234).pack() == bytes([1, 1, 1, 0x3F, 0x12, 0x34])
    assert Hello(False, 0, answers=True).pack() == bytes([1, 1, 2, 0, 0xFF, 0xDF])
    assert Hello(False, 0, is_tap=True).pack() == bytes([1, 1, 4, 0, 0xFF, 0xDF])
    assert Hello(False, 0).pack() == bytes([1, 1, 0, 0, 0xFF, 0xDF])
    totals = b"".join(n.to_bytes(8, "big") for n in (1, 2, 3, 4))
    assert Report(1, 2, 3, 4, 1.0).pack() == b"\x03" + totals + b"\xff"
    assert Report.parse(b"\x03" + totals).busy == 0, "an end of before does not say how busy it is"
    assert Probe(0x0102, 12).pack() == b"\x04" + bytes(6) + b"\x01\x02" + bytes(3)
    assert Echo(0x0102, 12).pack() == b"\x05" + bytes(6) + b"\x01\x02\x00\x0c"


@given(st.booleans(), u8, u16, st.integers(1, 255), st.booleans(), st.booleans(), st.binary(max_size=5))
def test_a_hello_is_parsed_as_it_was_packed_whatever_a_later_version_adds(
    seen: bool, takes: int, largest: int, version: int, answers: bool, is_tap: bool, more: bytes
) -> None:
    hello = Hello(seen, takes, largest, version, answers, is_tap)
    assert Hello.parse(hello.pack() + more) == hello


def test_an_end_that_predates_tap_devices_has_a_tun() -> None:
    assert not Hello.parse(bytes([1, 1, 3, 0, 0xFF, 0xDF])).is_tap
    assert not Hello.parse(bytes([1, 1, 0xFB, 0, 0xFF, 0xDF])).is_tap


@given(u64, u64, u64, u64, u8)
def test_a_report_is_parsed_as_it_was_packed(highest: int, opened: int, datagrams: int, failed: int, busy: int) -> None:
    report = Report(highest, opened, datagrams, failed, busy / 255)
    assert Report.parse(report.pack()) == report


@given(u64, st.integers(9, 2000))
def test_a_probe_and_its_echo_are_parsed_as_they_were_packed(token: int, size: int) -> None:
    probe = Probe(token, size)
    assert len(probe.pack()) == size
    assert Probe.parse(probe.pack()) == probe
    echo = Echo(token, size)
    assert Echo.parse(echo.pack()) == echo


@given(st.lists(st.tuples(st.binary(min_size=20, max_size=300), u16), min_size=1, max_size=20))
def test_a_bundle_gives_back_its_packets_and_their_segment_fields(entries: list[tuple[bytes, int]]) -> None:
    buffer = memoryview(bytearray(8000))
    at = record.begin_bundle(buffer)
    for packet, segment in entries:
        at = record.append(buffer, at, packet, segment)
    assert [(bytes(packet), segment) for packet, segment in record.packets_of(buffer[:at])] == entries


@given(st.lists(st.tuples(st.binary(min_size=14, max_size=300), u16), min_size=1, max_size=20))
def test_a_record_of_frames_gives_back_its_frames_and_their_segment_fields(entries: list[tuple[bytes, int]]) -> None:
    buffer = memoryview(bytearray(8000))
    at = record.begin_bundle(buffer, record.FRAMES)
    for frame, segment in entries:
        at = record.append(buffer, at, frame, segment)
    assert buffer[0] == 10
    assert [(bytes(frame), segment) for frame, segment in record.packets_of(buffer[:at])] == entries


def test_a_packet_read_in_place_only_needs_its_entry() -> None:
    buffer = bytearray(20)
    at = record.begin_bundle(buffer)
    buffer[at + record.ENTRY_SIZE : at + record.ENTRY_SIZE + 3] = b"abc"
    end = record.put_entry(buffer, at, 3, 0x8123)
    assert bytes(buffer[:end]) == b"\x02\x00\x03\x81\x23abc"


SMALL = bytes(range(20))
"""The shortest packet there is."""


def test_the_packets_of_a_bundle_are_not_copies() -> None:
    buffer = bytearray(b"\x02\x00\x14\x00\x00" + SMALL)
    ((packet, _),) = record.packets_of(memoryview(buffer))
    buffer[5] = ord("x")
    assert bytes(packet) == b"x" + SMALL[1:]


def bundle_of(*packets: bytes) -> memoryview:
    return memoryview(b"\x02" + b"".join(len(packet).to_bytes(2, "big") + b"\0\0" + packet for packet in packets))


def test_a_bundle_has_256_packets_at_most() -> None:
    assert len(list(record.packets_of(bundle_of(*[SMALL] * 256)))) == 256
    packets = record.packets_of(bundle_of(*[SMALL] * 257))
    assert [bytes(next(packets)[0]) for _ in range(256)] == [SMALL] * 256
    with pytest.raises(BadPacket, match="bad bundle"):
        next(packets)


@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x02", id="no entry"),
        pytest.param(b"\x02\x00", id="half an entry"),
        pytest.param(b"\x02\x00\x01\x00\x00", id="an entry without its packet"),
        pytest.param(b"\x02\x00\x00\x00\x00", id="an empty packet at the end"),
        pytest.param(b"\x02\x00\x00\x00\x00" + SMALL, id="an empty packet"),
        pytest.param(b"\x02\x00\x13\x00\x00" + SMALL, id="a packet shorter than an IP header"),
        pytest.param(b"\x02\x00\x15\x00\x00" + SMALL, id="a packet that is cut"),
        pytest.param(b"\x02\xff\xff\x00\x00" + bytes(1000), id="65,535 bytes"),
        pytest.param(b"\x03\x00\x14\x00\x00" + SMALL, id="another kind"),
    ],
)
def test_a_bundle_of_nonsense_is_refused(nonsense: bytes) -> None:
    with pytest.raises(BadPacket, match="bad bundle"):
        list(record.packets_of(memoryview(nonsense)))


def test_a_frame_is_as_long_as_its_header_at_least() -> None:
    header = bytes(range(14))
    assert [bytes(frame) for frame, _ in record.packets_of(memoryview(b"\x0a\x00\x0e\x00\x00" + header))] == [header]
    with pytest.raises(BadPacket, match="bad bundle"):
        list(record.packets_of(memoryview(b"\x0a\x00\x0d\x00\x00" + header[:13])))
    with pytest.raises(BadPacket, match="bad bundle"):
        list(record.packets_of(memoryview(b"\x02\x00\x0e\x00\x00" + header)))


def test_packets_before_the_nonsense_have_been_yielded() -> None:
    packets = record.packets_of(memoryview(bytes(bundle_of(SMALL)) + b"\x00\x15\0\0" + SMALL))
    assert bytes(next(packets)[0]) == SMALL
    with pytest.raises(BadPacket):
        next(packets)


@pytest.mark.parametrize("padding", [1, 4, 5, 100, 1500])
@pytest.mark.parametrize("packets", [1, 3, record.MOST_PACKETS])
def test_bytes_behind_the_packets_without_a_length_are_padding(packets: int, padding: int) -> None:
    bundle = bytes(bundle_of(*[SMALL] * packets)) + bytes(padding)
    assert [bytes(packet) for packet, _ in record.packets_of(memoryview(bundle))] == [SMALL] * packets


@pytest.mark.parametrize(
    ("parse", "reason", "size"),
    [
        (Hello.parse, "bad hello", 6),
        (Report.parse, "bad report", 33),
        (Probe.parse, "bad probe", 9),
        (Echo.parse, "bad echo", 11),
        (Parity.parse, "bad parity", 13),
    ],
)
def test_a_record_that_is_cut_or_of_another_kind_is_refused(
    parse: Callable[[bytes], object], reason: str, size: int
) -> None:
    for nonsense in (b"", b"\x3f" * 40, *(bytes([kind]) * (size - 1) for kind in range(1, 7))):
        with pytest.raises(BadPacket) as caught:
            parse(nonsense)
        assert caught.value.reason == reason


def test_there_is_no_version_0() -> None:
    with pytest.raises(BadPacket, match="bad hello"):
        Hello.parse(bytes([1, 0, 0, 0, 0, 0]))


@given(st.builds(lambda kind, rest: bytes([kind]) + rest, st.integers(0, 11), st.binary(max_size=60)))
def test_arbitrary_bytes_only_ever_raise_bad_packet(data: bytes) -> None:
    parsers: list[Callable[[bytes], object]] = [
        Hello.parse,
        Report.parse,
        Probe.parse,
        Echo.parse,
        Parity.parse,
        lambda plaintext: list(record.packets_of(memoryview(plaintext))),
    ]
    for parse in parsers:
        try:
            parse(data)
        except BadPacket:
            continue


def test_a_parity_is_parsed_as_it_was_packed() -> None:
    parity = Parity(2**64 - 1, 64, 0xFFFF, b"sum")
    assert parity.pack() == b"\x06" + b"\xff" * 8 + b"\x40" + b"\xff\xff" + b"sum"
    assert Parity.parse(memoryview(parity.pack())) == parity


@pytest.mark.parametrize("count", [0, 1, 65, 255])
def test_a_parity_of_an_impossible_group_is_refused(count: int) -> None:
    with pytest.raises(BadPacket, match="bad parity"):
        Parity.parse(Parity(5, count, 30, b"sum").pack())


def test_a_parity_without_a_sum_is_refused() -> None:
    with pytest.raises(BadPacket, match="bad parity"):
        Parity.parse(Parity(5, 2, 30, b"").pack())


@pytest.mark.parametrize("lead", [0, *packets.LEADS])
@pytest.mark.parametrize(
    ("packet", "segment", "needs"),
    [
        (packets.tcp(4, b"x"), 0, 0),
        (packets.tcp_superpacket(4, b"x"), 0x8000, record.TAKES_CHECKSUM),
        (packets.tcp_superpacket(4, bytes(3000)), 0x8000 | 1400, record.TAKES_CHECKSUM | record.TAKES_TSO4),
        (packets.tcp_superpacket(6, bytes(3000)), 0x8000 | 1400, record.TAKES_CHECKSUM | record.TAKES_TSO6),
        (packets.udp_superpacket(4, bytes(3000)), 0x8000 | 1400, record.TAKES_CHECKSUM | record.TAKES_USO4),
        (packets.udp_superpacket(6, bytes(3000)), 0x8000 | 1400, record.TAKES_CHECKSUM | record.TAKES_USO6),
    ],
)
def test_what_a_packet_needs_of_the_peer_depends_on_its_segment_field_and_protocols(
    packet: bytes, segment: int, needs: int, lead: int
) -> None:
    assert record.needs_of(packets.framed(packet, lead), segment, lead) == needs
