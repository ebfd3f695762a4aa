"""Delivery of records' packets: each packet is checked by itself, and the record's description is not trusted."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datapath.ends import ALICE, BOB, CAROL, End, Wire, ipv4, ipv6, sealed
from tests.machine import HandLoop, logged
from tests.wire.packets import (
    ACK,
    CWR,
    TIMESTAMPS,
    ip,
    payload,
    tcp,
    tcp_run,
    tcp_superpacket,
    udp,
    udp_run,
    udp_superpacket,
    unfinished,
)
from vpntun.errors import DeviceError
from vpntun.wire.record import (
    ANSWER,
    BUNDLE,
    BUNDLE_START,
    ECHO,
    ENTRY_SIZE,
    FRAMES,
    HELLO,
    PARITY,
    PROBE,
    REPORT,
    REQUEST,
    Hello,
    append,
    begin_bundle,
)
from vpntun.wire.vnet import GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP, NO_OFFLOAD, VNET_HEADER

UNFINISHED = 0x8000
GOOD = tcp(4, b"good")


class Town:
    """Bob, with the peers Alice, who may use all addresses but Carol's, and Carol. All are vpntuns with sessions."""

    def __init__(self, loop: HandLoop) -> None:
        self.loop = loop
        self.alice, self.bob, self.carol = End(ALICE, loop), End(BOB, loop), End(CAROL, loop)
        self.from_alice = self.alice.know(BOB.public)
        self.from_carol = self.carol.know(BOB.public)
        self.bob.know(ALICE.public)
        self.bob.know(CAROL.public, ["10.0.3.0/24", "fd03::/64"])
        self.wire, self.carols_wire = Wire(self.alice, self.bob), Wire(self.carol, self.bob, " carol")
        self.wire.shake_hands()
        self.carols_wire.shake_hands()
        assert not self.bob.drops

    def send_record(self, record: bytes) -> None:
        """Let Alice send a record."""
        self.bob.take(sealed(self.from_alice, record), self.wire.to_left)

    def send_bundle(self, *entries: tuple[bytes, int]) -> None:
        """Let Alice send a bundle of these packets and segment fields."""
        self.send_record(bundle(*entries))

    def reason(self, packet: bytes, field: int) -> str:
        """Return the reason why Bob drops a packet of a bundle; check that he delivers the packets around it."""
        before = self.bob.drops.copy()
        self.bob.device.clear()
        self.send_bundle((GOOD, 0), (packet, field), (GOOD, 0))
        assert self.bob.device.packets == [GOOD, GOOD]
        (reason,) = (self.bob.drops - before).elements()
        return reason

    def close(self) -> None:
        for end in (self.alice, self.bob, self.carol):
            end.close()


def bundle(*entries: tuple[bytes, int]) -> bytes:
    record = bytearray(BUNDLE_START + sum(len(packet) + ENTRY_SIZE for packet, _ in entries))
    at = begin_bundle(record)
    for packet, field in entries:
        at = append(record, at, packet, field)
    return bytes(record)


@pytest.fixture
def town(loop: HandLoop) -> Iterator[Town]:
    made = Town(loop)
    yield made
    made.close()


# Valid packets


@pytest.mark.parametrize(
    ("packet", "size", "expected", "kind"),
    [
        (tcp_superpacket(4, payload(5000)), 1448, tcp_run(4, payload(5000), 1448), GSO_TCPV4),
        (tcp_superpacket(6, payload(5000)), 1428, tcp_run(6, payload(5000), 1428), GSO_TCPV6),
        (tcp_superpacket(4, payload(5000)), 48, tcp_run(4, payload(5000), 48), GSO_TCPV4),
        (
            tcp_superpacket(4, payload(5000), flags=ACK | CWR),
            1448,
            tcp_run(4, payload(5000), 1448, flags=ACK | CWR),
            GSO_TCPV4 | GSO_ECN,
        ),
        (udp_superpacket(4, payload(5000)), 1200, udp_run(4, payload(5000), 1200), GSO_UDP),
        (udp_superpacket(6, payload(64)), 1, udp_run(6, payload(64), 1), GSO_UDP),
    ],
)
def test_a_superpacket_gets_a_header_that_this_end_makes(
    town: Town, packet: bytes, size: int, expected: list[bytes], kind: int
) -> None:
    town.send_bundle((packet, UNFINISHED | size))
    assert town.bob.device.packets == [packet]
    assert town.bob.device.arrived == expected
    flags, gso_type, headers, gso_size, start, _ = VNET_HEADER.unpack(town.bob.device.headers[0])
    assert (flags, gso_type, gso_size) == (1, kind, size)
    assert start < headers <= 100
    assert not town.bob.drops


