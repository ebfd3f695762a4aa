"""Lines about Ethernet frames, as --print prints them on a TAP tunnel."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire import packets
from tests.wire.packets import ip, tcp, udp
from vpntun.capture.describing import describe
from vpntun.capture.describing_frames import describe_frame

ONE, TWO, ALL = bytes.fromhex("5254 0000 0001"), bytes.fromhex("5254 0000 0002"), b"\xff" * 6
BRIDGES = bytes.fromhex("0180 c200 0000")
IPV4, IPV6 = 0x0800, 0x86DD
TO_TWO = "52:54:00:00:00:01 > 52:54:00:00:00:02"
SPANNING_TREE = b"\x42\x42\x03" + bytes(35)


def frame(kind: int, payload: bytes, *tags: int, to: bytes = TWO, source: bytes = ONE) -> bytes:
    """Make a frame with these VLAN tags, the outer one first: EtherType and number of each in one integer."""
    return packets.frame(to, source, payload, kind, *tags)


def arp(operation: int, sender: str, target: str, *, sender_mac: bytes = ONE) -> bytes:
    addresses = sender_mac + socket.inet_aton(sender) + bytes(6) + socket.inet_aton(target)
    return struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + addresses


def described(given: bytes) -> str:
    return describe_frame(given, len(given))


@pytest.mark.parametrize("tags", [(), (0x8100_0007,), (0x88A8_0064, 0x8100_E007)])
def test_an_ip_packet_is_described_as_on_a_tun_behind_the_numbers_of_its_vlans(tags: tuple[int, ...]) -> None:
    vlans = ["", "VLAN 7, ", "VLAN 100, VLAN 7, "][len(tags)]
    for kind, packet in ((IPV4, tcp(4, b"hello")), (IPV6, udp(6, b"hello"))):
        assert described(frame(kind, packet, *tags)) == vlans + describe(packet, len(packet))


def test_padding_behind_a_short_packet_does_not_count() -> None:
    short = udp(4, b"x")
    assert described(frame(IPV4, short + bytes(46 - len(short)))) == describe(short, len(short))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (
            frame(0x0806, arp(1, "10.0.0.1", "10.0.0.2") + bytes(18), to=ALL),
            "ARP 52:54:00:00:00:01 > ff:ff:ff:ff:ff:ff who-has 10.0.0.2 tell 10.0.0.1",
        ),
        (frame(0x0806, arp(2, "10.0.0.1", "10.0.0.2")), f"ARP {TO_TWO} 10.0.0.1 is-at 52:54:00:00:00:01"),
        (
            frame(0x0806, arp(2, "10.0.0.1", "10.0.0.2", sender_mac=TWO)),
            f"ARP {TO_TWO} 10.0.0.1 is-at 52:54:00:00:00:02",
        ),
        (frame(0x0806, arp(1, "10.0.0.1", "10.0.0.2"), 0x8100_0005)[:40], f"VLAN 5, ARP {TO_TWO}, 22 bytes"),
        (frame(0x0806, arp(9, "10.0.0.1", "10.0.0.2")), f"ARP {TO_TWO}, 28 bytes"),
        (frame(0x0806, b"\0\6" + bytes(26)), f"ARP {TO_TWO}, 28 bytes"),
        (
            frame(38, SPANNING_TREE + bytes(8), to=BRIDGES),
            "STP 52:54:00:00:00:01 > 01:80:c2:00:00:00, 38 bytes",
        ),
        (frame(9, b"\xe0\xe0\x03" + bytes(43)), f"802.3 {TO_TWO}, 9 bytes"),
        (frame(1400, bytes(46)), f"802.3 {TO_TWO}, 46 bytes"),
        (frame(0x88CC, bytes(46)), f"LLDP {TO_TWO}, 46 bytes"),
        (frame(0x8137, bytes(46)), f"IPX {TO_TWO}, 46 bytes"),
        (frame(0x88B5, bytes(46)), f"EtherType 0x88b5 {TO_TWO}, 46 bytes"),
        (frame(0x88B5, b""), f"EtherType 0x88b5 {TO_TWO}, 0 bytes"),
        (frame(IPV4, tcp(6, b"")), f"EtherType 0x0800 {TO_TWO}, 72 bytes"),
        (frame(IPV4, ip(4, 6, b"cut")), "malformed, 23 bytes"),
        (
            frame(IPV4, tcp(4, b""), 0x8100_0001, 0x8100_0002, 0x8100_0003),
            f"VLAN 1, VLAN 2, EtherType 0x8100 {TO_TWO}, 56 bytes",
        ),
    ],
)
def test_other_frames_are_shown_by_protocol_and_mac_addresses(given: bytes, shown: str) -> None:
    assert described(given) == shown


def test_a_frame_without_a_whole_header_is_malformed() -> None:
    assert described(b"") == "malformed, 0 bytes"
    assert describe_frame(frame(IPV4, b"")[:13], 60) == "malformed, 60 bytes"


@pytest.mark.parametrize("tags", [(), (0x8100_0007,)])
def test_a_frame_that_was_cut_behind_its_headers_is_shown_with_its_own_length(tags: tuple[int, ...]) -> None:
    whole = frame(IPV4, tcp(4, bytes(1000)), *tags)
    assert describe_frame(whole[:80], len(whole)) == described(whole)


@given(
    st.one_of(
        st.binary(max_size=120),
        st.builds(frame, st.sampled_from([IPV4, IPV6, 0x0806, 0x8100, 0x88A8, 38]), st.binary(max_size=80)),
    ),
    st.integers(0, 200),
)
def test_arbitrary_frames_are_one_printable_line(given: bytes, more: int) -> None:
    assert describe_frame(given, len(given) + more).isprintable()
