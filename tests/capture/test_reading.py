"""The reader reads what pcapng.py writes, however it arrives, and refuses everything else by one error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.capture import pcapng
from vpntun.capture.reading import CapturedPacket, CaptureReader
from vpntun.errors import BadPacket

TIMES = st.integers(0, (1 << 64) - 1)
NAMES = st.text(max_size=20)
START = pcapng.section("vpntun") + pcapng.interface("office", "", 100)


@st.composite
def captures(draw: st.DrawFn) -> tuple[bytes, list[CapturedPacket], int]:
    """Return a capture, its packets, and how many were lost."""
    names = draw(st.lists(NAMES, min_size=1, max_size=3))
    link_types = [draw(st.sampled_from([pcapng.LINKTYPE_RAW, pcapng.LINKTYPE_ETHERNET])) for _ in names]
    interfaces = [pcapng.interface(name, "", 100, kind) for name, kind in zip(names, link_types, strict=True)]
    parts = [pcapng.section("vpntun"), *interfaces]
    packets, lost = [], [0] * len(names)
    for _ in range(draw(st.integers(0, 5))):
        number, at, data = draw(st.integers(0, len(names) - 1)), draw(TIMES), draw(st.binary(max_size=40))
        outbound, before = draw(st.booleans()), draw(st.integers(0, 3))
        length = len(data) + draw(st.integers(0, 9))
        direction = pcapng.OUTBOUND if outbound else pcapng.INBOUND
        parts.append(pcapng.packet(number, at, data, length, direction, before))
        is_frame = link_types[number] == pcapng.LINKTYPE_ETHERNET
        packets.append(CapturedPacket(names[number], at, outbound, data, length, is_frame))
        lost[number] += before
    if draw(st.booleans()):
        number, total = draw(st.integers(0, len(names) - 1)), draw(st.integers(0, 99))
        parts.append(pcapng.statistics(number, 0, draw(TIMES), 99, total))
        lost[number] = total
    return b"".join(parts), packets, sum(lost)


@given(captures(), st.integers(1, 100))
def test_what_was_written_is_read_in_whatever_pieces_it_arrives(
    capture: tuple[bytes, list[CapturedPacket], int], step: int
) -> None:
    data, packets, lost = capture
    reader = CaptureReader()
    assert [each for at in range(0, len(data), step) for each in reader.take(data[at : at + step])] == packets
    assert (reader.packets, reader.lost) == (len(packets), lost)


@given(captures(), st.data())
def test_a_damaged_capture_raises_only_bad_packet(capture: Any, data: st.DataObject) -> None:
    damaged = bytearray(capture[0])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert len(list(CaptureReader().take(bytes(damaged)))) <= len(capture[1]) + 1
    except BadPacket as bad:
        assert bad.reason == "bad capture"


@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_raise_only_bad_packet(data: bytes, follows: bool) -> None:
    try:
        assert list(CaptureReader().take((START if follows else b"") + data)) == []
    except BadPacket as bad:
        assert bad.reason == "bad capture"


@pytest.mark.parametrize(
    "bad",
    [
        pcapng.interface("before the section", "", 100),
        START + START,
        START + pcapng.packet(1, 0, b"of no interface", 15, pcapng.INBOUND),
        START + pcapng.statistics(1, 0, 0, 0, 0),
        START + b"\6\0\0\0\xfc\xff\xff\xff",
        START + b"\6\0\0\0\x0d\0\0\0",
        START + pcapng.packet(0, 0, b"", 0, pcapng.INBOUND)[:-4] + b"ends",
        pcapng.section("vpntun").replace(b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"),
    ],
)
def test_what_no_vpntun_writes_is_refused(bad: bytes) -> None:
    with pytest.raises(BadPacket, match="bad capture"):
        list(CaptureReader().take(bad))


def test_blocks_of_other_kinds_are_skipped() -> None:
    other = b"\x0b\x0a\0\0\x10\0\0\0data\x10\0\0\0"
    packet = pcapng.packet(0, 5, b"data", 4, pcapng.OUTBOUND)
    assert list(CaptureReader().take(START + other + packet)) == [CapturedPacket("office", 5, True, b"data", 4)]
