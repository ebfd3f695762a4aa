"""Inner packets: their length, addresses and TOS byte, and bytes that are not a packet."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.wire import packets
from tests.wire.packets import is_right
from vpntun.errors import BadPacket
from vpntun.wire import ip
from vpntun.wire.checksum import ones_sum, set_ipv4_header
from vpntun.wire.ip import CE, CHANGES_INNER, DSCP, ECN, ECT_0, ECT_1, MAY_HAVE_ECN, NOT_ECT

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
A4, B4 = ipaddress.ip_address("100.64.0.1").packed, ipaddress.ip_address("10.1.2.3").packed
A6, B6 = ipaddress.ip_address("fd00::1").packed, ipaddress.ip_address("2001:db8::2").packed


def ipv4(total: int, there: int, first: int = 0x45) -> bytes:
    header = struct.pack("!BBHHHBBH4s4s", first, 0, total, 0, 0, 64, 17, 0, A4, B4)
    return header.ljust(there, b"\0")[:there]


def ipv6(payload: int, there: int) -> bytes:
    return struct.pack("!IHBB16s16s", 6 << 28, payload, 17, 64, A6, B6).ljust(there, b"\0")[:there]


@pytest.mark.parametrize("padding", [0, 1, 15, 100])
def test_the_length_leaves_the_padding_out(padding: int) -> None:
    assert ip.length_of(ipv4(20, 20 + padding)) == 20
    assert ip.length_of(ipv4(84, 84 + padding)) == 84
    assert ip.length_of(ipv4(60, 60 + padding, 0x4F)) == 60
    assert ip.length_of(ipv6(0, 40 + padding)) == 40
    assert ip.length_of(ipv6(100, 140 + padding)) == 140


def test_the_addresses_are_4_or_16_bytes() -> None:
    assert (ip.source_of(ipv4(20, 20)), ip.destination_of(ipv4(20, 20))) == (A4, B4)
    assert (ip.source_of(ipv6(0, 40)), ip.destination_of(ipv6(0, 40))) == (A6, B6)
    view = memoryview(bytearray(ipv6(8, 48)))
    assert (ip.source_of(view), ip.destination_of(view)) == (A6, B6)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x05" + bytes(60), id="version 0"),
        pytest.param(b"\x55" + bytes(60), id="version 5"),
        pytest.param(b"\x75" + bytes(60), id="version 7"),
        pytest.param(ipv4(19, 19), id="IPv4 of 19 bytes"),
        pytest.param(ipv4(20, 19), id="IPv4 header cut"),
        pytest.param(ipv4(60, 60, 0x44), id="IPv4 header length below 20"),
        pytest.param(ipv4(60, 60, 0x40), id="IPv4 header length 0"),
        pytest.param(ipv4(19, 60), id="IPv4 total length below 20"),
        pytest.param(ipv4(0, 60), id="IPv4 total length 0"),
        pytest.param(ipv4(23, 60, 0x46), id="IPv4 total length below its header's"),
        pytest.param(ipv4(61, 60), id="IPv4 total length above what is there"),
        pytest.param(ipv4(65535, 60), id="IPv4 total length 65,535"),
        pytest.param(ipv6(0, 39), id="IPv6 of 39 bytes"),
        pytest.param(ipv6(0, 20), id="IPv6 of 20 bytes"),
        pytest.param(ipv6(21, 60), id="IPv6 payload above what is there"),
        pytest.param(ipv6(65500, 60), id="IPv6 payload length 65,500"),
    ],
)
def test_bytes_that_are_not_a_packet_are_refused(packet: bytes) -> None:
    with pytest.raises(BadPacket) as caught:
        ip.length_of(packet)
    assert caught.value.reason == "bad inner packet"


ip_like = st.builds(lambda first, rest: bytes([first]) + rest, st.sampled_from([0x45, 0x46, 0x4F, 0x60]), st.binary())


@given(st.binary(max_size=100) | ip_like)
def test_arbitrary_bytes_are_refused_or_have_a_length_and_addresses(data: bytes) -> None:
    try:
        length = ip.length_of(data)
    except BadPacket:
        return
    version = data[0] >> 4
    assert version in (4, 6)
    assert (20 if version == 4 else 40) <= length <= len(data)
    assert len(ip.source_of(data)) == len(ip.destination_of(data)) == (4 if version == 4 else 16)


@given(st.binary(min_size=20, max_size=60), st.integers(1, 255), st.integers(0, 3))
def test_taking_a_hop_leaves_the_checksum_that_a_full_computation_gives(rest: bytes, ttl: int, words: int) -> None:
    size = 20 + 4 * words
    packet = bytearray(rest[:size].ljust(size, b"\x11"))
    packet[0], packet[8] = 0x45 + words, ttl
    set_ipv4_header(packet)
    expected = bytearray(packet)
    expected[8] -= 1
    set_ipv4_header(expected)
    ip.take_hop(memoryview(packet))
    assert packet == expected
    assert ip.hops_left(packet) == ttl - 1


def test_taking_a_hop_is_right_where_the_checksum_passes_through_zero() -> None:
    for identification in range(0x10000):
        packet = bytearray(ipv4(20, 20))
        packet[4:6] = identification.to_bytes(2, "big")
        set_ipv4_header(packet)
        ip.take_hop(memoryview(packet))
        assert ones_sum(packet) == 0
        assert packet[10:12] != b"\xff\xff"


def test_a_wrong_checksum_stays_wrong() -> None:
    packet = bytearray(ipv4(20, 20))
    set_ipv4_header(packet)
    packet[15] ^= 1
    ip.take_hop(memoryview(packet))
    assert ones_sum(packet) != 0


def test_ipv6_has_a_hop_limit_and_no_checksum() -> None:
    packet = bytearray(ipv6(8, 48))
    expected = packet[:7] + b"\x3f" + packet[8:]
    ip.take_hop(memoryview(packet))
    assert packet == expected
    assert ip.hops_left(packet) == 63


@pytest.mark.parametrize("address", ["1.0.0.0", "10.0.0.1", "126.255.255.255", "128.0.0.1", "223.255.255.255"])
def test_an_ipv4_address_of_one_host(address: str) -> None:
    assert ip.is_one_host(ipaddress.ip_address(address).packed)


@pytest.mark.parametrize("address", ["::2", "::1:0", "1::", "fd00::1", "fe80::1", "fec0::1", "2001:db8::1", "::ff00"])
def test_an_ipv6_address_of_one_host(address: str) -> None:
    assert ip.is_one_host(ipaddress.ip_address(address).packed)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.255.0.1", "127.0.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "ff02::1", "ff0e::1"),
    ],
)
def test_an_unspecified_multicast_broadcast_or_loopback_address_is_not_one_host(address: str) -> None:
    assert not ip.is_one_host(ipaddress.ip_address(address).packed)


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))
def test_link_local_is_what_the_standard_library_says_it_is(address: bytes) -> None:
    for each in (address, b"\xa9\xfe" + address[2:], b"\xfe\x80" + address[2:], b"\xfe\xc0" + address[2:]):
        assert ip.is_link_local(each) == ipaddress.ip_address(each).is_link_local


# TOS byte

RFC_6040 = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT_0: NOT_ECT, ECT_1: NOT_ECT, CE: NOT_ECT},
    ECT_0: {NOT_ECT: ECT_0, ECT_0: ECT_0, ECT_1: ECT_1, CE: CE},
    ECT_1: {NOT_ECT: ECT_1, ECT_0: ECT_1, ECT_1: ECT_1, CE: CE},
    CE: {NOT_ECT: CE, ECT_0: CE, ECT_1: CE, CE: CE},
}
"""Figure 4 of RFC 6040: the forwarded packet's ECN field, by the inner and the outer one.