def test_the_packets_of_a_bundle_are_delivered_in_order(town: Town) -> None:
    packets = [udp(version, b"%d" % number) for number in range(50) for version in (4, 6)]
    town.send_bundle(*((packet, 0) for packet in packets))
    assert town.bob.device.packets == packets


@pytest.mark.parametrize("behind", [1, 15, 300])
def test_a_packet_is_trimmed_to_the_length_in_its_header(town: Town, behind: int) -> None:
    town.send_bundle((ipv4("10.0.0.1", "10.0.0.2", b"x") + b"\xff" * behind, 0), (ipv6("fd00::1", "fd00::2", b"x"), 0))
    assert town.bob.device.packets == [ipv4("10.0.0.1", "10.0.0.2", b"x"), ipv6("fd00::1", "fd00::2", b"x")]


def test_the_plain_packet_before_a_bundle_is_delivered_before_it(town: Town) -> None:
    first = tcp_run(4, payload(3000), 1448)[0]
    messages = [sealed(town.from_alice, first), sealed(town.from_alice, bundle((GOOD, 0)))]
    town.bob.take_together(messages, town.wire.to_left)
    assert town.bob.device.packets == [first, GOOD]


# Invalid packets
fragment = bytearray(tcp_superpacket(4, payload(5000)))
fragment[6] = 0x20
offset_fragment = bytearray(tcp_superpacket(4, payload(5000)))
offset_fragment[7] = 1
tiny_header = bytearray(tcp_superpacket(4, payload(5000)))
tiny_header[20 + 12] = 0x40
huge_header = bytearray(tcp_superpacket(4, payload(20)))
huge_header[20 + 12] = 0xF0
wrong_udp_length = bytearray(udp_superpacket(4, payload(5000)))
wrong_udp_length[24:26] = struct.pack("!H", 1208)
short_total = bytearray(tcp_superpacket(4, payload(5000)))
short_total[2:4] = struct.pack("!H", 2000)
long_total = bytearray(tcp_superpacket(4, payload(5000)))
long_total[2:4] = struct.pack("!H", 6000)
short_payload = bytearray(tcp_superpacket(6, payload(5000)))
short_payload[4:6] = struct.pack("!H", 2000)
SEGMENT = struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 0x80, 0x10, 5, 0, 0) + TIMESTAMPS + payload(5000)


def behind_extensions(count: int, size: int = 0, last: int = 6) -> bytes:
    """Return an IPv6 packet with TCP behind `count` headers of destination options of 8 * (size + 1) bytes."""
    headers = b"".join(
        bytes([60 if number < count - 1 else last, size]) + bytes(6 + 8 * size) for number in range(count)
    )
    return ip(6, 60, headers + SEGMENT)


