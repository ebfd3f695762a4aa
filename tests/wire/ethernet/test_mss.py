"""MSS of TCP SYNs in frames: lowered where it is too large, with the checksum right; all else stays as it was."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.packets import ACK, LEADS, RST, SYN, finished, framed, is_right, lead_of, start_of, tcp, udp, unfinished
from vpntun.wire.ethernet.frame import ip_at
from vpntun.wire.ethernet.mss import lower_mss

LONGEST = 1400
NOTHING, SACK_PERMITTED = b"\x01", b"\x04\x02"

versions = pytest.mark.parametrize("version", [4, 6])


def mss(value: int) -> bytes:
    return struct.pack("!BBH", 2, 4, value)


def lowered(frame: bytes, *, is_unfinished: bool = False) -> bytes:
    """The frame after its MSS was lowered."""
    found = memoryview(bytearray(frame))
    lower_mss(found, ip_at(frame), LONGEST, is_unfinished=is_unfinished)
    return bytes(found)


@versions
@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("flags", [SYN, SYN | ACK])
@pytest.mark.parametrize(
    ("before", "behind"),
    [(b"", b""), (SACK_PERMITTED + 2 * NOTHING, b""), (NOTHING, 3 * NOTHING), (b"\x03\x03\x07", NOTHING)],
    ids=["first", "behind another option", "at an odd place", "at an odd place behind another option"],
)
def test_the_largest_segment_fits_in_the_longest_frame(
    version: int, lead: int, flags: int, before: bytes, behind: bytes
) -> None:
    most = LONGEST - len(framed(tcp(version, b"", options=b""), lead))
    given, expected = (
        tcp(version, b"early data", flags=flags, options=before + mss(value) + behind) for value in (1460, most)
    )
    assert lowered(framed(given, lead)) == framed(expected, lead)
    assert is_right(expected)
    assert len(framed(tcp(version, bytes(most), options=b""), lead)) == LONGEST


@versions
def test_an_unfinished_checksum_stays_that_of_the_pseudo_header(version: int) -> None:
    syn = tcp(version, b"", flags=SYN, options=mss(1460))
    start = start_of(syn)
    found = lowered(framed(unfinished(syn, 6, start), 18), is_unfinished=True)
    assert found[18 + start + 16 : 18 + start + 18] == unfinished(syn, 6, start)[start + 16 : start + 18]
    assert finished(found[18:], 6, start) == lowered(framed(syn, 18))[18:]


def test_padding_behind_the_packet_stays() -> None:
    syn = framed(tcp(4, b"", flags=SYN, options=mss(1460)), 14)
    assert lowered(syn + bytes(2)) == lowered(syn) + bytes(2)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(tcp(4, b"", flags=SYN, options=mss(1346)), id="an MSS that fits"),
        pytest.param(tcp(6, b"", flags=SYN, options=mss(1220)), id="a smaller MSS"),
        pytest.param(tcp(4, b"", flags=SYN, options=b""), id="no option"),
        pytest.param(tcp(4, b"", flags=SYN), id="no MSS"),
        pytest.param(tcp(4, b"", flags=SYN, options=bytes(4) + mss(1460)), id="behind the end of the options"),
        pytest.param(tcp(4, b"", flags=SYN, options=b"\x05\x00" + mss(1460) + bytes(2)), id="an option without length"),
        pytest.param(tcp(4, b"", flags=SYN, options=b"\x05\x09" + mss(1460) + bytes(2)), id="an option too long"),
        pytest.param(tcp(4, mss(1460), flags=SYN, options=NOTHING * 3 + b"\x02"), id="a kind without a length"),
        pytest.param(tcp(4, b"", flags=SYN, options=b"\x02\x06" + bytes(2) + mss(1460)[2:] + bytes(2)), id="6 bytes"),
        pytest.param(tcp(4, mss(1460), flags=ACK, options=mss(1460)), id="no SYN"),
        pytest.param(tcp(4, b"", flags=RST, options=mss(1460)), id="a reset"),
        pytest.param(udp(4, tcp(4, b"", flags=SYN, options=mss(1460))), id="UDP"),
        pytest.param(tcp(4, b"", flags=SYN, options=mss(1460))[:30], id="a truncated packet"),
        pytest.param(tcp(4, b"", flags=SYN, options=mss(1460))[:5], id="a truncated IP header"),
    ],
)
def test_everything_else_stays_as_it_was(packet: bytes) -> None:
    assert lowered(framed(packet, 14)) == framed(packet, 14)


def test_a_fragment_stays_as_it_was() -> None:
    fragment = bytearray(tcp(4, b"", flags=SYN, options=mss(1460)))
    fragment[6] = 0x20
    assert lowered(framed(bytes(fragment), 14)) == framed(bytes(fragment), 14)


options = st.lists(
    st.binary(min_size=1, max_size=8) | st.builds(mss, st.integers(0, 0xFFFF)) | st.just(NOTHING), max_size=8
).map(lambda found: b"".join(found)[:40])


@given(st.sampled_from([4, 6]), st.sampled_from(LEADS), options, st.integers(0, 255), st.booleans(), st.integers(0, 99))
def test_whatever_the_options_only_an_mss_falls_and_the_checksum_stays_right(
    version: int, lead: int, found: bytes, flags: int, is_unfinished: bool, cut: int
) -> None:
    given = tcp(version, b"data", flags=flags, options=found + bytes(-len(found) % 4))
    start = start_of(given)
    before = framed(unfinished(given, 6, start) if is_unfinished else given, lead)
    after = lowered(before, is_unfinished=is_unfinished)
    assert len(after) == len(before)
    packet = after[lead:]
    assert is_right(finished(packet, 6, start) if is_unfinished else packet)
    header = slice(lead + start + 20, lead + len(given) - 4)
    changed = [at for at in range(len(before)) if before[at] != after[at] and not 16 <= at - lead - start < 18]
    assert all(header.start <= at < header.stop for at in changed)
    assert not changed or flags & SYN
    assert lowered(after, is_unfinished=is_unfinished) == after
    lowered(before[: max(lead + 1, len(before) - cut)])


@given(st.sampled_from([4, 6]), st.sampled_from(LEADS), st.binary(max_size=120))
def test_no_bytes_make_it_raise(version: int, lead: int, rest: bytes) -> None:
    frame = lead_of(version, lead) + bytes([version << 4 | 5]) + rest
    if ip_at(frame):
        assert len(lowered(frame)) == len(frame)
