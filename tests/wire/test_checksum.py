"""The fast checksum, compared with a sum taken word by word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire import packets
from vpntun.errors import BadPacket
from vpntun.wire import checksum, transport_header


@given(
    st.binary(max_size=300) | st.builds(lambda data, times: data * times, st.binary(max_size=300), st.integers(2, 20))
)
def test_the_residue_is_the_sum_of_words(data: bytes) -> None:
    assert checksum.ones_sum(data) == packets.slow_sum(data) % 0xFFFF
    assert checksum.ones_sum(memoryview(data)) == checksum.ones_sum(bytearray(data)) == checksum.ones_sum(data)


def finish(packet: bytearray) -> None:
    protocol, start, _ = transport_header.shape_of(packet, len(packet))
    offset = transport_header.TCP_CHECKSUM if protocol == checksum.TCP else checksum.UDP_CHECKSUM
    checksum.finish_transport(memoryview(packet), start, offset)


@pytest.mark.parametrize("version", [4, 6])
@given(payload=st.binary(max_size=100))
def test_finishing_gives_the_checksum_of_the_slow_sum(version: int, payload: bytes) -> None:
    for packet, protocol in ((packets.tcp(version, payload), 6), (packets.udp(version, payload), 17)):
        start = packets.start_of(packet)
        bare = bytearray(packets.unfinished(packet, protocol, start))
        finish(bare)
        assert bytes(bare) == packet


@pytest.mark.parametrize("version", [4, 6])
def test_a_udp_checksum_of_zero_is_sent_as_all_ones(version: int) -> None:
    packet = packets.udp(version, b"\0\0")
    start = packets.start_of(packet)
    payload = packet[start + 6 : start + 8]
    packet = packets.udp(version, payload)  # the words now add up to 0xffff, whose complement is 0
    assert packet[start + 6 : start + 8] == b"\xff\xff"
    bare = bytearray(packets.unfinished(packet, 17, start))
    finish(bare)
    assert bytes(bare) == packet


@given(st.binary(min_size=20, max_size=60))
def test_an_ipv4_header_sums_to_all_ones_once_its_checksum_is_set(data: bytes) -> None:
    header = bytearray(data)
    header[0] = 0x40 | len(data) // 4
    checksum.set_ipv4_header(header)
    assert packets.slow_sum(bytes(header[: len(data) // 4 * 4])) == 0xFFFF


def extended(*kinds: int, last: int = 6, size: int = 8) -> bytes:
    chain = [*kinds, last]
    headers = b"".join(bytes([after, size // 8 - 1]).ljust(size, b"\0") for after in chain[1:])
    return packets.ip(6, chain[0], headers + packets.tcp(6, b"x" * 9)[40:])


def test_the_transport_header_is_found_behind_extension_headers() -> None:
    packet = extended(0, 60)
    assert transport_header.shape_of(packet, len(packet)) == (6, 56, 88)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        pytest.param(extended(0, 60, 60, 60, 60), "bad extension header", id="5 extension headers"),
        pytest.param(extended(0, size=2048), "bad TCP header", id="2 kB of headers"),
        pytest.param(extended(44), "fragment", id="IPv6 fragment"),
        pytest.param(extended(0, 44), "fragment", id="IPv6 fragment behind an extension header"),
        pytest.param(packets.ip(6, 0, b""), "bad extension header", id="nothing where an extension header should be"),
        pytest.param(packets.ip(6, 0, b"\x06\xff" + bytes(6)), "bad extension header", id="extension header too long"),
        pytest.param(packets.ip(6, 51, bytes(40)), "not TCP or UDP", id="AH"),
        pytest.param(packets.ip(4, 1, bytes(40)), "not TCP or UDP", id="ICMP"),
        pytest.param(packets.ip(4, 6, bytes(19)), "bad TCP header", id="TCP of 19 bytes"),
        pytest.param(packets.ip(4, 6, bytes(12) + b"\x40" + bytes(20)), "bad TCP header", id="TCP data offset 4"),
        pytest.param(packets.ip(4, 6, bytes(12) + b"\xf0" + bytes(20)), "bad TCP header", id="TCP options cut"),
        pytest.param(packets.ip(4, 17, bytes(7)), "bad UDP header", id="UDP of 7 bytes"),
        pytest.param(packets.ip(4, 17, bytes(4) + b"\x00\x09" + bytes(4)), "bad UDP header", id="UDP length"),
    ],
)
def test_packets_that_are_not_one_whole_segment_are_refused(packet: bytes, reason: str) -> None:
    with pytest.raises(BadPacket) as caught:
        transport_header.shape_of(packet, len(packet))
    assert caught.value.reason == reason


@pytest.mark.parametrize("fragment", [0x2000, 0x0001, 0x1FFF, 0x6000])
def test_ipv4_fragments_are_refused(fragment: int) -> None:
    packet = bytearray(packets.tcp(4, b"x"))
    packet[6:8] = fragment.to_bytes(2, "big")
    with pytest.raises(BadPacket, match="fragment"):
        transport_header.shape_of(packet, len(packet))