BAD_SUPERPACKETS = {
    "gso_size 1 in TCP": (tcp_superpacket(4, payload(60000)), UNFINISHED | 1, "bad segment size"),
    "gso_size 47 in TCP": (tcp_superpacket(6, payload(60000)), UNFINISHED | 47, "bad segment size"),
    "gso_size 1 in UDP": (udp_superpacket(4, payload(60000)), UNFINISHED | 1, "bad segment size"),
    "65 UDP segments": (udp_superpacket(4, payload(65)), UNFINISHED | 1, "bad segment size"),
    "a finished checksum": (tcp_superpacket(4, payload(5000)), 1448, "bad segment field"),
    "bit 14": (tcp_superpacket(4, payload(5000)), UNFINISHED | 0x4000 | 1448, "bad segment field"),
    "bit 14 of an ordinary packet": (tcp(4, b"x"), 0x4000, "bad segment field"),
    "a fragment": (bytes(fragment), UNFINISHED | 1448, "fragment"),
    "a fragment behind the first": (bytes(offset_fragment), UNFINISHED | 1448, "fragment"),
    "an unfinished fragment": (bytes(fragment), UNFINISHED, "fragment"),
    "an IPv6 fragment": (ip(6, 44, bytes([6, 0, 0, 1, 0, 0, 0, 1]) + SEGMENT), UNFINISHED | 1448, "fragment"),
    "a fragment behind extensions": (
        ip(6, 60, bytes([44, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 1]) + SEGMENT),
        UNFINISHED | 1448,
        "fragment",
    ),
    "too many extension headers": (behind_extensions(5), UNFINISHED | 1428, "bad extension header"),
    "too long extension headers": (behind_extensions(1, 40), UNFINISHED | 1428, "bad TCP header"),
    "extension headers without an end": (ip(6, 60, bytes([60, 255, 0, 0])), UNFINISHED, "bad extension header"),
    "ICMP": (ip(4, 1, payload(5000)), UNFINISHED | 1448, "not TCP or UDP"),
    "UFO, which is UDP's fragmentation of old": (
        bytes(fragment[:9]) + b"\x11" + bytes(fragment[10:]),
        UNFINISHED | 1448,
        "fragment",
    ),
    "a TCP header of 16 bytes": (bytes(tiny_header), UNFINISHED | 1448, "bad TCP header"),
    "a TCP header that is not there": (bytes(huge_header), UNFINISHED | 48, "bad TCP header"),
    "a UDP length of one segment": (bytes(wrong_udp_length), UNFINISHED | 1200, "bad UDP header"),
    "an IPv4 length that is less than there is": (bytes(short_total), UNFINISHED | 1448, "bad superpacket length"),
    "an IPv4 length that is more": (bytes(long_total), UNFINISHED | 1448, "bad inner packet"),
    "an IPv6 length that is less": (bytes(short_payload), UNFINISHED | 1428, "bad superpacket length"),
    "bytes behind a superpacket": (
        tcp_superpacket(4, payload(5000)) + b"x",
        UNFINISHED | 1448,
        "bad superpacket length",
    ),
    "a UDP header cut short": (ip(4, 17, bytes(7)), UNFINISHED, "bad UDP header"),
    "no packet": (bytes(40), 0, "bad inner packet"),
    "no packet, it says a superpacket": (b"\x00" * 5000, UNFINISHED | 1448, "bad inner packet"),
    "Carol's address": (ipv4("10.0.3.3", "10.0.0.2"), 0, "source not allowed"),
    "Carol's IPv6 address": (ipv6("fd03::3", "fd00::2"), 0, "source not allowed"),
}


@pytest.mark.parametrize(("packet", "field", "reason"), BAD_SUPERPACKETS.values(), ids=BAD_SUPERPACKETS.keys())
def test_a_bad_packet_of_a_bundle_is_dropped_and_its_neighbours_are_delivered(
    town: Town, packet: bytes, field: int, reason: str
) -> None:
    assert town.reason(packet, field) == reason


def test_the_checksum_starts_at_the_transport_header_and_never_in_the_payload(town: Town) -> None:
    # The record has no field for this offset; it is derived from the packet.
    for packet in (unfinished(tcp(6, payload(100)), 6, 40), unfinished(udp(4, payload(100)), 17, 20)):
        town.send_bundle((packet, UNFINISHED))
    starts = [VNET_HEADER.unpack(header)[4:] for header in town.bob.device.headers]
    assert starts == [(40, 16), (20, 6)]


def test_extension_headers_within_bounds_are_accepted(town: Town) -> None:
    town.send_bundle((behind_extensions(4), UNFINISHED | 1428))
    assert VNET_HEADER.unpack(town.bob.device.headers[0]) == (1, GSO_TCPV6, 40 + 32 + 32, 1428, 72, 16)


ROUTER_MESSAGES = [
    (ip(6, 58, bytes([134]) + bytes(15)), "router message"),
    (ip(6, 58, bytes([137]) + bytes(39)), "router message"),
    (ip(4, 1, bytes([5]) + bytes(90)), "router message"),
    (ip(6, 60, bytes([58, 0]) + bytes(6) + bytes([134]) + bytes(90)), "router message"),
    (ip(6, 44, bytes([58, 0, 0, 1]) + bytes(4) + bytes([134]) + bytes(7)), "router message"),
    (ip(6, 58, bytes([135]) + bytes(23)), "neighbor discovery"),
]


@pytest.mark.parametrize(("packet", "reason"), ROUTER_MESSAGES)
def test_a_peer_cannot_steer_this_host_by_the_messages_of_a_router(town: Town, packet: bytes, reason: str) -> None:
    assert town.reason(packet, 0) == reason
    messages = [sealed(town.from_alice, each) for each in (GOOD, packet, GOOD)]
    town.bob.device.packets.clear()
    town.bob.take_together(messages, town.wire.to_left)
    assert town.bob.device.packets == [GOOD, GOOD]
    assert town.bob.drops[reason] == 2