There, a packet that is Not-ECT inside and CE outside is dropped; WireGuard delivers it as it is.
"""


def with_tos(version: int, tos: int) -> bytes:
    return packets.tcp(version, b"data", tos=tos)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("dscp", [0, 0xB8, 0xFC])
@pytest.mark.parametrize("outer", RFC_6040)
@pytest.mark.parametrize("inner", RFC_6040)
def test_the_forwarded_field_is_that_of_rfc_6040_and_wireguard(version: int, dscp: int, inner: int, outer: int) -> None:
    forwarded = bytearray(with_tos(version, dscp | inner))
    ip.decapsulate(memoryview(forwarded), outer)
    assert forwarded == with_tos(version, dscp | RFC_6040[inner][outer])
    assert is_right(bytes(forwarded))


def test_an_outer_field_that_need_not_be_looked_at_changes_nothing() -> None:
    for outer in (each for each in RFC_6040 if not each & CHANGES_INNER):
        assert all(RFC_6040[inner][outer] == inner for inner in RFC_6040)


@pytest.mark.parametrize("version", [4, 6])
def test_the_whole_tos_byte_is_read(version: int) -> None:
    assert [ip.tos_of(with_tos(version, tos)) for tos in range(256)] == list(range(256))
    assert ECN | DSCP == 0xFF


@given(st.sampled_from([4, 6]), st.integers(0, 255), st.integers(0, 15))
def test_a_packet_without_any_of_the_suspect_bits_is_not_ect(version: int, tos: int, flow: int) -> None:
    made = bytearray(with_tos(version, tos))
    if version == 6:
        made[1] |= flow  # the beginning of the flow label
    assert made[1] & MAY_HAVE_ECN or not ip.tos_of(made) & ECN


@given(st.binary(min_size=20, max_size=60), st.sampled_from([NOT_ECT, ECT_0, ECT_1, CE]))
def test_arbitrary_bytes_raise_nothing_and_keep_all_but_the_field(data: bytes, outer: int) -> None:
    changed = bytearray(data)
    ip.decapsulate(memoryview(changed), outer)
    assert ip.tos_of(changed) & DSCP == ip.tos_of(data) & DSCP
    assert ip.tos_of(changed) & ECN == RFC_6040[ip.tos_of(data) & ECN][outer]


@given(st.ip_addresses())
@example(ipaddress.ip_address("255.255.255.255"))
@example(ipaddress.ip_address("255.255.255.254"))
@example(ipaddress.ip_address("239.1.2.3"))
@example(ipaddress.ip_address("ff02::1"))
def test_groups_and_the_broadcast_to_all_are_told_from_hosts(address: Address) -> None:
    is_to_all = address == ipaddress.ip_address("255.255.255.255")
    assert ip.is_multicast(address.packed) == (address.is_multicast or is_to_all)
