"""Headers of Ethernet frames: where the IP packet begins, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire import packets
from vpntun.errors import BadPacket
from vpntun.wire.ethernet.frame import check_source, ip_at, tos_of_frame

TO_ALL, HOST = b"\xff" * 6, bytes.fromhex("02005e100001")
ARP = TO_ALL + HOST + b"\x08\x06" + bytes(28)

frames = st.one_of(
    st.binary(min_size=14, max_size=80),
    st.builds(
        lambda kinds, rest: TO_ALL + HOST + b"\0\x07".join(kinds) + rest,
        st.lists(st.sampled_from([b"\x81\0", b"\x88\xa8", b"\x08\0", b"\x86\xdd"]), min_size=1, max_size=5),
        st.binary(max_size=40),
    ),
)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("lead", packets.LEADS)
def test_the_ip_header_is_found_behind_up_to_two_tags(version: int, lead: int) -> None:
    assert ip_at(packets.framed(packets.tcp(version, b"x"), lead)) == lead


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(ARP, id="ARP"),
        pytest.param(TO_ALL + HOST + b"\x00\x26" + bytes(38), id="802.3 with a length"),
        pytest.param(TO_ALL + HOST + b"\x08\x00", id="IPv4 without a byte of it"),
        pytest.param(TO_ALL + HOST + b"\x81\x00", id="a tag that is cut off"),
        pytest.param(TO_ALL + HOST + b"\x81\x00\x00\x07\x08\x00", id="a tag, then IPv4 without a byte of it"),
        pytest.param(TO_ALL + HOST + b"\x81\x00\x00\x07" * 3 + b"\x08\x00" + packets.tcp(4, b""), id="three tags"),
        pytest.param(TO_ALL + HOST + b"\x08\x00" + packets.tcp(6, b""), id="IPv6 in a frame that says IPv4"),
        pytest.param(TO_ALL + HOST + b"\x86\xdd" + packets.tcp(4, b""), id="IPv4 in a frame that says IPv6"),
    ],
)
def test_what_is_no_ip_packet_has_no_place_and_no_traffic_class(frame: bytes) -> None:
    assert ip_at(frame) == 0
    assert tos_of_frame(frame) == 0
    check_source(frame)


@pytest.mark.parametrize("version", [4, 6])
def test_the_tos_byte_is_found_and_ecn_is_left_out_behind_tags(version: int) -> None:
    packet = packets.tcp(version, b"x", tos=0xBB)
    assert [tos_of_frame(packets.framed(packet, lead)) for lead in packets.LEADS] == [0xBB, 0xB8, 0xB8]
    assert tos_of_frame(packets.framed(packet, 14)[:15]) == 0


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        pytest.param(b"", "short frame", id="nothing"),
        pytest.param(ARP[:13], "short frame", id="13 bytes"),
        pytest.param(TO_ALL + TO_ALL + ARP[12:], "bad source MAC address", id="from all stations"),
        pytest.param(TO_ALL + b"\x03" + HOST[1:] + ARP[12:], "bad source MAC address", id="from a group"),
        pytest.param(TO_ALL + bytes(6) + ARP[12:], "bad source MAC address", id="from nobody"),
    ],
)
def test_a_frame_without_a_header_or_a_true_source_is_refused(frame: bytes, reason: str) -> None:
    with pytest.raises(BadPacket) as caught:
        check_source(frame)
    assert caught.value.reason == reason


def test_a_bare_header_is_a_frame() -> None:
    check_source(ARP[:14])


@given(frames | st.binary(max_size=20))
def test_a_source_is_refused_exactly_if_it_is_no_single_station(frame: bytes) -> None:
    is_right = len(frame) >= 14 and not frame[6] & 1 and any(frame[6:12])
    try:
        check_source(frame)
    except BadPacket:
        assert not is_right
    else:
        assert is_right


@given(frames)
def test_the_place_of_the_ip_packet_is_0_or_behind_whole_tags_and_an_ethertype(frame: bytes) -> None:
    at = ip_at(frame)
    assert at in (0, *packets.LEADS)
    assert 0 <= tos_of_frame(frame) <= 0xFF
    if not at:
        return
    assert at < len(frame)
    assert (frame[at - 2 : at], frame[at] >> 4) in ((b"\x08\0", 4), (b"\x86\xdd", 6))
    assert all(frame[tag : tag + 2] in (b"\x81\0", b"\x88\xa8") for tag in range(12, at - 2, 4))
    if at > 14:
        assert not tos_of_frame(frame) & 3