@pytest.mark.parametrize("packet", [ip(4, 1, bytes([8]) + bytes(63)), ip(6, 58, bytes([128]) + bytes(1300))])
def test_pings_are_delivered(town: Town, packet: bytes) -> None:
    town.send_bundle((packet, 0))
    town.bob.take_together([sealed(town.from_alice, packet)], town.wire.to_left)
    assert town.bob.device.packets == [packet, packet]


def test_an_advertisement_is_logged_once_and_a_solicitation_never(town: Town) -> None:
    with logged(25) as lines:
        for _ in range(3):
            town.send_bundle(*((packet, 0) for packet, _ in ROUTER_MESSAGES))
    assert len(lines) == 1
    assert "router advertisements or redirects" in lines[0]


def test_a_source_that_is_not_allowed_is_logged_once(town: Town) -> None:
    with logged(25) as lines:
        for _ in range(10):
            town.send_bundle(*[(ipv4("10.0.3.3", "10.0.0.2"), 0)] * 50, (GOOD, 0))
    assert len([line for line in lines if "not allowed to use" in line]) == 1
    assert town.bob.drops == {"source not allowed": 500}
    assert town.bob.device.packets == [GOOD] * 10


@pytest.mark.parametrize(
    "tail",
    [b"\x00\x14\x00\x00\x45", b"\x00\x01\x00\x00" + GOOD, b"\xff\xff\x00\x00" + bytes(100)],
)
def test_a_bundle_with_an_invalid_end_is_delivered_up_to_it(town: Town, tail: bytes) -> None:
    town.send_record(bundle((GOOD, 0), (GOOD, 0)) + tail)
    assert town.bob.device.packets == [GOOD, GOOD]
    assert town.bob.drops == {"bad bundle": 1}


def test_an_empty_bundle_is_bad(town: Town) -> None:
    town.send_record(bytes([BUNDLE]))
    assert town.bob.drops == {"bad bundle": 1}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (bytes([HELLO]), "bad hello"),
        (bytes([HELLO]) + bytes(5), "bad hello"),
        (bytes([REPORT]) + bytes(31), "bad report"),
        (bytes([PROBE]) + bytes(7), "bad probe"),
        (bytes([ECHO]) + bytes(9), "bad echo"),
        (bytes([PARITY]) + bytes(100), "bad parity"),
        (bytes([REQUEST]) + bytes(9), "bad request"),
        (bytes([ANSWER]) + bytes(11), "bad answer"),
        (bytes([FRAMES + 1]) + bytes(100), "unknown record"),
        (bytes([FRAMES]) + bytes(100), "other kind of device"),
        (bytes([0x3F]), "unknown record"),
        (bytes(100), "bad inner packet"),
    ],
)
def test_an_impossible_record_is_dropped(town: Town, record: bytes, reason: str) -> None:
    town.send_record(record)
    assert town.bob.drops == {reason: 1}
    assert town.bob.device.packets == []


def test_a_packet_that_the_device_refuses_is_counted_and_the_next_is_tried(town: Town) -> None:
    town.bob.device.takes_packets = False
    town.send_bundle((GOOD, 0), (GOOD, 0))
    assert town.bob.drops == {"refused by the device": 2}


def test_a_device_that_has_gone_ends_the_program_with_its_error(town: Town) -> None:
    town.bob.device.gone = True
    with pytest.raises(DeviceError):
        town.send_bundle((GOOD, 0))


def test_a_peer_that_sends_a_hello_and_then_invalid_records_loses_only_those(town: Town) -> None:
    for number in range(300):
        town.send_record(Hello(number % 2 == 0, number & 0xFF, number * 200 & 0xFFFF, 1 + number % 200).pack())
        town.send_record(bytes([number & 0x3F]) + bytes([number & 0xFF]) * (number * 13 % 500))
    town.wire.run()
    town.send_record(Hello(True, 63).pack())
    assert town.bob.device.packets == []
    town.carol.send(udp(4, b"x")[:12] + ipv4("10.0.3.3", "10.0.0.2")[12:20] + udp(4, b"x")[20:])
    town.carols_wire.run()
    assert len(town.bob.device.packets) == 1
    town.alice.send(GOOD)
    town.wire.run()
    assert town.bob.device.packets[-1] == GOOD


