"""Lines about packets, as --print prints them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.datapath.ends import ipv4, ipv6
from tests.wire.packets import ACK, PSH, SYN, ip, tcp, tcp_superpacket, udp
from vpntun.capture.describing import describe

FOUR, SIX = "100.64.0.1:%d > 10.1.2.3:%d", "[fd00::1]:%d > [2001:db8::2]:%d"
ECHO = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + bytes(56)
ECHO_V6 = struct.pack("!BBHHH", 129, 0, 0, 7, 2) + bytes(8)
FRAGMENT = struct.pack("!BBHI", 17, 0, 1480 | 1, 9)


def described(packet: bytes) -> str:
    return describe(packet, len(packet))


def ports(packet: bytes, start: int) -> tuple[int, ...]:
    return struct.unpack_from("!HH", packet, start)


@pytest.mark.parametrize(("version", "where", "start"), [(4, FOUR, 20), (6, SIX, 40)])
def test_tcp_and_udp_are_shown_with_ports_flags_and_lengths(version: int, where: str, start: int) -> None:
    packet = tcp(version, b"hello", flags=ACK | PSH, seq=17)
    shown = described(packet)
    assert shown.startswith(f"TCP {where % ports(packet, start)} [PSH, ACK], seq 17, ack ")
    assert shown.endswith(", 5 bytes")
    assert "[SYN], seq 3, win" in described(tcp(version, b"", flags=SYN, seq=3))
    packet = udp(version, b"x")
    assert described(packet) == f"UDP {where % ports(packet, start)}, 1 byte"


def test_a_superpacket_is_shown_with_its_own_length() -> None:
    assert described(tcp_superpacket(4, bytes(60000))).endswith(", 60000 bytes")


@pytest.mark.parametrize(
    ("packet", "shown"),
    [
        (ip(4, 1, ECHO), "ICMP 100.64.0.1 > 10.1.2.3 echo request, id 7, seq 1, 64 bytes"),
        (ip(6, 58, ECHO_V6), "ICMPv6 fd00::1 > 2001:db8::2 echo reply, id 7, seq 2, 16 bytes"),
        (ip(4, 1, b"\3\4" + bytes(30)), "ICMP 100.64.0.1 > 10.1.2.3 unreachable, code 4, 32 bytes"),
        (ip(6, 58, b"\x87\0" + bytes(22)), "ICMPv6 fd00::1 > 2001:db8::2 neighbor solicitation, 24 bytes"),
        (ip(4, 1, b"\xc8\0" + bytes(22)), "ICMP 100.64.0.1 > 10.1.2.3 type 200, 24 bytes"),
        (ip(4, 47, bytes(9)), "GRE 100.64.0.1 > 10.1.2.3, 9 bytes"),
        (ip(4, 200, b""), "protocol 200 100.64.0.1 > 10.1.2.3, 0 bytes"),
        (ip(6, 0, b"\x3a\0" + bytes(6) + ECHO_V6), "ICMPv6 fd00::1 > 2001:db8::2 echo reply, id 7, seq 2, 16 bytes"),
        (ip(6, 44, FRAGMENT + bytes(20)), "UDP fd00::1 > 2001:db8::2 fragment at 1480, 20 bytes"),
        (ip(4, 59, b""), "protocol 59 100.64.0.1 > 10.1.2.3, 0 bytes"),
    ],
)
def test_other_packets_are_shown_by_their_protocol(packet: bytes, shown: str) -> None:
    assert described(packet) == shown


def test_the_first_fragment_is_shown_with_its_ports_and_later_ones_without() -> None:
    first = bytearray(udp(4, bytes(100)))
    first[6] = 0x20
    assert described(bytes(first)).endswith("100 bytes, first fragment")
    first[7] = 2
    assert described(bytes(first)) == "UDP 100.64.0.1 > 10.1.2.3 fragment at 16, 108 bytes"


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_that_was_cut_behind_its_headers_is_shown_with_its_own_length(version: int) -> None:
    packet = tcp(version, bytes(1000))
    assert describe(packet[:80], len(packet)) == described(packet)
    assert describe(packet[:35], len(packet)) == f"malformed, {len(packet)} bytes"


@pytest.mark.parametrize(
    "packet",
    [
        *(b"", b"\x45", b"\x60" + bytes(39)[:20], b"\x75" + bytes(40), b"\x44" + bytes(40)),
        *(ipv4("10.0.0.1", "10.0.0.2", b"x", total=99), ipv6("fd00::1", "fd00::2", b"x", length=99)),
        *(ip(4, 6, bytes(10)), ip(4, 6, bytes(20)), ip(4, 17, bytes(7)), ip(6, 58, b"\x80"), ip(6, 43, b"\x06")),
    ],
)
def test_what_contradicts_itself_is_malformed(packet: bytes) -> None:
    assert described(packet) == f"malformed, {len(packet)} byte{'' if len(packet) == 1 else 's'}"


@given(
    st.one_of(
        st.binary(max_size=120),
        st.binary(max_size=80).map(lambda tail: ip(4, 6, tail)),
        st.binary(max_size=80).map(lambda tail: ip(6, 44, tail)),
    ),
    st.integers(0, 200),
)
def test_arbitrary_bytes_are_one_printable_line(packet: bytes, more: int) -> None:
    assert describe(packet, len(packet) + more).isprintable()
