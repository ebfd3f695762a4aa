"""ICMP errors: which packets cause one, its addressee, the length of the quote; checked with scapy."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.packets import A4, A6, ip, payload, pseudo, slow_sum, tcp, tcp_superpacket, udp
from vpntun.errors import BadPacket
from vpntun.wire.icmp import TIME_EXCEEDED, TOO_BIG, UNREACHABLE, IcmpError, error_about, may_be_told_of
from vpntun.wire.ip import length_of

ROUTER4, ROUTER6 = ip_address("192.0.2.1").packed, ip_address("2001:db8::1").packed
ERRORS = [UNREACHABLE, TIME_EXCEEDED, TOO_BIG]


def router(packet: bytes) -> bytes:
    return ROUTER4 if packet[0] < 0x50 else ROUTER6


def between(source: str, destination: str) -> bytes:
    """A UDP packet from one address to another; its checksums do not matter here."""
    packet = bytearray(udp(ip_address(source).version, b"x"))
    place = 12 if packet[0] < 0x50 else 8
    addresses = ip_address(source).packed + ip_address(destination).packed
    packet[place : place + len(addresses)] = addresses
    return bytes(packet)


def icmp(version: int, kind: int, body: bytes = bytes(7)) -> bytes:
    return ip(version, 1 if version == 4 else 58, bytes([kind]) + body)


def behind(protocol: int, *headers: bytes, body: bytes = bytes(8)) -> bytes:
    """An IPv6 packet whose first extension header is `protocol`."""
    return ip(6, protocol, b"".join(headers) + body)


# The contents of an error


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("packet", [udp(4, b"hello"), udp(6, b"hello"), tcp_superpacket(4, payload(60000))])
def test_the_error_goes_to_the_sender_and_quotes_the_packet(packet: bytes, error: IcmpError) -> None:
    said = error_about(packet, error, router(packet), 1400 if error is TOO_BIG else 0)
    assert length_of(said) == len(said)
    mtu = 1400 if error is TOO_BIG else 0
    if packet[0] < 0x50:
        assert (said[9], said[12:16], said[16:20]) == (1, ROUTER4, A4)
        assert said[20:22] == bytes(error.four)
        assert said[24:28] == struct.pack("!I", mtu)
        assert said[28:] == packet[: 576 - 28]
    else:
        assert (said[6], said[8:24], said[24:40]) == (58, ROUTER6, A6)
        assert said[40:42] == bytes(error.six)
        assert said[44:48] == struct.pack("!I", mtu)
        assert said[48:] == packet


def test_types_and_codes_are_those_of_the_rfcs() -> None:
    assert UNREACHABLE == ((3, 1), (1, 3))
    assert TIME_EXCEEDED == ((11, 0), (3, 0))
    assert TOO_BIG == ((3, 4), (2, 0))


@pytest.mark.parametrize(("version", "largest"), [(4, 576), (6, 1280)])
def test_no_more_is_quoted_than_every_path_takes(version: int, largest: int) -> None:
    for size in (largest - 50, largest, 9000):
        packet = udp(version, payload(size))
        assert len(error_about(packet, UNREACHABLE, router(packet))) == min(
            largest, len(packet) + (28 if version == 4 else 48)
        )


def test_scapy_finds_the_same_checksums() -> None:
    scapy = pytest.importorskip("scapy.utils")
    inet6 = pytest.importorskip("scapy.layers.inet6")
    for size in (0, 1, 11, 600, 2001):
        four = error_about(udp(4, payload(size)), UNREACHABLE, ROUTER4)
        assert scapy.checksum(four[:20]) == 0
        assert scapy.checksum(four[20:]) == 0
        six = error_about(udp(6, payload(size)), TOO_BIG, ROUTER6, 1280)
        assert inet6.in6_chksum(58, inet6.IPv6(six[:40]), six[40:]) == 0


# Packets that may cause an error

QUIET = {
    "an unspecified source": between("0.0.0.0", "10.0.0.1"),
    "an unspecified network": between("0.1.2.3", "10.0.0.1"),
    "a loopback source": between("127.0.0.1", "10.0.0.1"),
    "a loopback destination": between("10.0.0.1", "127.0.0.1"),
    "a multicast source": between("224.0.0.1", "10.0.0.1"),
    "a source of class E": between("240.0.0.1", "10.0.0.1"),
    "multicast": between("10.0.0.1", "224.0.0.251"),
    "broadcast": between("10.0.0.1", "255.255.255.255"),
    "an unspecified IPv6 source": between("::", "fd00::1"),
    "an IPv6 loopback source": between("::1", "fd00::1"),
    "an IPv6 multicast source": between("ff02::1", "fd00::1"),
    "IPv6 multicast": between("fd00::1", "ff02::2"),
    "unreachable": icmp(4, 3),
    "source quench": icmp(4, 4),
    "a redirect": icmp(4, 5),
    "time exceeded": icmp(4, 11),
    "a parameter problem": icmp(4, 12),
    "ICMP of a type that nobody knows": icmp(4, 200),
    "ICMP without a type": ip(4, 1, b""),
    "IPv6 unreachable": icmp(6, 1),
    "IPv6 too big": icmp(6, 2),
    "an IPv6 error that nobody knows": icmp(6, 127),
    "an IPv6 redirect": icmp(6, 137),
    "ICMPv6 without a type": ip(6, 58, b""),
    "an ICMPv6 error behind extension headers": behind(
        0, bytes([60, 0]) + bytes(6), bytes([58, 1]) + bytes(14), b"\x01"
    ),
    "an ICMPv6 error in a first fragment": behind(44, bytes([58, 0, 0, 1, 0, 0, 0, 1]), body=b"\x01" + bytes(7)),
    "a later fragment": tcp(4, b"x")[:6] + b"\x20\x01" + tcp(4, b"x")[8:],
    "the last fragment": tcp(4, b"x")[:6] + b"\x01\x00" + tcp(4, b"x")[8:],
    "a later IPv6 fragment": behind(44, bytes([17, 0, 0, 8, 0, 0, 0, 1])),
    "a later IPv6 fragment behind options": behind(60, bytes([44]) + bytes(7), bytes([17, 0, 1, 0, 0, 0, 0, 1])),
    "an extension header that is cut short": behind(0, body=bytes(4)),
    "an extension header longer than the packet": behind(0, bytes([17, 9]) + bytes(6)),
    "extension headers without an end": behind(60, *[bytes([60]) + bytes(7)] * 9),
}

TOLD = {
    "UDP": udp(4, b"x"),
    "IPv6 UDP": udp(6, b"x"),
    "TCP": tcp(4, b"x"),
    "an echo request": icmp(4, 8),
    "an echo reply": icmp(4, 0),
    "an IPv6 echo request": icmp(6, 128),
    "an IPv6 echo reply": icmp(6, 129),
    "a first fragment": tcp(4, b"x")[:6] + b"\x20\x00" + tcp(4, b"x")[8:],
    "a first IPv6 fragment": behind(44, bytes([17, 0, 0, 1, 0, 0, 0, 1])),
    "an echo request behind extension headers": behind(0, bytes([58]) + bytes(7), body=b"\x80" + bytes(7)),
    "a protocol that nobody knows": ip(4, 253, b""),
    "no next header": ip(6, 59, b""),
    "a link-local source": between("fe80::1", "fd00::1"),
    "the smallest address": between("fd00::1", "::2"),
}


@pytest.mark.parametrize("packet", QUIET.values(), ids=QUIET.keys())
def test_no_error_is_sent_about(packet: bytes) -> None:
    assert length_of(packet) == len(packet)
    assert not may_be_told_of(packet)


@pytest.mark.parametrize("packet", TOLD.values(), ids=TOLD.keys())
def test_an_error_is_sent_about(packet: bytes) -> None:
    assert length_of(packet) == len(packet)
    assert may_be_told_of(packet)


# Arbitrary packets

EXTENSIONS = st.lists(st.sampled_from([0, 43, 44, 60, 58, 1, 6, 17]), max_size=7)


@st.composite
def inner(draw: st.DrawFn) -> bytes:
    """Random bytes that pass for an IP packet, often with bytes in it that look like headers."""
    kinds = draw(EXTENSIONS)
    body = b"".join(bytes([kind, draw(st.integers(0, 2)), 0, draw(st.integers(0, 9))]) + bytes(4) for kind in kinds[1:])
    body += draw(st.binary(max_size=1500))
    first = kinds[0] if kinds else draw(st.integers(0, 255))
    if draw(st.booleans()):
        return ip(6, first, body)
    packet = bytearray(ip(4, first, body))
    packet[0] = 0x40 | draw(st.integers(5, min(15, len(packet) // 4)))
    packet[6:8] = draw(st.sampled_from([bytes(2), b"\x40\x00", b"\x20\x00", b"\x00\x07"]))
    return bytes(packet)


@given(packet=inner() | st.binary(max_size=200), error=st.sampled_from(ERRORS), mtu=st.integers(0, 65535))
def test_every_error_is_well_formed_and_not_about_an_error(packet: bytes, error: IcmpError, mtu: int) -> None:
    try:
        packet = packet[: length_of(packet)]
    except BadPacket:
        return
    if not may_be_told_of(packet):
        return
    said = error_about(memoryview(packet), error, router(packet), mtu)
    assert length_of(said) == len(said)
    assert not may_be_told_of(said)
    if packet[0] < 0x50:
        assert len(said) <= 576
        assert packet.startswith(said[28:])
        assert slow_sum(said[:20]) == slow_sum(said[20:]) == 0xFFFF
    else:
        assert len(said) <= 1280
        assert packet.startswith(said[48:])
        assert slow_sum(pseudo(said, 58, len(said) - 40) + said[40:]) == 0xFFFF
