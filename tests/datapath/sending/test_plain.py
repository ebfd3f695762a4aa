"""Packets to and from a plain WireGuard.

Each sent message has one padded packet with a correct checksum, and UDP_SEGMENT sends many by one call. Received
segments are joined.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datapath.ends import ALICE, BOB, End, TwoEnds, Wire, ipv4, sealed
from tests.machine import HandLoop
from tests.wire.packets import (
    ACK,
    FIN,
    PSH,
    but_for_what_df_frees,
    is_right,
    payload,
    tcp,
    tcp_run,
    tcp_superpacket,
    udp,
    udp_run,
    udp_superpacket,
)
from vpntun.tun.device import TCP_OFFLOADS, UDP_OFFLOADS
from vpntun.types import CarrierName
from vpntun.wire.message import DATA, kind_of
from vpntun.wire.record import LAST_KIND
from vpntun.wire.vnet import NO_OFFLOAD


class Two(TwoEnds):
    """Alice, a vpntun, and Bob, a WireGuard whose device takes only single packets, with a session."""

    def __init__(
        self, loop: HandLoop, carrier: CarrierName = "udp", offloads: int = TCP_OFFLOADS | UDP_OFFLOADS, mtu: int = 1420
    ) -> None:
        alice = End(ALICE, loop, mtu, offloads=offloads)
        super().__init__(alice, End(BOB, loop, mtu, offloads=0, plain=True), carrier)
        self.wire.shake_hands()
        self.bob.drops.clear()
        self.wire.to_right.calls.clear()


@pytest.fixture
def met(loop: HandLoop) -> Iterator[Two]:
    made = Two(loop)
    yield made
    made.close()


@pytest.mark.parametrize("carrier", ["udp", "tcp"])
@pytest.mark.parametrize("version", [4, 6])
def test_superpackets_arrive_as_single_packets_with_right_checksums(
    loop: HandLoop, carrier: CarrierName, version: int
) -> None:
    two = Two(loop, carrier)
    two.alice.send(
        (tcp_superpacket(version, payload(60000), flags=ACK | FIN | PSH), 1380),
        (udp_superpacket(version, payload(60000)), 1200),
    )
    two.wire.run()
    expected = [
        *tcp_run(version, payload(60000), 1380, flags=ACK | FIN | PSH),
        *udp_run(version, payload(60000), 1200),
    ]
    assert two.bob.device.packets == expected
    assert all(is_right(packet) for packet in expected)
    assert not two.bob.drops
    two.close()


def test_over_udp_each_call_sends_datagrams_of_one_size_but_the_last(met: Two) -> None:
    met.alice.send((tcp_superpacket(4, payload(60000)), 1368), (udp_superpacket(4, payload(1000 * 64)), 1000))
    assert len(met.wire.to_right.calls) <= 5
    for call in met.wire.to_right.calls:
        assert len({len(message) for message in call[:-1]}) <= 1
        assert len(call[-1]) <= len(call[0])
        assert len(call) <= 64
        assert sum(map(len, call)) <= 65507


def test_each_message_is_padded_to_sixteen_bytes_but_not_beyond_the_mtu(met: Two) -> None:
    met.alice.send((tcp_superpacket(4, payload(10000)), 1368))
    lengths = [len(message) for call in met.wire.to_right.calls for message in call]
    assert lengths == [1420 + 32] * 7 + [10000 - 7 * 1368 + 52 + 32 + -(10000 - 7 * 1368 + 52) % 16]


def test_a_changed_mtu_limits_the_padding(met: Two) -> None:
    met.alice.device.mtu = 1380
    met.alice.engine.follow_mtu()
    met.alice.send(ipv4("10.0.0.1", "10.0.0.2", payload(1380 - 20)))
    assert [len(message) for call in met.wire.to_right.calls for message in call] == [1380 + 32]


def test_no_record_but_hello_is_ever_sent_to_a_wireguard(met: Two) -> None:
    met.loop.deadline = lambda: met.alice.link.deadline
    met.loop.on_deadline = met.alice.link.handle_deadline
    met.bob.drops.clear()
    for number in range(100):
        met.alice.send((tcp_superpacket(4, payload(3000)), 1368))
        met.bob.send(udp(4, b"%d" % number))
        met.wire.run()
        met.loop.pass_time(1.0)
    assert set(met.bob.drops) == {"unknown record"}
    assert met.bob.drops["unknown record"] <= 5
    assert len(met.alice.device.arrived) == 100


def test_packets_of_different_sizes_are_not_mixed_in_a_batch(met: Two) -> None:
    packets = [ipv4("10.0.0.1", "10.0.0.2", payload(size)) for size in (1000, 1000, 500, 1000, 1000, 1300, 20)]
    met.alice.send(*packets)
    for call in met.wire.to_right.calls:
        assert len({len(message) for message in call[:-1]}) <= 1
    met.wire.run()
    assert met.bob.device.packets == packets


def test_segments_larger_than_the_mtu_do_no_harm(met: Two) -> None:
    # An operator may raise the device's MTU while the program runs.
    met.alice.send((tcp_superpacket(4, payload(60000)), 9000), (tcp_superpacket(4, payload(60000)), 16000))
    met.wire.run()
    assert met.bob.device.packets == [*tcp_run(4, payload(60000), 9000), *tcp_run(4, payload(60000), 16000)]


@pytest.mark.parametrize("calls", [1, 2, 3])
@pytest.mark.parametrize("carrier", ["udp", "tcp"])
def test_a_path_that_blocks_gets_the_rest_in_order_later(loop: HandLoop, carrier: CarrierName, calls: int) -> None:
    two = Two(loop, carrier)
    expected = []
    two.wire.to_right.opens(calls)
    for number in range(5):
        two.alice.send((tcp_superpacket(4, payload(60000), seq=number), 1380), udp(4, b"%d" % number))
        expected += [*tcp_run(4, payload(60000), 1380, seq=number), udp(4, b"%d" % number)]
    for _ in range(50):
        two.wire.run()
        two.wire.to_right.opens(calls)
        two.alice.pump()
    assert two.bob.device.packets == expected
    two.close()


# Inbound


@pytest.mark.parametrize("version", [4, 6])
def test_consecutive_segments_of_one_flow_are_joined_and_come_out_as_they_were(met: Two, version: int) -> None:
    packets = [*tcp_run(version, payload(30000), 1368), *udp_run(version, payload(20000), 1300)]
    met.alice.take_together([sealed(met.bob.link, packet) for packet in packets], met.wire.to_right)
    assert met.alice.device.arrived == packets
    assert len(met.alice.device.packets) == 2


def test_without_offloads_nothing_is_joined(loop: HandLoop) -> None:
    two = Two(loop, offloads=0)
    packets = tcp_run(4, payload(30000), 1368)
    two.alice.take_together([sealed(two.bob.link, packet) for packet in packets], two.wire.to_right)
    assert two.alice.device.packets == packets
    assert set(two.alice.device.headers) == {NO_OFFLOAD}
    two.close()


def test_without_udp_offloads_datagrams_are_not_joined(loop: HandLoop) -> None:
    two = Two(loop, offloads=TCP_OFFLOADS)
    packets = udp_run(4, payload(20000), 1300)
    two.alice.take_together([sealed(two.bob.link, packet) for packet in packets], two.wire.to_right)
    assert two.alice.device.packets == packets
    two.close()


def test_a_segment_with_a_wrong_checksum_is_not_joined_and_passed_on_as_it_is(met: Two) -> None:
    packets = tcp_run(4, payload(13680), 1368)
    broken = packets[4][:-1] + bytes([packets[4][-1] ^ 1])
    packets[4] = broken
    met.alice.take_together([sealed(met.bob.link, packet) for packet in packets], met.wire.to_right)
    assert met.alice.device.arrived == packets
    assert broken in met.alice.device.packets


def test_a_single_packet_does_not_wait_to_be_joined(met: Two) -> None:
    packet = tcp_run(4, payload(5000), 1368)[0]
    met.alice.take(sealed(met.bob.link, packet), met.wire.to_right)
    assert met.alice.device.packets == [packet]


def test_segments_from_a_source_that_is_not_allowed_are_not_joined(loop: HandLoop) -> None:
    alice, bob = End(ALICE, loop), End(BOB, loop, plain=True)
    alice.know(BOB.public, ["100.64.0.0/10"])
    bob.know(ALICE.public)
    wire = Wire(alice, bob)
    wire.shake_hands()
    good = tcp_run(4, payload(5000), 1368)
    bad = ipv4("8.8.8.8", "10.1.2.3", b"forged")
    messages = [sealed(bob.link, packet) for packet in (good[0], bad, good[1], bad, good[2], good[3])]
    alice.take_together(messages, wire.to_right)
    assert alice.device.arrived == good
    assert alice.drops == {"source not allowed": 2}
    alice.close()
    bob.close()


@settings(max_examples=40)
@given(
    runs=st.lists(
        st.tuples(
            st.sampled_from(["tcp", "udp"]), st.sampled_from([4, 6]), st.integers(1, 20000), st.integers(48, 1368)
        ),
        min_size=1,
        max_size=6,
    ),
    carrier=st.sampled_from(["udp", "tcp"]),
    offloads=st.sampled_from([0, TCP_OFFLOADS, TCP_OFFLOADS | UDP_OFFLOADS]),
)
def test_split_by_one_end_and_joined_by_the_other_the_packets_are_the_same(
    runs: list[tuple[str, int, int, int]], carrier: CarrierName, offloads: int
) -> None:
    loop = HandLoop()
    two = Two(loop, carrier, offloads)
    expected: list[bytes] = []
    for kind, version, size, segment in runs:
        run = tcp_run if kind == "tcp" else udp_run
        make = tcp_superpacket if kind == "tcp" else udp_superpacket
        two.alice.send((make(version, payload(size)), segment))
        expected += run(version, payload(size), segment)
    two.wire.run()
    assert list(map(but_for_what_df_frees, two.bob.device.packets)) == list(map(but_for_what_df_frees, expected))
    two.alice.take_together([sealed(two.bob.link, packet) for packet in expected], two.wire.to_right)
    assert list(map(but_for_what_df_frees, two.alice.device.arrived)) == list(map(but_for_what_df_frees, expected))
    two.close()
    loop.close()


def test_sent_messages_carry_packets_and_no_records(met: Two) -> None:
    met.alice.send((tcp_superpacket(4, payload(5000)), 1368), tcp(4, b"x"))
    session = met.bob.link.peer.keys.current
    assert session is not None
    for message in met.wire.to_right.sent:
        assert kind_of(message) == DATA
        plaintext = memoryview(bytearray(2000))
        assert session.open_into(memoryview(bytearray(message)), plaintext)
        assert plaintext[0] > LAST_KIND
