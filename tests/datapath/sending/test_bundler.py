"""Bundler: packets and superpackets that are split, mixed or delayed arrive unchanged and in order."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.datapath.ends import ALICE, BOB, CAROL, End, TwoEnds, Wire, ipv4
from tests.machine import HandLoop
from tests.wire.packets import (
    ACK,
    CWR,
    ECE,
    FIN,
    PSH,
    is_right,
    payload,
    tcp,
    tcp_run,
    tcp_superpacket,
    udp,
    udp_run,
    udp_superpacket,
    unfinished,
)
from vpntun.tun.device import TCP_OFFLOADS, UDP_OFFLOADS
from vpntun.types import CarrierName
from vpntun.wire.burst import datagrams_for
from vpntun.wire.message import DATA_OVERHEAD
from vpntun.wire.vnet import NO_OFFLOAD

Given = bytes | tuple[bytes, int]


class Two(TwoEnds):
    """Alice and Bob, both vpntuns, who have met over `carrier`."""

    def __init__(
        self,
        loop: HandLoop,
        carrier: CarrierName = "udp",
        offloads: int = TCP_OFFLOADS | UDP_OFFLOADS,
        *,
        meet: bool = True,
    ) -> None:
        bob = End(BOB, loop, offloads=offloads, knows_vpntun=True)
        super().__init__(End(ALICE, loop, knows_vpntun=True), bob, carrier)
        if meet:
            self.wire.shake_hands()
            self.wire.to_right.calls.clear()


@pytest.fixture(params=["udp", "tcp"])
def met(loop: HandLoop, request: pytest.FixtureRequest) -> Iterator[Two]:
    made = Two(loop, request.param)
    yield made
    made.close()


@pytest.fixture
def over_udp(loop: HandLoop) -> Iterator[Two]:
    made = Two(loop)
    yield made
    made.close()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", [ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR | ECE])
@pytest.mark.parametrize("size", [1449, 3000, 14480, 60000])
def test_a_tcp_superpacket_arrives_as_the_packets_that_it_is_made_of(
    met: Two, version: int, flags: int, size: int
) -> None:
    met.alice.send((tcp_superpacket(version, payload(size), flags=flags), 1448))
    met.wire.run()
    assert met.bob.device.arrived == tcp_run(version, payload(size), 1448, flags=flags)
    assert not met.alice.drops
    assert not met.bob.drops


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("size", "segment"), [(2401, 1200), (60000, 1200), (64, 1), (1000, 100), (65000, 1400)])
def test_a_udp_superpacket_arrives_as_the_packets_that_it_is_made_of(
    met: Two, version: int, size: int, segment: int
) -> None:
    met.alice.send((udp_superpacket(version, payload(size)), segment))
    met.wire.run()
    assert met.bob.device.arrived == udp_run(version, payload(size), segment)
    assert not met.bob.drops


@pytest.mark.parametrize("version", [4, 6])
def test_a_superpacket_with_segments_too_small_for_a_kernel_is_split_before_it_is_sent(met: Two, version: int) -> None:
    met.alice.send((tcp_superpacket(version, payload(2000)), 47), (udp_superpacket(version, payload(650)), 10))
    met.wire.run()
    assert met.bob.device.arrived == [*tcp_run(version, payload(2000), 47), *udp_run(version, payload(650), 10)]
    assert set(met.bob.device.headers[: len(tcp_run(version, payload(2000), 47))]) == {NO_OFFLOAD}


def test_over_tcp_a_superpacket_is_sent_whole_in_one_message(loop: HandLoop) -> None:
    two = Two(loop, "tcp")
    two.alice.send((tcp_superpacket(4, payload(60000)), 1448))
    assert [len(call) for call in two.wire.to_right.calls] == [1]
    two.wire.run()
    assert len(two.bob.device.packets) == 1
    two.close()


def test_over_udp_a_superpacket_that_does_not_fit_is_split_evenly_at_multiples_of_its_segments(over_udp: Two) -> None:
    assert over_udp.alice.link.room_for_record() > 0
    room = over_udp.alice.link.records.room_for(5 + 52 + 1448)
    over_udp.alice.send((tcp_superpacket(4, payload(1448 * 20)), 1448))
    over_udp.wire.run()
    lengths = [len(packet) - 52 for packet in over_udp.bob.device.packets]
    assert all(length % 1448 == 0 for length in lengths)
    assert max(lengths) - min(lengths) <= 1448 * 2
    assert len(lengths) == -(-20 // ((room - 5 - 52) // 1448))
    assert all(len(call) <= datagrams_for(room + DATA_OVERHEAD, 1200) for call in over_udp.wire.to_right.calls)
    assert {len(datagram) for call in over_udp.wire.to_right.calls for datagram in call[:-1]} == {1200}


def test_packets_that_are_read_together_are_sent_in_as_few_records_as_possible(met: Two) -> None:
    packets = [ipv4("10.0.0.1", "10.0.0.2", payload(size)) for size in range(20, 60)]
    room = met.alice.link.room_for_record()
    met.alice.send(*packets)
    records = sum(map(len, met.wire.to_right.calls))
    assert records == -(-sum(len(packet) + 4 for packet in packets) // (room - 80))
    met.wire.run()
    assert met.bob.device.packets == packets


def test_more_small_packets_than_a_record_may_have_all_arrive_in_order(met: Two) -> None:
    small = [udp(4, payload(number % 9), identification=number) for number in range(700)]
    packets = [packet + bytes(number % 5) for number, packet in enumerate(small)]  # so that none are joined to a run
    met.wire.to_right.is_ready = False
    for waiting in (packets[:200], packets[200:400], packets[400:600]):
        met.alice.send(*waiting)
    met.wire.to_right.opens()
    met.alice.pump()
    assert len(met.wire.to_right.calls) >= 3
    met.alice.send(*packets[600:])
    met.wire.run()
    assert met.bob.device.packets == small
    assert not met.bob.drops


def test_the_limit_of_packets_in_a_record_counts_the_parts_of_split_packets(loop: HandLoop) -> None:
    """A superpacket to a peer without offloads follows small packets in a record, which fills up by their number."""
    two = Two(loop, "tcp", offloads=0)
    small = [udp(4, payload(number % 9), identification=number) for number in range(240)]
    segments = tcp_run(4, payload(40 * 100), 100)
    two.alice.send(*small, (tcp_superpacket(4, payload(40 * 100)), 100))
    two.wire.run()
    assert two.bob.device.packets == [*small, *segments]
    assert not two.bob.drops
    two.close()


def test_a_record_is_not_held_back_for_more_packets(met: Two) -> None:
    for number in range(3):
        met.alice.send(ipv4("10.0.0.1", "10.0.0.2", b"%d" % number))
        assert len(met.wire.to_right.calls) == number + 1


def test_packets_and_superpackets_keep_their_order(met: Two) -> None:
    given: list[Given] = []
    expected = []
    for number in range(8):
        small = udp(4, b"%d" % number * 10, port=1000 + number)
        given += [small, (tcp_superpacket(4, payload(5000 + number)), 1448), (udp_superpacket(6, payload(3000)), 900)]
        expected += [small, *tcp_run(4, payload(5000 + number), 1448), *udp_run(6, payload(3000), 900)]
    met.alice.send(*given)
    met.wire.run()
    assert met.bob.device.arrived == expected


def test_a_run_of_small_datagrams_arrives_as_it_was_sent(met: Two) -> None:
    packets = [udp(version, payload(64), identification=5 + number) for version in (4, 6) for number in range(100)]
    met.alice.send(*((unfinished(packet, 17, 20 if packet[0] < 0x50 else 40), 0) for packet in packets))
    met.wire.run()
    assert met.bob.device.arrived == packets


# Peers that lack something


@pytest.mark.parametrize("carrier", ["udp", "tcp"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_peer_without_offloads_gets_finished_single_packets(
    loop: HandLoop, carrier: CarrierName, version: int
) -> None:
    two = Two(loop, carrier, offloads=0)
    partial = tcp(version, b"not split")
    two.alice.send(
        (tcp_superpacket(version, payload(20000)), 1400),
        (unfinished(partial, 6, 20 if version == 4 else 40), 0),
        (udp_superpacket(version, payload(5000)), 1000),
    )
    two.wire.run()
    assert two.bob.device.packets == [
        *tcp_run(version, payload(20000), 1400),
        partial,
        *udp_run(version, payload(5000), 1000),
    ]
    assert all(is_right(packet) for packet in two.bob.device.packets)
    assert set(two.bob.device.headers) == {NO_OFFLOAD}
    two.close()


def test_a_peer_that_takes_tcp_superpackets_alone_gets_udps_as_single_packets(loop: HandLoop) -> None:
    two = Two(loop, "tcp", offloads=TCP_OFFLOADS)
    two.alice.send((tcp_superpacket(4, payload(20000)), 1400), (udp_superpacket(4, payload(5000)), 1000))
    two.wire.run()
    assert two.bob.device.packets[0] == tcp_superpacket(4, payload(20000))
    assert two.bob.device.packets[1:] == udp_run(4, payload(5000), 1000)
    two.close()


# Paths that block


@pytest.mark.parametrize("calls", [1, 2, 3, 5])
def test_a_path_that_blocks_inside_a_superpacket_gets_the_rest_in_order_later(met: Two, calls: int) -> None:
    given: list[Given] = [
        tcp(4, b"before"),
        (tcp_superpacket(4, payload(60000), flags=ACK | FIN | PSH), 1448),
        tcp(4, b"between"),
        (tcp_superpacket(6, payload(30000)), 1428),
        udp(6, b"after"),
    ]
    expected = [
        tcp(4, b"before"),
        *tcp_run(4, payload(60000), 1448, flags=ACK | FIN | PSH),
        tcp(4, b"between"),
        *tcp_run(6, payload(30000), 1428),
        udp(6, b"after"),
    ]
    met.wire.carry_blocking(calls, *given)
    assert met.bob.device.arrived == expected
    assert not met.alice.drops


def test_packets_that_arrive_while_others_wait_do_not_overtake_them(met: Two) -> None:
    met.wire.to_right.is_ready = False
    met.alice.send((tcp_superpacket(4, payload(20000)), 1448))
    met.wire.to_right.opens()
    met.alice.send(tcp(4, b"later"))
    assert met.wire.to_right.sent == []
    met.alice.pump()
    met.wire.run()
    assert met.bob.device.arrived == [*tcp_run(4, payload(20000), 1448), tcp(4, b"later")]


@pytest.mark.parametrize("calls", range(1, 9))
def test_a_packet_does_not_overtake_one_that_waits_because_it_fits_no_record(over_udp: Two, calls: int) -> None:
    packets = [tcp(6, payload(2277), seq=number) if number % 3 else tcp(4, payload(16)) for number in range(12)]
    over_udp.wire.to_right.opens(calls)
    over_udp.alice.send(*packets)
    while over_udp.alice.link.queue:
        over_udp.wire.run()
        over_udp.wire.to_right.opens(calls)
        over_udp.alice.pump()
    over_udp.wire.run()
    assert over_udp.bob.device.arrived == packets


def test_waiting_packets_use_no_counter(met: Two) -> None:
    session = met.alice.link.peer.keys.current
    assert session is not None
    before = session.send_counter
    met.wire.to_right.is_ready = False
    met.alice.send((tcp_superpacket(4, payload(20000)), 1448), tcp(4, b"later"))
    assert session.send_counter == before


def test_superpackets_wait_whole_for_the_session_and_the_hello_and_leave_in_records(loop: HandLoop) -> None:
    two = Two(loop, "tcp", meet=False)
    two.alice.send(tcp(4, b"first"), (tcp_superpacket(4, payload(30000)), 1448))
    assert len(two.alice.link.queue) == 2
    two.wire.shake_hands()
    assert two.bob.device.packets == [tcp(4, b"first"), tcp_superpacket(4, payload(30000))]
    two.close()


@pytest.mark.parametrize("carrier", ["udp", "tcp"])
def test_interleaved_links_get_their_own_packets_in_order_and_a_blocked_one_delays_no_other(
    loop: HandLoop, carrier: CarrierName
) -> None:
    alice, bob, carol = End(ALICE, loop), End(BOB, loop), End(CAROL, loop, offloads=0)
    to_bob, _ = alice.know(BOB.public, ["0.0.0.0/0"]), alice.know(CAROL.public, ["::/0"])
    bob.know(ALICE.public)
    carol.know(ALICE.public)
    wires = Wire(alice, bob, " bob", carrier), Wire(alice, carol, " carol", carrier)
    for wire in wires:
        wire.shake_hands()
    given: list[Given] = []
    expected: dict[int, list[bytes]] = {4: [], 6: []}
    for number in range(12):
        for version in (4, 6):
            size = 100 + 900 * number
            given += [(tcp_superpacket(version, payload(size), seq=size), 1400), udp(version, b"%d" % number)]
            expected[version] += [*tcp_run(version, payload(size), 1400, seq=size), udp(version, b"%d" % number)]
    wires[0].to_right.opens(2)
    alice.send(*given)
    wires[1].run()
    assert carol.device.arrived == expected[6]
    assert len(to_bob.queue)
    while to_bob.queue:
        wires[0].to_right.opens(2)
        alice.pump()
    wires[0].run()
    assert bob.device.arrived == expected[4]
    for end in (alice, bob, carol):
        end.close()


# Random flows

FLOWS = st.one_of(
    st.tuples(st.just("tcp"), st.sampled_from([4, 6]), st.integers(1, 65000), st.integers(1, 9000)),
    st.tuples(st.just("udp"), st.sampled_from([4, 6]), st.integers(1, 65000), st.integers(1, 9000)),
    st.tuples(st.just("packet"), st.sampled_from([4, 6]), st.integers(0, 1380), st.just(0)),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    flows=st.lists(FLOWS, min_size=1, max_size=6),
    carrier=st.sampled_from(["udp", "tcp"]),
    offloads=st.sampled_from([0, TCP_OFFLOADS, TCP_OFFLOADS | UDP_OFFLOADS]),
    blocks=st.integers(1, 9),
)
@example(
    flows=[("packet", 4, 0, 0), ("tcp", 4, 2297, 2296), ("packet", 4, 0, 0), ("tcp", 4, 2264, 1148)],
    carrier="udp",
    offloads=TCP_OFFLOADS | UDP_OFFLOADS,
    blocks=1,
)
def test_random_flows_arrive_as_single_packets_in_order(
    flows: list[tuple[str, int, int, int]], carrier: CarrierName, offloads: int, blocks: int
) -> None:
    loop = HandLoop()
    two = Two(loop, carrier, offloads)
    given: list[Given] = []
    expected: list[bytes] = []
    number = 5  # of the next packet: its IPv4 identification
    for kind, version, size, segment in flows:
        segment = max(segment, size // 500 + 1)  # so that all of them fit in the queue
        if kind == "packet":
            run = [udp(version, payload(size), identification=number)]
            given += run
        elif kind == "tcp":
            run = tcp_run(version, payload(size), segment, identification=number)
            given.append((tcp_superpacket(version, payload(size), identification=number), segment))
        else:
            run = udp_run(version, payload(size), segment, identification=number)
            given.append((udp_superpacket(version, payload(size), identification=number), segment))
        number += len(run)
        expected += run
    two.wire.carry_blocking(blocks, *given)
    assert two.bob.device.arrived == expected
    assert not two.alice.drops
    assert not two.bob.drops
    two.close()
    loop.close()


def test_a_message_is_never_longer_than_the_allowed_record(over_udp: Two) -> None:
    records = over_udp.alice.link.records
    assert over_udp.alice.link.room_for_record() > 0
    room = records.room_for(5 + 52 + 1448)
    over_udp.alice.send(*[(tcp_superpacket(4, payload(size)), 1448) for size in (4000, 8000, 16000, 1448, 60000)])
    for call in over_udp.wire.to_right.calls:
        assert sum(map(len, call)) - 16 * (len(call) - 1) <= room + DATA_OVERHEAD


@pytest.mark.parametrize("seed", range(5))
def test_packets_of_one_datagram_and_of_several_arrive_as_they_were_in_order(met: Two, seed: int) -> None:
    rng = random.Random(seed)
    packets = [tcp(6, payload(rng.choice((0, 500, 1060, 1090, 1120, 2300, 8900))), seq=at) for at in range(60)]
    met.alice.send(*packets)
    met.wire.run()
    assert met.bob.device.arrived == packets
    assert not met.alice.drops + met.bob.drops


def test_packets_that_need_two_datagrams_fill_those_and_keep_no_other_record_from_its_parity(over_udp: Two) -> None:
    link = over_udp.alice.link
    assert link.room_for_record() > 0
    protection = link.records.span.protection
    protection.wanted = protection.possible = True
    link.records.span._follow(link.now)
    link.act([])  # as after the REPORT that said so
    large, small = tcp(4, payload(1116)), tcp(4, payload(1000))
    over_udp.alice.send(*[large] * 4, *[small] * 2 * protection.group)
    datagrams = over_udp.wire.to_right.take()
    singles = [datagram for datagram in datagrams if not datagram[2]]
    assert len(datagrams) == 4 + len(singles) == 4 + 2 * (protection.group + 1)
    over_udp.bob.take_together([each for each in datagrams if each is not singles[-3]], over_udp.wire.to_left)
    assert sorted(over_udp.bob.device.arrived) == sorted([large] * 4 + [small] * 2 * protection.group)
    assert over_udp.bob.link.records.restored == 1
