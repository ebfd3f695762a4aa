"""Segments of one flow are joined into the superpacket they came from; everything else passes unchanged."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire import packets
from tests.wire.offloads import (
    FIRST,
    SECOND,
    UDP_FIRST,
    joined,
    joined_frames,
    leads,
    moved,
    split,
    tcp_flags,
    versions,
    without_identification,
)
from tests.wire.packets import ACK, CWR, FIN, PSH, RST, SYN, URG
from vpntun.errors import BadPacket
from vpntun.wire import ip
from vpntun.wire.gro_coalescer import GroCoalescer
from vpntun.wire.vnet import NO_OFFLOAD, SEGMENT_SIZE, SPLIT_FIRST, VNET_HEADER, header_for, segment_field_of


@pytest.mark.parametrize("version", [4, 6])
def test_a_joined_run_of_tcp_is_the_superpacket_it_came_from(version: int) -> None:
    payload = bytes(range(256)) * 50
    stream = packets.tcp_run(version, payload, 1400, flags=ACK | PSH)
    ((header, packet),) = joined(stream)
    assert packet == packets.tcp_superpacket(version, payload, flags=ACK | PSH)
    start = packets.start_of(packet)
    assert VNET_HEADER.unpack(header) == (1, 1 if version == 4 else 4, start + 32, 1400, start, 16)
    assert split(packet, 1400) == stream


@pytest.mark.parametrize("version", [4, 6])
def test_a_joined_run_of_udp_is_the_superpacket_it_came_from(version: int) -> None:
    payload = bytes(range(250)) * 50
    stream = packets.udp_run(version, payload, 1200)
    ((header, packet),) = joined(stream)
    assert packet == packets.udp_superpacket(version, payload)
    start = packets.start_of(packet)
    assert VNET_HEADER.unpack(header) == (1, 5, start + 8, 1200, start, 6)
    assert joined(stream, udp=False) == [(NO_OFFLOAD, packet) for packet in stream]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), versions, st.binary(min_size=1, max_size=2000), st.integers(48, 900), tcp_flags),
        max_size=6,
    ),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_joined_packets_split_into_the_same_packets_in_the_same_order(
    runs: list[tuple[bool, int, bytes, int, int]], random: object, shuffled: bool
) -> None:
    stream = []
    seq = 1000
    for is_tcp, version, payload, size, flags in runs:
        if is_tcp:
            stream += packets.tcp_run(version, payload, size, flags=flags, seq=seq)
            seq += len(payload)
        else:
            stream += packets.udp_run(version, payload, size)
    if shuffled:
        random.shuffle(stream)  # type: ignore[attr-defined]
    again = []
    for header, packet in joined(stream):
        if header == NO_OFFLOAD:
            again.append(packet)
        else:
            field = segment_field_of(header, memoryview(bytearray(packet)))
            assert not field & SPLIT_FIRST
            out = bytearray(10)
            header_for(packet, len(packet), field, out)
            assert bytes(out) == header
            again += split(packet, field & 0x3FFF)
    # DF packets may come back with other identifications, which mean nothing in them.
    assert [without_identification(packet) for packet in again] == [without_identification(packet) for packet in stream]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            versions,
            st.binary(min_size=1, max_size=2000),
            st.integers(30, 900),
            st.booleans(),
            tcp_flags,
        ),
        max_size=4,
    ),
    leads,
)
def test_frames_are_joined_as_their_ip_packets_would_be(
    runs: list[tuple[bool, int, bytes, int, bool, int]], lead: int
) -> None:
    stream = []
    for is_tcp, version, payload, size, spoil, flags in runs:
        if is_tcp:
            run = packets.tcp_run(version, payload, size, flags=flags, df=False)
        else:
            run = packets.udp_run(version, payload, size)
        if spoil:
            run[-1] = changed(run[-1], len(payload) * 7)
        stream += run
    stream = [packet for packet in stream if has_right_length(packet)]
    expected = [(moved(header, lead), packets.framed(packet, lead)) for header, packet in joined(stream)]
    assert joined_frames([packets.framed(packet, lead) for packet in stream], lead) == expected


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("lead", packets.LEADS)
def test_frames_with_other_addresses_or_tags_are_not_joined(version: int, lead: int) -> None:
    first, second = (packets.framed(packet, lead) for packet in packets.tcp_run(version, bytes(200), 100))
    assert len(joined_frames([first, second], lead)) == 1
    for at in range(lead):
        other = changed(second, at)
        assert joined_frames([first, other], lead) == [(NO_OFFLOAD, first), (NO_OFFLOAD, other)]


@pytest.mark.parametrize("lead", packets.LEADS)
def test_frames_with_padding_are_not_joined_and_keep_it(lead: int) -> None:
    for run in (packets.tcp_run(4, bytes(200), 100), packets.udp_run(6, bytes(200), 100)):
        first, second = (packets.framed(packet, lead) for packet in run)
        for stream in ([first + b"pad", second], [first, second + b"pad"], [first + bytes(1), second + bytes(1)]):
            assert joined_frames(stream, lead) == [(NO_OFFLOAD, frame) for frame in stream]
            assert joined_frames(stream[:1], lead) == [(NO_OFFLOAD, stream[0])]


@given(st.lists(st.binary(max_size=60), max_size=6), leads, versions)
def test_frames_of_arbitrary_bytes_pass_unchanged(stream: list[bytes], lead: int, version: int) -> None:
    frames = [packets.lead_of(version, lead) + rest for rest in stream]
    assert joined_frames(frames, lead) == [(NO_OFFLOAD, frame) for frame in frames]


def has_right_length(packet: bytes) -> bool:
    try:
        return ip.length_of(packet) == len(packet)
    except BadPacket:
        return False


def changed(packet: bytes, at: int, bits: int = 1) -> bytes:
    at %= len(packet)
    return packet[:at] + bytes([packet[at] ^ bits]) + packet[at + 1 :]


def test_two_segments_of_one_flow_are_joined() -> None:
    assert len(joined([FIRST, SECOND])) == 1
    assert len(joined([UDP_FIRST, UDP_FIRST])) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(FIRST, packets.tcp(4, b"b" * 100, seq=1101, identification=6, df=False), id="gap"),
        pytest.param(FIRST, packets.tcp(4, b"b" * 100, identification=6, df=False), id="repeated"),
        pytest.param(FIRST, packets.tcp(4, b"b" * 101, seq=1100, identification=6, df=False), id="longer"),
        pytest.param(FIRST, packets.tcp(4, b"", seq=1100, identification=6, df=False), id="pure ACK"),
        pytest.param(FIRST, packets.tcp(4, b"b" * 100, seq=1100, identification=7, df=False), id="IPv4 id"),
        pytest.param(FIRST, packets.tcp(4, b"b" * 100, seq=1100, identification=6), id="DF"),
        pytest.param(FIRST, packets.tcp(4, b"b" * 100, seq=1100, identification=6, df=False, tos=3), id="CE mark"),
        pytest.param(FIRST, packets.tcp(4, b"b" * 100, seq=1100, identification=6, df=False, window=501), id="window"),
        pytest.param(
            FIRST, packets.tcp(4, b"b" * 100, seq=1100, identification=6, df=False, ports=(40000, 5202)), id="port"
        ),
        pytest.param(
            FIRST,
            packets.tcp(4, b"b" * 100, seq=1100, identification=6, df=False, options=bytes(12)),
            id="other options",
        ),
        pytest.param(
            FIRST, packets.tcp(4, b"b" * 100, seq=1100, identification=6, df=False, options=b""), id="fewer options"
        ),
        pytest.param(FIRST, packets.tcp(6, b"b" * 100, seq=1100), id="other version"),
        pytest.param(FIRST, UDP_FIRST, id="other protocol"),
        pytest.param(FIRST, changed(SECOND, -1), id="second's TCP checksum"),
        pytest.param(changed(FIRST, -1), SECOND, id="first's TCP checksum"),
        pytest.param(FIRST, changed(SECOND, 10), id="second's IPv4 checksum"),
        pytest.param(changed(FIRST, 10), SECOND, id="first's IPv4 checksum"),
        pytest.param(packets.tcp(4, b"a" * 47, df=False), packets.tcp(4, b"b" * 47, seq=1047), id="tiny"),
        pytest.param(UDP_FIRST, packets.udp(4, b"a" * 101), id="longer UDP"),
        pytest.param(UDP_FIRST, packets.udp(4, b"a" * 100, port=54), id="other UDP port"),
        pytest.param(UDP_FIRST, UDP_FIRST[:26] + b"\0\0" + UDP_FIRST[28:], id="UDP without checksum"),
        pytest.param(UDP_FIRST[:26] + b"\0\0" + UDP_FIRST[28:], UDP_FIRST, id="first UDP without checksum"),
        pytest.param(UDP_FIRST[:24] + b"\0\x63" + UDP_FIRST[26:], UDP_FIRST, id="UDP length"),
    ],
)
def test_a_packet_that_does_not_continue_the_last_passes_unchanged(first: bytes, second: bytes) -> None:
    assert joined([first, second]) == [(NO_OFFLOAD, first), (NO_OFFLOAD, second)]


@pytest.mark.parametrize("flag", [SYN, RST, URG, CWR, FIN, PSH])
def test_a_flag_on_the_first_segment_keeps_it_alone(flag: int) -> None:
    first = packets.tcp(6, b"a" * 100, flags=ACK | flag)
    second = packets.tcp(6, b"b" * 100, seq=1100)
    assert joined([first, second]) == [(NO_OFFLOAD, first), (NO_OFFLOAD, second)]


@pytest.mark.parametrize("flag", [SYN, RST, URG, CWR])
def test_a_flag_on_a_later_segment_is_not_joined(flag: int) -> None:
    first = packets.tcp(6, b"a" * 100)
    second = packets.tcp(6, b"b" * 100, seq=1100, flags=ACK | flag)
    assert joined([first, second]) == [(NO_OFFLOAD, first), (NO_OFFLOAD, second)]


@pytest.mark.parametrize("flag", [FIN, PSH])
def test_fin_and_psh_end_a_superpacket(flag: int) -> None:
    stream = [packets.tcp(6, b"a" * 100, seq=1000 + 100 * i, flags=ACK | (flag if i == 1 else 0)) for i in range(4)]
    written = joined(stream)
    assert [len(packet) for _, packet in written] == [72 + 200, 72 + 200]
    assert written[0][1][53] == ACK | flag
    assert written[1][1][53] == ACK


def test_a_shorter_segment_ends_a_superpacket() -> None:
    stream = [packets.tcp(6, b"a" * size, seq=seq) for size, seq in ((100, 1000), (90, 1100), (90, 1190))]
    assert [len(packet) for _, packet in joined(stream)] == [72 + 190, 72 + 90]


def test_fragments_options_and_extension_headers_pass_unchanged() -> None:
    fragment = bytearray(packets.tcp(4, b"a" * 100))
    fragment[6] |= 0x20
    options = b"\x46" + packets.tcp(4, b"a" * 100)[1:]
    extension = packets.ip(6, 0, b"\x06" + bytes(7) + packets.tcp(6, b"a" * 100)[40:])
    for packet in (bytes(fragment), options, extension, packets.ip(4, 6, b""), packets.ip(6, 17, bytes(8))):
        assert joined([packet, packet]) == [(NO_OFFLOAD, packet)] * 2


def test_a_superpacket_ends_at_65535_bytes_and_at_64_datagrams() -> None:
    stream = packets.tcp_run(4, bytes(80_000), 1448)
    assert all(len(packet) <= 65535 for _, packet in joined(stream))
    assert len(joined(stream)) == 2
    assert [len(packet) for _, packet in joined(packets.udp_run(4, bytes(6500), 100))] == [28 + 6400, 128]


def test_segments_too_long_for_a_segment_field_are_not_joined() -> None:
    for size, superpackets in ((SEGMENT_SIZE, 1), (SEGMENT_SIZE + 1, 2)):
        assert len(joined(packets.tcp_run(4, bytes(2 * size), size))) == superpackets


def test_an_identification_or_a_sequence_number_that_wraps_around_begins_another_superpacket() -> None:
    payload = bytes(1000)
    for fields, lengths in (
        ({"seq": 2**32 - 300}, [300, 700]),
        ({"seq": 2**32 - 299}, [300, 700]),
        ({"identification": 65533}, [300, 700]),
        ({"seq": 2**32 - 500, "identification": 65533}, [300, 200, 500]),
    ):
        stream = packets.tcp_run(4, payload, 100, df=False, **fields)
        written = joined(stream)
        assert [len(packet) - 52 for _, packet in written] == lengths
        assert [piece for _, packet in written for piece in split(packet, 100)] == stream


# Packets whose checksums are not finished


def unfinished(stream: list[bytes]) -> list[bytes]:
    return [packets.unfinished(packet, 6 if is_tcp(packet) else 17, packets.start_of(packet)) for packet in stream]


def is_tcp(packet: bytes) -> bool:
    return packet[9 if packet[0] < 0x50 else 6] == 6


def joined_of(stream: list[tuple[bytes, bool]], *, udp: bool = True) -> list[tuple[bytes, bytes]]:
    """The writes that result from (packet, checksum is finished) pairs, each handled like a BUNDLE of one packet."""
    written: list[tuple[bytes, bytes]] = []
    coalescer = GroCoalescer(lambda view: written.append((bytes(view[:10]), bytes(view[10:]))), udp)
    for packet, finished in stream:
        if not coalescer.extend(memoryview(packet), len(packet), finished=finished):
            coalescer.add(memoryview(packet), len(packet), finished=finished)
    coalescer.flush()
    return written


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            versions,
            st.binary(min_size=1, max_size=2000),
            st.integers(48, 900),
            tcp_flags,
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_joined_packets_are_cut_into_the_same_packets_and_finished_checksums_never_mix_with_unfinished_ones(
    runs: list[tuple[bool, int, bytes, int, int, bool]],
) -> None:
    stream: list[tuple[bytes, bool]] = []
    seq = 1000
    for tcp, version, payload, size, flags, finished in runs:
        if tcp:
            run = packets.tcp_run(version, payload, size, flags=flags, seq=seq)
            seq += len(payload)
        else:
            run = packets.udp_run(version, payload, size)
        stream += [(packet, finished) for packet in (run if finished else unfinished(run))]
    again: list[bytes] = []
    for header, packet in joined_of(stream):
        if header == NO_OFFLOAD:
            again.append(packet)
            assert stream[len(again) - 1][1]
            continue
        field = segment_field_of(header, memoryview(bytearray(packet)))
        pieces = split(packet, field & 0x3FFF)
        of = {finished for _, finished in stream[len(again) : len(again) + len(pieces)]}
        assert len(of) == 1
        if len(pieces) == 1:
            assert of == {False}
        again += pieces
    expected = [
        packet if done else packets.finished(packet, 6 if is_tcp(packet) else 17, packets.start_of(packet))
        for packet, done in stream
    ]
    assert [without_identification(packet) for packet in again] == [
        without_identification(packet) for packet in expected
    ]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("make", [packets.tcp_run, packets.udp_run])
def test_a_run_of_unfinished_packets_is_one_superpacket_and_a_single_one_stays_unfinished(
    version: int, make: Callable[..., list[bytes]]
) -> None:
    run = unfinished(make(version, bytes(1000), 100))
    ((_, packet),) = joined_of([(each, False) for each in run])
    assert len(packet) == len(run[0]) + 900
    ((header, packet),) = joined_of([(run[0], False)])
    assert packet == run[0]
    assert VNET_HEADER.unpack(header)[:2] == (1, 0)


def test_a_finished_packet_does_not_continue_an_unfinished_one_nor_the_other_way_round() -> None:
    run = packets.tcp_run(4, bytes(400), 100)
    open_run = unfinished(run)
    mixed = [(run[0], True), (open_run[1], False), (run[2], True), (open_run[3], False)]
    assert len(joined_of(mixed)) == 4


def test_without_usos_unfinished_datagrams_are_not_joined() -> None:
    run = unfinished(packets.udp_run(4, bytes(400), 100))
    assert [packet for _, packet in joined_of([(each, False) for each in run], udp=False)] == run


@given(st.lists(st.tuples(st.binary(max_size=120), st.booleans()) | st.just((FIRST, True)), max_size=8))
def test_only_a_true_continuation_is_accepted(stream: list[tuple[bytes, bool]]) -> None:
    coalescer = GroCoalescer(lambda view: None, udp=True)
    coalescer.add(memoryview(FIRST), len(FIRST), finished=True)
    for packet, finished in stream:
        if coalescer.extend(memoryview(packet), len(packet), finished=finished):
            assert packet[:20] == SECOND[:20]


@given(st.lists(st.binary(min_size=20, max_size=120) | st.sampled_from([FIRST, SECOND, UDP_FIRST]), max_size=8))
def test_arbitrary_packets_pass_through_in_their_order(stream: list[bytes]) -> None:
    accepted = []
    for packet in stream:
        try:
            accepted.append(packet[: ip.length_of(packet)])
        except BadPacket:
            continue
    again = []
    for header, packet in joined(accepted):
        again += (
            [packet] if header == NO_OFFLOAD else split(packet, segment_field_of(header, memoryview(packet)) & 0x3FFF)
        )
    assert [len(packet) for packet in again] == [len(packet) for packet in accepted]
    for got, sent in itertools.zip_longest(again, accepted):
        assert got[-1] == sent[-1]
