"""Relay from one peer to another through a hub: packets that it forwards, drops, or leaves to the host."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.datapath.ends import ALICE, BOB, CAROL, STRANGER, End, Wire, ipv4, ipv6, sealed
from tests.datapath.routing.test_delivery import ENTRIES, bundle
from tests.machine import HandLoop
from tests.wire.packets import (
    but_for_what_df_frees,
    ip,
    is_right,
    payload,
    slow_sum,
    tcp,
    tcp_run,
    tcp_superpacket,
    udp,
    udp_run,
    udp_superpacket,
    unfinished,
)
from vpntun.core.records.parity import ParityMaker
from vpntun.datapath.routing.relay import ERRORS_AT_ONCE
from vpntun.tun.device import TCP_OFFLOADS, UDP_OFFLOADS
from vpntun.types import CarrierName
from vpntun.wire.icmp import TIME_EXCEEDED, TOO_BIG, UNREACHABLE, error_about
from vpntun.wire.record import BUNDLE_START, Parity

ALL = TCP_OFFLOADS | UDP_OFFLOADS
DAVE = STRANGER
HUB4, HUB6 = "10.9.0.1", "fd09::1"
# The packets of tests/wire/packets.py go from Alice to Carol.
ALICES = ("100.64.0.0/24", "fd00::/64")
CAROLS = ("10.1.2.0/24", "2001:db8::/64")
DAVES = ("10.4.0.0/16", "fd04::/16")

Given = bytes | tuple[bytes, int]


class Hub:
    """Bob, who relays unless `relays_as` is None, and his peers Alice, Carol and Dave."""

    def __init__(
        self,
        loop: HandLoop,
        carriers: tuple[CarrierName, CarrierName] = ("udp", "udp"),
        *,
        relays_as: tuple[str, ...] | None = (HUB4, HUB6),
        plain: tuple[bool, bool] = (False, False),
        offloads: tuple[int, int, int] = (ALL, ALL, ALL),
        carols: tuple[str, ...] = CAROLS,
        meet: bool = True,
    ) -> None:
        self.loop = loop
        self.bob = End(BOB, loop, offloads=offloads[1], relays_as=relays_as)
        self.alice = End(ALICE, loop, offloads=offloads[0], plain=plain[0])
        self.carol = End(CAROL, loop, offloads=offloads[2], plain=plain[1])
        self.dave = End(DAVE, loop)
        self.to_alice = self.bob.know(ALICE.public, ALICES)
        self.to_carol = self.bob.know(CAROL.public, carols)
        self.to_dave = self.bob.know(DAVE.public, DAVES)
        for end in (self.alice, self.carol, self.dave):
            end.know(BOB.public)
        self.alices = Wire(self.alice, self.bob, " alice", carriers[0])
        self.carols = Wire(self.carol, self.bob, " carol", carriers[1])
        self.daves = Wire(self.dave, self.bob, " dave")
        for wire in (self.alices, self.carols, self.daves) if meet else (self.alices, self.daves):
            wire.shake_hands()
        self.carols.to_left.calls.clear()
        assert not self.bob.drops

    def run(self) -> None:
        """Carry messages on all wires until none is under way."""
        while self.alices.run() + self.carols.run() + self.daves.run():
            pass

    def send(self, *packets: Given) -> None:
        """Let Alice send packets, and carry them to their destinations."""
        self.alice.send(*packets)
        self.run()

    def send_bundle(self, *entries: tuple[bytes, int]) -> None:
        """Let Alice send a bundle of any packets and segment fields."""
        self.bob.take(sealed(self.alice.link, bundle(*entries)), self.alices.to_left)
        self.run()

    def is_clean(self) -> bool:
        """Return whether no record is left unfinished."""
        bundler = self.bob.bundler
        return bundler.link is None and bundler._at == BUNDLE_START and not bundler._sent

    def close(self) -> None:
        for end in (self.alice, self.bob, self.carol, self.dave):
            end.close()


@pytest.fixture
def hub(loop: HandLoop) -> Iterator[Hub]:
    made = Hub(loop)
    yield made
    made.close()


def one_hop_on(packet: bytes, hops: int = 1) -> bytes:
    """Return the packet as it is behind `hops` routers, with a checksum summed word by word."""
    if packet[0] >= 0x50:
        return packet[:7] + bytes([packet[7] - hops]) + packet[8:]
    packet = packet[:8] + bytes([packet[8] - hops, packet[9], 0, 0]) + packet[12:]
    return packet[:10] + (slow_sum(packet[: (packet[0] & 15) * 4]) ^ 0xFFFF).to_bytes(2, "big") + packet[12:]


def with_hops(packet: bytes, hops: int) -> bytes:
    return one_hop_on(packet, (packet[8] if packet[0] < 0x50 else packet[7]) - hops)


def between(source: str, destination: str, body: bytes = b"") -> bytes:
    """Return a packet with a correct header and 64 hops left."""
    if ip_address(source).version == 6:
        return ipv6(source, destination, body)
    return with_hops(ipv4(source, destination, body), 64)


# Forwarded packets


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_is_forwarded_with_one_hop_less_and_the_host_does_not_see_it(hub: Hub, version: int) -> None:
    hub.send(udp(version, b"hello"), tcp(version, b"hello"))
    assert hub.carol.device.packets == [one_hop_on(udp(version, b"hello")), one_hop_on(tcp(version, b"hello"))]
    assert all(is_right(packet) for packet in hub.carol.device.packets)
    assert hub.bob.device.packets == []
    assert hub.is_clean()


@pytest.mark.parametrize("lost", range(4))
def test_a_short_packet_that_a_parity_restored_is_forwarded_like_any_other(hub: Hub, lost: int) -> None:
    packets = [udp(4, b"%d" % number) for number in range(4)]
    session = hub.alice.link.peer.keys.current
    assert session is not None

    def say(record: bytes) -> None:
        hub.bob.take(sealed(hub.alice.link, record), hub.alices.to_left)

    say(Parity(0, 2, 1, b"0").pack())  # from here on Bob keeps records
    maker, parity = ParityMaker(), b""
    for number, packet in enumerate(packets):
        record = bundle((packet, 0))
        parity = maker.add(session.send_counter, memoryview(record), len(packets))
        message = sealed(hub.alice.link, record)
        if number != lost:
            hub.bob.take(message, hub.alices.to_left)
    say(parity)
    hub.run()
    assert sorted(hub.carol.device.packets) == sorted(one_hop_on(packet) for packet in packets)
    assert hub.is_clean()


def test_the_answer_is_forwarded_back(hub: Hub) -> None:
    hub.send(between("100.64.0.1", "10.1.2.3", b"ping"))
    hub.carol.send(between("10.1.2.3", "100.64.0.1", b"pong"))
    hub.run()
    assert hub.alice.device.packets == [one_hop_on(between("10.1.2.3", "100.64.0.1", b"pong"))]


@pytest.mark.parametrize("carriers", [("udp", "udp"), ("tcp", "tcp"), ("udp", "tcp"), ("tcp", "udp")])
@pytest.mark.parametrize("plain", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    "offloads", [(ALL, ALL, ALL), (ALL, ALL, 0), (ALL, 0, ALL), (0, 0, 0), (ALL, ALL, TCP_OFFLOADS)]
)
def test_between_peers_of_all_kinds_packets_arrive_in_order_with_one_hop_less(
    loop: HandLoop, carriers: tuple[CarrierName, CarrierName], plain: tuple[bool, bool], offloads: tuple[int, int, int]
) -> None:
    hub = Hub(loop, carriers, plain=plain, offloads=offloads)
    expected = []
    given: list[Given] = []
    for version in (4, 6):
        given += [udp(version, b"before"), tcp(version, b"before")]
        expected += [udp(version, b"before"), tcp(version, b"before")]
        given += [(tcp_superpacket(version, payload(20000)), 1300), (udp_superpacket(version, payload(5000)), 1200)]
        expected += [*tcp_run(version, payload(20000), 1300), *udp_run(version, payload(5000), 1200)]
        given.append((unfinished(udp(version, b"behind"), 17, 20 if version == 4 else 40), 0))
        expected.append(udp(version, b"behind"))
    hub.send(*given)
    assert hub.carol.device.arrived == [one_hop_on(packet) for packet in expected]
    assert hub.bob.device.packets == []
    assert hub.is_clean()
    assert not hub.bob.drops
    hub.close()


def test_a_superpacket_is_forwarded_whole(loop: HandLoop) -> None:
    hub = Hub(loop, ("tcp", "tcp"))
    hub.send((tcp_superpacket(4, payload(60000)), 1300))
    assert [len(packet) for packet in hub.carol.device.packets] == [60052]
    hub.close()


def test_the_single_packets_of_a_wireguard_peer_are_joined_on_the_way(loop: HandLoop) -> None:
    hub = Hub(loop, ("udp", "tcp"), plain=(True, False))
    hub.alice.send((tcp_superpacket(6, payload(20000)), 1300))
    hub.bob.take_together(hub.alices.to_right.take(), hub.alices.to_left)
    hub.run()
    assert [len(packet) for packet in hub.carol.device.packets] == [20072]
    hub.close()


def test_packets_that_are_read_together_are_sent_together(hub: Hub) -> None:
    messages = []
    for number in range(10):
        hub.alice.send(udp(4, b"%d" % number))
        messages += hub.alices.to_right.take()
    assert len(messages) == 10
    hub.bob.take_together(messages, hub.alices.to_left)
    assert len(hub.carols.to_left.calls) == 1
    hub.run()
    assert len(hub.carol.device.arrived) == 10


def test_packets_that_alternate_between_peers_and_the_host_all_arrive_in_order(hub: Hub) -> None:
    ways = {"10.1.2.3": hub.carol, "10.4.0.4": hub.dave, "192.0.2.7": hub.bob}
    expected: dict[str, list[bytes]] = {address: [] for address in ways}
    packets = []
    for number in range(30):
        for address in ways:
            packets.append(between("100.64.0.1", address, b"%d" % number))
            expected[address].append(packets[-1] if address == "192.0.2.7" else one_hop_on(packets[-1]))
    hub.send(*packets)
    assert {address: end.device.packets for address, end in ways.items()} == expected


def test_a_packet_may_be_forwarded_to_its_own_sender_and_its_hops_are_counted(hub: Hub) -> None:
    packet = between("100.64.0.1", "100.64.0.9", b"round")
    for _ in range(3):
        hub.send(packet)
        packet = one_hop_on(packet)
        assert hub.alice.device.packets == [packet]
        hub.alice.device.packets.clear()
    hub.send(with_hops(packet, 1))
    assert [each[9] for each in hub.alice.device.packets] == [1]


def test_a_peer_without_a_session_gets_waiting_packets_after_the_handshake(loop: HandLoop) -> None:
    hub = Hub(loop, meet=False)
    hub.send(udp(4, b"early"))
    assert len(hub.to_carol.queue) == 1
    hub.carols.shake_hands()
    hub.run()
    assert hub.carol.device.packets == [one_hop_on(udp(4, b"early"))]
    hub.close()


# Packets for the host


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("100.64.0.1", HUB4),
        ("fd00::1", HUB6),
        ("100.64.0.1", "224.0.0.251"),
        ("100.64.0.1", "255.255.255.255"),
        ("100.64.0.1", "127.0.0.1"),
        ("100.64.0.1", "0.0.0.0"),
        ("100.64.0.1", "169.254.0.1"),
        ("fd00::1", "ff02::1"),
        ("fd00::1", "fe80::1"),
        ("fd00::1", "::1"),
    ],
)
def test_packets_to_this_machine_or_to_the_link_go_to_the_device_even_if_a_peer_has_all_addresses(
    loop: HandLoop, source: str, destination: str
) -> None:
    hub = Hub(loop, carols=("0.0.0.0/0", "::/0"))
    packet = with_hops(between(source, destination), 1)
    hub.send(packet)
    assert hub.bob.device.packets == [packet]
    assert hub.carol.device.packets == []
    hub.close()


def test_packets_to_no_peers_allowed_ips_go_to_the_device_unchanged(hub: Hub) -> None:
    packets = [between("100.64.0.1", "192.0.2.9"), between("fd00::1", "fd77::1")]
    hub.send(*packets)
    assert hub.bob.device.packets == packets


def test_a_peer_with_all_addresses_gets_packets_to_no_other_peer(loop: HandLoop) -> None:
    hub = Hub(loop, carols=("0.0.0.0/0", "::/0"))
    hub.send(between("100.64.0.1", "192.0.2.9"), between("100.64.0.1", "10.4.1.1"))
    assert hub.carol.device.packets == [one_hop_on(between("100.64.0.1", "192.0.2.9"))]
    assert hub.dave.device.packets == [one_hop_on(between("100.64.0.1", "10.4.1.1"))]
    hub.close()


def test_without_relay_everything_goes_to_the_device(loop: HandLoop) -> None:
    hub = Hub(loop, relays_as=None)
    packets = [udp(4, b"hello"), with_hops(udp(6, b"hello"), 1)]
    hub.send(*packets)
    assert hub.bob.device.packets == packets
    assert hub.carol.device.packets == []
    hub.close()


@pytest.mark.parametrize("source", ["10.4.0.4", "10.1.2.3", "192.0.2.1", HUB4])
def test_a_packet_from_an_address_that_is_not_the_peers_is_not_relayed(hub: Hub, source: str) -> None:
    hub.send(between(source, "10.1.2.3"), udp(4, b"good"))
    assert hub.carol.device.packets == [one_hop_on(udp(4, b"good"))]
    assert hub.bob.drops == {"source not allowed": 1}


def test_a_redirect_is_neither_relayed_to_another_peers_host_nor_delivered(hub: Hub) -> None:
    hub.send(ip(4, 1, bytes([5]) + bytes(35)), ip(6, 58, bytes([137]) + bytes(39)), udp(4, b"good"))
    assert hub.carol.device.packets == [one_hop_on(udp(4, b"good"))]
    assert hub.bob.device.packets == []
    assert hub.bob.drops == {"router message": 2}


# Dropped packets


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("hops", [0, 1])
def test_a_packet_without_hops_left_is_dropped_and_its_sender_gets_an_error(hub: Hub, version: int, hops: int) -> None:
    packet = with_hops(udp(version, b"tired"), hops)
    hub.send(packet, udp(version, b"fresh"))
    router = ip_address(HUB4 if version == 4 else HUB6).packed
    assert hub.alice.device.packets == [error_about(packet, TIME_EXCEEDED, router)]
    assert hub.carol.device.packets == [one_hop_on(udp(version, b"fresh"))]
    assert hub.bob.drops == {"hop limit exceeded": 1}
    assert hub.is_clean()


def test_a_packet_with_two_hops_left_is_forwarded(hub: Hub) -> None:
    packet = with_hops(udp(4, b"nearly"), 2)
    hub.send(packet)
    assert hub.carol.device.packets == [with_hops(packet, 1)]


def test_a_hub_without_an_address_of_its_own_answers_as_the_destination(loop: HandLoop) -> None:
    hub = Hub(loop, relays_as=())
    packet = with_hops(udp(6, b"tired"), 1)
    hub.send(packet)
    assert hub.alice.device.packets == [error_about(packet, TIME_EXCEEDED, packet[24:40])]
    hub.close()


def test_errors_are_limited_in_rate_for_each_peer(hub: Hub) -> None:
    tired = [with_hops(udp(4, b"tired", port=number), 1) for number in range(1, 21)]  # not to be joined
    for _ in range(3):
        hub.send(*tired)
    assert len(hub.alice.device.packets) == ERRORS_AT_ONCE
    hub.dave.send(with_hops(between("10.4.0.4", "10.1.2.3"), 1))
    hub.run()
    assert len(hub.dave.device.packets) == 1
    hub.loop.clock.now += 1
    hub.send(*tired)
    assert len(hub.alice.device.packets) == ERRORS_AT_ONCE + 10
    assert hub.bob.drops == {"hop limit exceeded": 81}


def test_an_icmp_error_causes_no_error(hub: Hub) -> None:
    error = error_about(between("10.1.2.3", "100.64.0.1"), UNREACHABLE, ip_address("100.64.0.1").packed)
    hub.send(with_hops(error, 1))
    assert hub.alice.device.packets == []
    assert hub.bob.drops == {"hop limit exceeded": 1}
    hub.send(error)
    assert hub.carol.device.packets == [one_hop_on(error)]


def test_a_packet_above_the_mtu_that_must_not_be_fragmented_is_dropped_with_an_error(loop: HandLoop) -> None:
    hub = Hub(loop, ("tcp", "tcp"))
    for packet, router in ((udp(4, payload(1400)), HUB4), (udp(6, payload(1400)), HUB6)):
        hub.send_bundle((packet, 0))
        assert hub.alice.device.packets == [error_about(packet, TOO_BIG, ip_address(router).packed, 1420)]
        hub.alice.device.packets.clear()
    assert hub.carol.device.packets == []
    assert hub.bob.drops == {"too big for the device": 2}
    hub.close()


def test_a_changed_mtu_is_followed(loop: HandLoop) -> None:
    hub = Hub(loop, ("tcp", "tcp"))
    hub.bob.device.mtu = 1300
    hub.bob.engine.follow_mtu()
    packet = udp(4, payload(1350))
    hub.send_bundle((packet, 0))
    assert hub.alice.device.packets == [error_about(packet, TOO_BIG, ip_address(HUB4).packed, 1300)]
    hub.close()


def test_a_packet_above_the_mtu_that_may_be_fragmented_is_forwarded_whole(loop: HandLoop) -> None:
    for plain in (False, True):
        hub = Hub(loop, plain=(False, plain))
        packet = udp(4, payload(3000), df=False)
        hub.send_bundle((packet, 0))
        assert hub.carol.device.packets == [one_hop_on(packet)]
        hub.close()


def test_the_size_of_a_superpackets_segments_is_compared_with_the_mtu(loop: HandLoop) -> None:
    hub = Hub(loop, ("tcp", "tcp"))
    hub.send((tcp_superpacket(4, payload(20000)), 1368))
    assert len(hub.carol.device.arrived) == 15
    hub.send((tcp_superpacket(4, payload(20000)), 1369))
    assert hub.bob.drops == {"too big for the device": 1}
    assert hub.alice.device.packets[0][20:28] == bytes([3, 4]) + hub.alice.device.packets[0][22:24] + b"\0\0\x05\x8c"
    hub.close()


# Blocked peers, and records in progress


def test_a_blocked_peer_delays_no_other_and_later_gets_its_packets_in_order(hub: Hub) -> None:
    hub.carols.to_left.opens(1)
    packets: list[bytes] = []
    for number in range(200):
        packets += [udp(4, b"%d" % number + payload(1000)), between("100.64.0.1", "10.4.0.4", b"%d" % number)]
        hub.send(*packets[-2:])
    assert hub.dave.device.packets == [one_hop_on(packet) for packet in packets[1::2]]
    assert len(hub.to_carol.queue) == 199
    while hub.to_carol.queue:
        hub.carols.to_left.opens(3)
        hub.bob.pump()
    hub.run()
    expected = [but_for_what_df_frees(one_hop_on(packet)) for packet in packets[::2]]
    assert [but_for_what_df_frees(packet) for packet in hub.carol.device.arrived] == expected
    assert not hub.bob.drops


def test_the_queue_of_a_blocked_peer_is_bounded(hub: Hub) -> None:
    hub.carols.to_left.is_ready = False
    hub.send(*[udp(4, payload(1300))] * 3000)
    for _ in range(20):
        hub.send(*[udp(4, payload(1300))] * 200)
    assert hub.to_carol.queue.size <= 4 * 1024 * 1024
    assert hub.bob.drops["queue full"] > 0


def test_the_device_is_read_normally_between_relayed_packets(hub: Hub) -> None:
    for number in range(5):
        hub.alice.send((tcp_superpacket(4, payload(9000)), 1300))
        hub.bob.send((tcp_superpacket(4, payload(9000), seq=7), 1300), udp(4, b"%d" % number))
        hub.run()
    expected = [*tcp_run(4, payload(9000), 1300, seq=7)]
    relayed = [one_hop_on(packet) for packet in tcp_run(4, payload(9000), 1300)]
    assert [packet for packet in hub.carol.device.arrived if packet[24:28] == (7).to_bytes(4, "big")] == expected[
        :1
    ] * 5
    assert len(hub.carol.device.arrived) == 5 * (len(expected) + 1 + len(relayed))


def test_filled_records_count_as_backlog_of_their_own_link_only(hub: Hub) -> None:
    span = hub.to_carol.records.span
    before = span.bottleneck.backlogged
    hub.send_bundle(*[(tcp_superpacket(4, payload(4000)), 0x8000 | 1300)] * 6)
    sent = len(hub.carols.to_left.calls)
    assert sent > 3
    assert before < span.bottleneck.backlogged < sent
    hub.bob.send(between("10.9.0.1", "10.4.0.4"), between("10.9.0.1", "10.4.0.5"))
    assert hub.to_dave.records.span.bottleneck.backlogged == 0


# Random data

DESTINATIONS = st.sampled_from(["10.1.2.3", "10.4.0.4", "100.64.0.2", HUB4, "192.0.2.1", "224.0.0.1"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    flows=st.lists(st.tuples(DESTINATIONS, st.integers(0, 30000), st.integers(48, 1368)), min_size=1, max_size=8),
    carriers=st.tuples(st.sampled_from(["udp", "tcp"]), st.sampled_from(["udp", "tcp"])),
    plain=st.tuples(st.booleans(), st.booleans()),
    blocks=st.integers(1, 9),
)
def test_random_packets_arrive_once_in_order_at_their_destination(
    flows: list[tuple[str, int, int]],
    carriers: tuple[CarrierName, CarrierName],
    plain: tuple[bool, bool],
    blocks: int,
) -> None:
    loop = HandLoop()
    hub = Hub(loop, carriers, plain=plain)
    ends = {"10.1.2.3": hub.carol, "10.4.0.4": hub.dave, "100.64.0.2": hub.alice}
    expected: dict[str, list[bytes]] = {
        end.identity.public.hex(): [] for end in (hub.alice, hub.bob, hub.carol, hub.dave)
    }
    hub.carols.to_left.opens(blocks)
    for number, (address, size, segment) in enumerate(flows):
        superpacket = to(address, tcp_superpacket(4, payload(size), seq=number * 100_000))
        hub.send((superpacket, segment))
        run = [to(address, packet) for packet in tcp_run(4, payload(size), segment, seq=number * 100_000)] or [
            to(address, tcp(4, b"", seq=number * 100_000))
        ]
        end = ends.get(address, hub.bob)
        expected[end.identity.public.hex()] += run if end is hub.bob else [one_hop_on(packet) for packet in run]
        assert hub.is_clean()
    while hub.to_carol.queue:
        hub.carols.to_left.opens(blocks)
        hub.bob.pump()
        hub.run()
    for end in (hub.alice, hub.bob, hub.carol, hub.dave):
        assert end.device.arrived == expected[end.identity.public.hex()]
    assert not hub.bob.drops
    hub.close()
    loop.close()


def to(address: str, packet: bytes) -> bytes:
    """Return the same TCP packet to another address, with its checksums adjusted by the difference."""
    changed = packet[:16] + ip_address(address).packed + packet[20:]
    difference = int.from_bytes(packet[16:20], "big") - int.from_bytes(changed[16:20], "big")
    header = (int.from_bytes(packet[10:12], "big") + difference) % 0xFFFF
    is_unfinished = not is_right(packet)
    field = int.from_bytes(packet[36:38], "big")
    field = (field - difference if is_unfinished else field + difference) % 0xFFFF
    if is_unfinished:
        field = field or 0xFFFF
    return changed[:10] + header.to_bytes(2, "big") + changed[12:36] + field.to_bytes(2, "big") + changed[38:]


@settings(max_examples=200)
@given(entries=ENTRIES)
def test_no_bundle_raises_or_leaves_an_unfinished_record(entries: list[tuple[bytes, int]]) -> None:
    loop = HandLoop()
    hub = Hub(loop, carols=("0.0.0.0/0", "::/0"), plain=(False, len(entries) % 2 == 0))
    hub.send_bundle(*entries)
    assert hub.is_clean()
    hub.send_bundle((udp(4, b"good"), 0))
    assert hub.carol.device.packets[-1] == one_hop_on(udp(4, b"good"))
    hub.close()
    loop.close()


def test_packets_that_alternate_between_two_peers_take_one_record_each(hub: Hub) -> None:
    """A record of 256 packets for two peers once became 256 records, each sealed and sent by itself."""
    packets = [ipv4("100.64.0.1", there, bytes([n])) for n in range(40) for there in ("10.1.2.1", "10.4.0.1")]
    hub.daves.to_left.calls.clear()
    hub.send_bundle(*((packet, 0) for packet in packets))
    assert len(hub.carols.to_left.calls) == len(hub.daves.to_left.calls) == 1
    for end, sent in ((hub.carol, packets[::2]), (hub.dave, packets[1::2])):
        assert [packet[12:] for packet in end.device.packets] == [packet[12:] for packet in sent]
    assert hub.is_clean()