def test_a_hello_that_withdraws_all_offloads_brings_single_packets_again(town: Town) -> None:
    town.send_record(Hello(True, 0).pack())
    town.bob.send((tcp_superpacket(4, payload(5000)), 1368))
    town.wire.run()
    assert town.alice.device.packets == tcp_run(4, payload(5000), 1368)
    assert set(town.alice.device.headers) == {NO_OFFLOAD}


# Random data

ENTRIES = st.lists(
    st.tuples(
        st.one_of(
            st.binary(min_size=20, max_size=120),
            st.builds(
                lambda base, at, value: base[:at] + bytes([value]) + base[at + 1 :],
                st.sampled_from(
                    [
                        tcp_superpacket(4, payload(3000)),
                        tcp_superpacket(6, payload(3000)),
                        udp_superpacket(4, payload(3000)),
                        behind_extensions(2),
                    ]
                ),
                st.integers(0, 99),
                st.integers(0, 255),
            ),
        ),
        st.one_of(st.integers(0, 0xFFFF), st.integers(0, 3000).map(lambda size: size | UNFINISHED)),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=300)
@given(entries=ENTRIES, joins=st.booleans())
def test_no_bundle_raises_and_every_header_for_the_device_matches_its_packet(
    entries: list[tuple[bytes, int]], joins: bool
) -> None:
    loop = HandLoop()
    with contextlib.closing(loop), contextlib.closing(Town(loop)) as town:
        if not joins:
            town.bob.delivery._coalescer = None
        town.send_bundle(*entries)
        device, dropped = town.bob.device, sum(town.bob.drops.values())
    # Segments of one flow are joined: then fewer packets are written than arrived.
    assert len(device.packets) + dropped <= len(entries) if joins else len(device.packets) + dropped == len(entries)
    for packet, header in zip(device.packets, device.headers, strict=True):
        flags, kind, headers, size, start, offset = VNET_HEADER.unpack(header)
        length = struct.unpack_from("!H", packet, 2)[0] if packet[0] < 0x50 else 40 + int.from_bytes(packet[4:6], "big")
        assert length == len(packet)
        assert kind & ~GSO_ECN in (0, GSO_TCPV4, GSO_TCPV6, GSO_UDP)
        if flags:
            assert offset in (6, 16)
            assert start + offset + 2 <= len(packet)
        if kind:
            assert start + 8 <= headers <= 256
            payload_size = len(packet) - headers
            assert size >= 48 if kind != GSO_UDP else payload_size <= 64 * size
            assert payload_size > size


@settings(max_examples=300)
@given(
    records=st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=300),
            st.builds(lambda kind, rest: bytes([kind]) + rest, st.integers(0, 8), st.binary(max_size=80)),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_no_plaintext_of_a_record_raises_or_stops_the_link(records: list[bytes]) -> None:
    loop = HandLoop()
    town = Town(loop)
    for record in records:
        if record[0] == HELLO and len(record) > 2:
            record = record[:2] + bytes([record[2] & ~4]) + record[3:]  # a peer with a TAP device gets no packets
        town.send_record(record)
    town.bob.device.packets.clear()
    town.send_bundle((GOOD, 0))
    assert town.bob.device.packets == [GOOD]
    town.bob.send(GOOD)
    town.wire.run()
    assert town.alice.device.packets[-1:] == [GOOD]
    town.close()
    loop.close()


def test_a_packet_of_another_link_is_not_joined_though_it_continues_a_waiting_one(loop: HandLoop) -> None:
    bob, alice, carol = End(BOB, loop), End(ALICE, loop), End(CAROL, loop)
    wires: list[Wire] = []
    for end, allowed in ((alice, ["100.64.0.0/16"]), (carol, ["100.65.0.0/16"])):
        bob.know(end.identity.public, allowed)
        end.know(BOB.public)
        wires.append(Wire(end, bob, str(len(wires))))
        wires[-1].shake_hands()
    first, second, third = tcp_run(4, bytes(3000), 1000)
    bob.inbound._last = None
    for end, wire, packet in ((alice, wires[0], first), (carol, wires[1], second), (alice, wires[0], third)):
        message = memoryview(bytearray(sealed(end.link, bundle((packet, 0)))))
        bob.inbound.take(message, wire.to_left)
    bob.delivery.flush()
    assert bob.device.packets == [first, third]
    (from_carol,) = [link for link in bob.links.values() if link.peer.public == CAROL.public]
    assert from_carol.drops == {"source not allowed": 1} or bob.drops == {"source not allowed": 1}
    for end in (bob, alice, carol):
        end.close()
