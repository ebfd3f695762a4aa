"""virtio headers: built from the packet alone, so that no peer can cause a bad one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire import packets
from tests.wire.offloads import moved
from vpntun.errors import BadPacket
from vpntun.wire import ip, vnet
from vpntun.wire.vnet import (
    NO_OFFLOAD,
    UNFINISHED,
    VNET_HEADER,
    ends_with_ip,
    header_for,
    segment_field_of,
    segment_field_of_frame,
)


def built(packet: bytes, field: int, lead: int = 0) -> tuple[int, ...]:
    out = bytearray(b"\xee" * 12)
    header_for(packet, lead + ip.length_of(packet[lead:]), field, out, lead)
    assert out[10:] == b"\xee\xee"
    return VNET_HEADER.unpack_from(out)


def refusal(packet: bytes, field: int, lead: int = 0) -> str:
    with pytest.raises(BadPacket) as caught:
        built(packet, field, lead)
    return caught.value.reason


def test_an_ordinary_packet_has_a_header_of_zeros_whatever_it_is() -> None:
    for packet in (packets.tcp(4, b"x"), packets.ip(6, 58, b"echo"), packets.ip(4, 6, b"nonsense")):
        assert built(packet, 0) == (0, 0, 0, 0, 0, 0)
        assert built(packet + bytes(9), 0) == (0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("packet", "field", "header"),
    [
        (packets.tcp_superpacket(4, bytes(5000)), 1448, (1, 1, 52, 1448, 20, 16)),
        (packets.tcp_superpacket(6, bytes(5000)), 1428, (1, 4, 72, 1428, 40, 16)),
        (packets.tcp_superpacket(4, bytes(5000), flags=packets.CWR | packets.ACK), 1448, (1, 0x81, 52, 1448, 20, 16)),
        (packets.udp_superpacket(4, bytes(5000)), 1000, (1, 5, 28, 1000, 20, 6)),
        (packets.udp_superpacket(6, bytes(5000)), 1000, (1, 5, 48, 1000, 40, 6)),
        (packets.tcp_superpacket(4, bytes(100)), 0, (1, 0, 0, 0, 20, 16)),
        (packets.udp_superpacket(6, bytes(100)), 0, (1, 0, 0, 0, 40, 6)),
        (packets.tcp_superpacket(4, bytes(100)), 100, (1, 0, 0, 0, 20, 16)),
        (packets.tcp_superpacket(4, b""), 48, (1, 0, 0, 0, 20, 16)),
    ],
)
def test_the_header_follows_from_the_packet_and_back(packet: bytes, field: int, header: tuple[int, ...]) -> None:
    assert built(packet, UNFINISHED | field) == header
    returned = segment_field_of(VNET_HEADER.pack(*header), memoryview(bytearray(packet)))
    assert returned == UNFINISHED | header[3]
    for lead in packets.LEADS:
        frame, moved_header = packets.framed(packet, lead), moved(VNET_HEADER.pack(*header), lead)
        assert VNET_HEADER.pack(*built(frame, UNFINISHED | field, lead)) == moved_header
        carried = bytearray(frame)
        assert segment_field_of(moved_header, memoryview(carried), lead) == returned
        assert segment_field_of_frame(moved_header, memoryview(carried), lead) == returned
        assert carried == frame


TCP4 = packets.tcp_superpacket(4, bytes(5000))
UDP4 = packets.udp_superpacket(4, bytes(5000))


def altered(packet: bytes, at: int, new: bytes) -> bytes:
    return packet[:at] + new + packet[at + len(new) :]


@pytest.mark.parametrize(
    ("packet", "field", "reason"),
    [
        pytest.param(TCP4, UNFINISHED | 1, "bad segment size", id="gso_size 1"),
        pytest.param(TCP4, UNFINISHED | 47, "bad segment size", id="gso_size 47"),
        pytest.param(UDP4, UNFINISHED | 78, "bad segment size", id="65 UDP segments"),
        pytest.param(UDP4, UNFINISHED | 1, "bad segment size", id="5,000 UDP segments"),
        pytest.param(TCP4, 1448, "bad segment field", id="a superpacket with a finished checksum"),
        pytest.param(TCP4, UNFINISHED | 0x4000 | 1448, "bad segment field", id="bit 14"),
        pytest.param(TCP4, 0x4000, "bad segment field", id="bit 14 alone"),
        pytest.param(TCP4 + b"x", UNFINISHED | 1448, "bad superpacket length", id="more than the IP length"),
        pytest.param(altered(TCP4, 6, b"\x20"), UNFINISHED | 1448, "fragment", id="first fragment"),
        pytest.param(altered(TCP4, 7, b"\x01"), UNFINISHED, "fragment", id="later fragment"),
        pytest.param(altered(TCP4, 9, b"\x01"), UNFINISHED, "not TCP or UDP", id="checksum of an ICMP packet"),
        pytest.param(altered(TCP4, 9, b"\x84"), UNFINISHED | 1448, "not TCP or UDP", id="SCTP superpacket"),
        pytest.param(altered(UDP4, 24, b"\x00\x64"), UNFINISHED | 1000, "bad UDP header", id="UDP length"),
        pytest.param(altered(TCP4, 32, b"\x40"), UNFINISHED | 1448, "bad TCP header", id="TCP data offset 4"),
    ],
)
def test_a_hostile_peers_false_segment_field_is_refused(packet: bytes, field: int, reason: str) -> None:
    assert refusal(packet, field) == reason
    assert {refusal(packets.framed(packet, lead), field, lead) for lead in packets.LEADS} == {reason}


def test_64_udp_segments_are_taken() -> None:
    assert built(packets.udp_superpacket(4, bytes(6400)), UNFINISHED | 100)[1] == vnet.GSO_UDP
    assert refusal(packets.udp_superpacket(4, bytes(6401)), UNFINISHED | 100) == "bad segment size"


def test_256_tcp_segments_are_taken() -> None:
    assert built(packets.tcp_superpacket(4, bytes(25_600)), UNFINISHED | 100)[1] == vnet.GSO_TCPV4
    assert refusal(packets.tcp_superpacket(4, bytes(25_601)), UNFINISHED | 100) == "bad segment size"


def from_kernel(packet: bytes, *header: int) -> int:
    return segment_field_of(VNET_HEADER.pack(*header), memoryview(bytearray(packet)))


def test_a_superpacket_that_no_peer_would_take_uncut_is_marked_to_be_split() -> None:
    assert from_kernel(TCP4, 1, 1, 52, 36, 20, 16) == UNFINISHED | vnet.SPLIT_FIRST | 36
    assert from_kernel(UDP4, 1, 5, 28, 40, 20, 6) == UNFINISHED | vnet.SPLIT_FIRST | 40
    many = packets.tcp_superpacket(4, bytes(25_700))
    assert from_kernel(many, 1, 1, 52, 100, 20, 16) == UNFINISHED | vnet.SPLIT_FIRST | 100


def test_the_kernels_wrong_header_length_does_not_matter() -> None:
    assert from_kernel(TCP4, 1, 1, 5020, 1448, 20, 16) == UNFINISHED | 1448


@pytest.mark.parametrize(
    "header",
    [
        pytest.param((1, 3, 28, 1448, 20, 6), id="UFO"),
        pytest.param((1, 4, 52, 1448, 20, 16), id="TCPv6 of an IPv4 packet"),
        pytest.param((1, 5, 52, 1448, 20, 16), id="UDP of a TCP packet"),
        pytest.param((0, 1, 52, 1448, 20, 16), id="finished checksum"),
        pytest.param((1, 1, 52, 0, 20, 16), id="gso_size 0"),
        pytest.param((1, 1, 52, 0x4000, 20, 16), id="gso_size 16,384"),
        pytest.param((1, 1, 52, 1448, 24, 16), id="checksum starts elsewhere"),
        pytest.param((1, 0, 0, 0, 5050, 16), id="checksum field outside the packet"),
    ],
)
def test_a_header_that_does_not_fit_the_packet_is_refused(header: tuple[int, ...]) -> None:
    with pytest.raises(BadPacket, match="bad virtio header"):
        from_kernel(TCP4, *header)
    for lead in packets.LEADS:
        frame = memoryview(bytearray(packets.framed(TCP4, lead)))
        with pytest.raises(BadPacket, match="bad virtio header"):
            segment_field_of_frame(moved(VNET_HEADER.pack(*header), lead), frame, lead)


def test_the_checksum_of_a_packet_inside_a_packet_is_finished_at_once() -> None:
    inner = packets.tcp(4, b"payload")
    bare = packets.unfinished(inner, 6, 20)
    outer = packets.ip(4, 17, struct.pack("!HHHH", 4789, 4789, 16 + len(bare), 0) + bytes(8) + bare)
    carried = bytearray(outer)
    assert segment_field_of(VNET_HEADER.pack(1, 0, 0, 0, 56, 16), memoryview(carried)) == 0
    assert bytes(carried) == outer[: -len(inner)] + inner
    for lead in packets.LEADS:
        frame = bytearray(packets.framed(outer, lead))
        assert segment_field_of_frame(VNET_HEADER.pack(1, 0, 0, 0, lead + 56, 16), memoryview(frame), lead) == 0
        assert bytes(frame) == packets.framed(bytes(carried), lead)


@pytest.mark.parametrize("lead", packets.LEADS)
@pytest.mark.parametrize("padding", [bytes(4), b"\0\x17\0\x2a", b"odd"])
def test_in_a_frame_with_padding_the_checksum_is_finished_over_all_bytes(lead: int, padding: bytes) -> None:
    datagram = packets.unfinished(packets.udp(4, b"ping"), 17, 20)
    frame = bytearray(packets.framed(datagram, lead) + padding)
    field = segment_field_of_frame(VNET_HEADER.pack(1, 0, 0, 0, lead + 20, 6), memoryview(frame), lead)
    assert field == 0
    pseudo = packets.pseudo(datagram, 17, len(datagram) - 20)
    assert packets.slow_sum(pseudo + bytes(frame[lead + 20 :])) == 0xFFFF
    assert bytes(frame[: lead + 26]) == packets.framed(datagram[:26], lead)
    assert bytes(frame[lead + 28 :]) == datagram[28:] + padding
    with pytest.raises(BadPacket, match="bad virtio header"):
        segment_field_of_frame(VNET_HEADER.pack(1, 5, 42, 1, lead + 20, 6), memoryview(frame), lead)


def test_in_a_frame_without_ip_the_checksum_is_finished_and_there_is_no_superpacket() -> None:
    inner = packets.tcp(4, b"payload", options=b"")
    mpls = packets.lead_of(4, 14)[:12] + bytes.fromhex("8847 00064140")
    frame = bytearray(mpls + packets.unfinished(inner, 6, 20))
    assert segment_field_of_frame(VNET_HEADER.pack(1, 0, 0, 0, 38, 16), memoryview(frame), 0) == 0
    assert bytes(frame) == mpls + inner
    with pytest.raises(BadPacket, match="bad virtio header"):
        segment_field_of_frame(VNET_HEADER.pack(1, 1, 58, 1448, 38, 16), memoryview(frame), 0)
    with pytest.raises(BadPacket, match="bad virtio header"):
        segment_field_of_frame(VNET_HEADER.pack(1, 0, 0, 0, len(frame), 16), memoryview(frame), 0)
    assert segment_field_of_frame(NO_OFFLOAD, memoryview(frame), 0) == 0


def test_a_frame_whose_addresses_look_like_an_ip_header_is_no_ip_packet() -> None:
    segment = altered(packets.tcp(6, bytes(100)), 12, b"\x88\x47")
    lookalike = bytearray(packets.unfinished(segment, 6, 40))
    assert segment_field_of_frame(VNET_HEADER.pack(1, 0, 0, 0, 40, 16), memoryview(lookalike), 0) == 0
    assert packets.is_right(bytes(lookalike))


def test_a_frame_is_a_superpacket_only_if_it_ends_where_its_ip_packet_ends() -> None:
    frame = packets.framed(TCP4, 14)
    assert refusal(frame + bytes(1), UNFINISHED | 1448, 14) == "bad superpacket length"
    assert built(frame + bytes(1), 0, 14) == (0, 0, 0, 0, 0, 0)
    assert ends_with_ip(frame, 14)
    assert not any(ends_with_ip(other, 14) for other in (frame + b"\0", frame[:-1], frame[:15], frame[:14]))


def test_without_a_flag_the_segment_field_is_zero() -> None:
    assert from_kernel(TCP4, 0, 0, 0, 0, 0, 0) == 0
    assert from_kernel(TCP4, 2, 0, 0, 0, 0, 0) == 0  # DATA_VALID


ip_like = st.builds(
    lambda first, rest, protocol: (
        bytes([first]) + rest[:5] + bytes([protocol]) + rest[6:8] + bytes([protocol]) + rest[9:]
    ),
    st.sampled_from([0x45, 0x46, 0x60]),
    st.binary(min_size=9, max_size=200),
    st.sampled_from([6, 17, 0, 44, 60]),
)


@given(st.binary(max_size=100) | ip_like | st.sampled_from([TCP4, UDP4]), st.integers(0, 0xFFFF))
def test_arbitrary_packets_and_fields_only_ever_raise_bad_packet(packet: bytes, field: int) -> None:
    out = bytearray(10)
    try:
        header_for(packet, ip.length_of(packet), field, out)
    except BadPacket:
        return
    flags, gso_type, hdr_len, gso_size, start, offset = VNET_HEADER.unpack(out)
    assert flags in (0, 1)
    assert gso_type & 0x7F in (0, 1, 4, 5)
    assert hdr_len <= 256
    assert start + offset + 2 <= len(packet)
    if gso_type:
        assert flags == 1
        assert gso_size == field & 0x3FFF
        assert len(packet) - hdr_len > gso_size


@given(st.binary(min_size=10, max_size=10), ip_like | st.sampled_from([TCP4, UDP4]))
def test_arbitrary_virtio_headers_only_ever_raise_bad_packet(header: bytes, packet: bytes) -> None:
    try:
        field = segment_field_of(header, memoryview(bytearray(packet)))
    except BadPacket:
        return
    assert 0 <= field <= 0xFFFF


@given(st.binary(min_size=10, max_size=10), ip_like | st.binary(min_size=14, max_size=80), st.sampled_from([0, 14, 22]))
def test_arbitrary_virtio_headers_of_frames_only_ever_raise_bad_packet(header: bytes, packet: bytes, lead: int) -> None:
    frame = memoryview(bytearray(packets.framed(packet, lead)))
    try:
        field = segment_field_of_frame(header, frame, lead)
    except BadPacket:
        return
    assert 0 <= field <= 0xFFFF
    assert bytes(frame[:lead]) == packets.framed(packet, lead)[:lead] or not lead or not field
