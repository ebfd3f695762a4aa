"""Reassembly of received bursts: pieces in any order make the record.

Forged, repeated, overlapping, missing and never-finished pieces cost at most their own record and bounded memory, and
do not move the endpoint.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.datapath.ends import ALICE, BOB, End, TwoEnds, sealed, send_long_records
from tests.machine import HandLoop
from tests.wire.packets import tcp, tcp_run, tcp_superpacket
from vpntun.carriers.base import Arrival
from vpntun.carriers.fake import FakeEndpoint
from vpntun.carriers.udp_socket import UdpEndpoint, UdpSocket
from vpntun.core.records.protection import FIRST_LOOK
from vpntun.core.records.reassembly import AGE, ENDPOINT_SLOTS, OTHER_SLOTS
from vpntun.core.records.span import LARGEST_SEND
from vpntun.wire.burst import BurstCutter
from vpntun.wire.message import Buffer

GOOD = tcp(4, b"good")
BIG = tcp_superpacket(4, bytes(range(250)) * 17)
BIG_AS_PACKETS = tcp_run(4, bytes(range(250)) * 17, 1448)


class FakeSocket:
    """A socket whose reads return the given arrivals."""

    def __init__(self, arrivals: Sequence[Arrival]) -> None:
        self._arrivals = arrivals
        self.expected: list[int] = []
        self.scattered: list[int] = []
        self.whole = 0

    def receive(self) -> Iterator[Arrival]:
        yield from self._arrivals

    def expect_bursts(self, size: int) -> None:
        self.expected.append(size)

    def expect_pieces(self, size: int) -> None:
        self.scattered.append(size)

    def note_whole_message(self, size: int, datagrams: int) -> None:
        self.whole += datagrams > 1


class Two(TwoEnds):
    """Alice and Bob over UDP, after HELLO. `evil` is another address."""

    def __init__(self, loop: HandLoop, *, alice_is_plain: bool = False) -> None:
        super().__init__(End(ALICE, loop, plain=alice_is_plain), End(BOB, loop))
        self.wire.shake_hands()
        send_long_records(self.alice.link)
        self.bob.drops.clear()
        self.evil = FakeEndpoint("evil")

    def burst(self, number: int = 0) -> list[bytes]:
        """Return the datagrams of one record of Alice's, which carries BIG."""
        self.wire.to_right.calls.clear()
        self.alice.send((BIG, 1448))
        (call,) = self.wire.to_right.calls
        self.wire.to_right.take()
        assert len(call) > 2
        return call

    def protect(self) -> None:
        """Make Alice protect her records, as after random losses on a short path."""
        span = self.alice.link.records.span
        span.protection.wanted = span.protection.possible = True
        span.protection._seen = FIRST_LOOK
        span.estimator.delay.note_probe(0.001, self.loop.now)
        span._follow(self.loop.now)
        assert span.protects_bursts

    def give(self, *datagrams: bytes, path: FakeEndpoint | None = None) -> None:
        """Let Bob receive the datagrams one by one."""
        for datagram in datagrams:
            self.bob.take(datagram, path or self.wire.to_left)

    def read(self, *datagrams: bytes, path: FakeEndpoint | None = None) -> FakeSocket:
        """Let Bob receive the datagrams by one read, as from UDP_GRO: of one size, but the last may be shorter."""
        source = cast(UdpEndpoint, path or self.wire.to_left)
        joined = memoryview(bytearray(b"".join(datagrams)))
        socket = FakeSocket([(joined, len(datagrams[0]), 1, source, 0)])
        self.bob.inbound.read_datagrams(cast(UdpSocket, socket))
        return socket

    @property
    def arrived(self) -> list[bytes]:
        arrived = self.bob.device.arrived
        self.bob.device.clear()
        return arrived

    @property
    def endpoint(self) -> object:
        return self.bob.link.peer.endpoint

    def memory(self) -> int:
        """Return the size in bytes of Bob's reassembly buffers."""
        reassembly = self.bob.link.records.reassembly
        slots = (*reassembly._endpoint_slots, *reassembly._other_slots)
        return sum(len(slot.buffer) for slot in slots)

    def still_works(self) -> bool:
        self.give(*self.burst())
        whole = self.arrived == BIG_AS_PACKETS
        self.alice.send(GOOD)
        self.wire.run()
        return whole and self.arrived == [GOOD] and self.endpoint is self.wire.to_left


@pytest.fixture
def two(loop: HandLoop) -> Iterator[Two]:
    made = Two(loop)
    yield made
    made.close()


# Genuine pieces


def test_pieces_one_by_one_make_the_record(two: Two) -> None:
    two.give(*two.burst())
    assert two.arrived == BIG_AS_PACKETS
    assert not two.bob.drops


def test_a_read_that_holds_a_whole_burst_is_joined_and_the_next_is_expected(two: Two) -> None:
    socket = two.read(*two.burst())
    assert two.arrived == BIG_AS_PACKETS
    assert socket.expected == [1200]


def test_a_read_of_whole_messages_and_bursts_is_split(two: Two) -> None:
    filled = sealed(two.alice.link, tcp(4, bytes(1200 - 32 - 52)))
    first, second = two.burst(), two.burst()
    assert len(filled) == len(first[0]) == 1200
    two.read(filled, *first[:-1])
    two.read(first[-1])
    two.read(*second)
    assert two.arrived == [tcp(4, bytes(1200 - 32 - 52)), *BIG_AS_PACKETS, *BIG_AS_PACKETS]
    assert not two.bob.drops


@pytest.mark.parametrize("seed", range(20))
def test_pieces_in_any_order_by_any_reads_make_the_record(two: Two, seed: int) -> None:
    rng = random.Random(seed)
    burst = two.burst()
    shorter = burst[-1]
    rng.shuffle(burst)
    while burst:
        count = rng.randint(1, len(burst))
        read, burst = burst[:count], burst[count:]
        at = read.index(shorter) + 1 if shorter in read else len(read)
        for part in (read[:at], read[at:]):  # a shorter datagram ends a read
            if part:
                two.read(*part)
    assert two.arrived == BIG_AS_PACKETS


def test_a_burst_whose_middle_was_reordered_on_the_way_is_reassembled(two: Two) -> None:
    burst = two.burst()
    burst[1], burst[-2] = burst[-2], burst[1]
    two.read(*burst)
    assert two.arrived == BIG_AS_PACKETS


def test_records_whose_pieces_arrive_mixed_are_all_reassembled(two: Two) -> None:
    bursts = [two.burst() for _ in range(ENDPOINT_SLOTS)]
    for pieces in zip(*bursts, strict=True):
        two.give(*pieces)
    assert two.arrived == BIG_AS_PACKETS * ENDPOINT_SLOTS
    assert not two.bob.drops


@pytest.mark.parametrize("lost", range(5))
def test_one_datagram_of_a_protected_burst_may_be_lost(two: Two, lost: int) -> None:
    two.protect()
    burst = two.burst()
    assert len(burst) == 5
    assert {len(piece) for piece in burst} == {1200}
    two.give(*burst[:lost], *burst[lost + 1 :])
    assert two.arrived == BIG_AS_PACKETS
    assert two.bob.link.records.restored == (lost < 4)
    assert not two.bob.drops


def test_a_complete_protected_burst_needs_no_parity_however_it_is_read(two: Two) -> None:
    two.protect()
    two.give(*two.burst())
    two.read(*two.burst())
    assert two.arrived == BIG_AS_PACKETS * 2
    assert two.bob.link.records.restored == 0
    assert not two.bob.drops


def test_ordinary_packets_that_fill_one_protected_record_after_the_other_arrive_as_they_were(two: Two) -> None:
    two.protect()
    packets = [tcp(4, bytes((number,)) * 1300) for number in range(200)]
    two.alice.send(*packets)
    two.wire.run()
    assert two.arrived == packets


def test_padding_of_a_record_does_not_overwrite_the_first_packet_for_another_peer(loop: HandLoop) -> None:
    two = Two(loop)
    two.protect()
    bundler, link = two.alice.bundler, two.alice.link
    bundler.turn_to(link)
    for number in range(2):
        bundler.add(memoryview(tcp(4, bytes((number,)) * 1300)), 0)
    behind = bundler._buffer[bundler._at : bundler._at + 1300]
    behind[:] = b"n" * 1300
    bundler.turn_to(link)
    assert bytes(behind) == b"n" * 1300
    two.close()


@pytest.mark.parametrize("largest", [1600, 5000])
def test_no_protected_burst_is_longer_than_the_peer_takes(two: Two, largest: int) -> None:
    two.protect()
    records = two.alice.link.records
    records._largest_taken = largest
    for size in range(1200, largest):
        assert records.protected_size(size) <= largest


@pytest.mark.parametrize("mtu", [62_000, 63_000, 65_000])
def test_a_packet_whose_datagrams_leave_no_room_for_a_parity_in_the_send_has_none(two: Two, mtu: int) -> None:
    two.protect()
    two.burst()
    records = two.alice.link.records
    records._mtu = mtu
    records._follow_path(two.loop.now)
    count = -(-(mtu + 37 - 16) // 1184)
    assert (records.protected_size(mtu + 5) > 0) == ((count + 1) * 1200 <= LARGEST_SEND)


def test_a_record_restored_by_a_forged_parity_does_not_open(two: Two) -> None:
    two.protect()
    *pieces, parity = two.burst()
    two.give(parity[:16] + bytes(len(parity) - 16), *pieces[1:])
    assert two.arrived == []
    assert two.bob.drops == {"bad tag": 1}
    assert two.bob.link.records.restored == 0
    assert two.still_works()


def test_a_complete_burst_from_a_new_address_moves_the_endpoint(two: Two) -> None:
    two.give(*two.burst(), path=two.evil)
    assert two.arrived == BIG_AS_PACKETS
    assert two.endpoint is two.evil


# Missing, repeated, replayed


def test_a_record_with_a_missing_piece_never_arrives_and_others_do(two: Two) -> None:
    two.give(*two.burst()[1:])
    two.read(*two.burst()[:-1])
    assert two.arrived == []
    assert two.still_works()


def test_repeated_pieces_change_nothing(two: Two) -> None:
    burst = two.burst()
    for piece in burst[:-1]:
        two.give(piece, piece)
    two.give(burst[-1])
    assert two.arrived == BIG_AS_PACKETS
    assert two.bob.drops == {"repeated fragment": len(burst) - 1}
    two.give(*burst)
    two.read(*burst)
    assert two.arrived == []
    assert set(two.bob.drops) == {"repeated fragment", "replayed"}


def test_a_replayed_burst_from_another_address_does_not_move_the_endpoint(two: Two) -> None:
    burst = two.burst()
    two.give(*burst)
    two.give(*burst, path=two.evil)
    two.read(*burst, path=two.evil)
    assert two.arrived == BIG_AS_PACKETS
    assert two.endpoint is two.wire.to_left
    assert two.evil.sent == []


def test_pieces_of_one_record_from_two_addresses_are_never_joined(two: Two) -> None:
    burst = two.burst()
    two.give(*burst[:2])
    two.give(*burst[2:], path=two.evil)
    assert two.arrived == []
    assert two.endpoint is two.wire.to_left
    assert two.still_works()


def test_an_unfinished_record_is_given_up_after_a_second(two: Two) -> None:
    burst = two.burst()
    two.give(*burst[:-1])
    two.loop.pass_time(AGE)
    bob = two.bob.link.records
    session = two.bob.link.peer.keys.current
    assert session is not None
    assert bob.reassembly.given_up(session, two.loop.now) == [(session.highest_received + 1, len(burst) - 1)]
    two.give(burst[-1])
    assert two.arrived == []


# Forged


def test_forged_pieces_from_another_address_do_not_affect_the_peers_record(two: Two) -> None:
    burst = two.burst()
    forged = [piece[:16] + bytes(len(piece) - 16) for piece in burst]
    for genuine, false in zip(burst, forged, strict=True):
        two.give(false, path=two.evil)
        two.give(genuine)
    assert two.arrived == BIG_AS_PACKETS
    assert two.bob.drops == {"bad tag": 1}
    assert two.endpoint is two.wire.to_left
    assert two.evil.sent == []


def test_a_forged_piece_under_the_peers_address_spoils_its_record_and_no_other(two: Two) -> None:
    burst = two.burst()
    two.give(burst[0][:16] + bytes(1184), *burst)
    assert two.arrived == []
    assert two.bob.drops == {"repeated fragment": 1, "bad tag": 1}
    assert two.still_works()


def test_a_forged_burst_with_a_future_counter_does_not_block_the_genuine_one(two: Two) -> None:
    burst = two.burst()
    two.read(*(piece[:16] + bytes(len(piece) - 16) for piece in burst), path=two.evil)
    two.read(*burst)
    assert two.arrived == BIG_AS_PACKETS
    assert two.endpoint is two.wire.to_left


@pytest.mark.parametrize("path", ["evil", "peer"])
def test_a_flood_of_pieces_that_are_never_finished_takes_bounded_memory(two: Two, path: str) -> None:
    source = two.evil if path == "evil" else two.wire.to_left
    header = two.burst()[0]
    for number in range(3000):
        counter = (number * 7919).to_bytes(8, "little")
        count = 1 + number % 63
        piece = header[:1] + bytes([number % (count + 1), count, 0]) + header[4:8] + counter + bytes(number % 1200 + 1)
        two.give(piece, path=source)
    assert two.memory() <= (ENDPOINT_SLOTS + OTHER_SLOTS) * 65535
    assert two.arrived == []
    assert two.endpoint is two.wire.to_left
    assert two.still_works()


@pytest.mark.parametrize(
    ("reserved", "reason"),
    [
        (b"\x01\x01\x00", "bad fragment size"),
        (b"\x03\x01\x00", "bad reserved"),
        (b"\x01\x00\x00", "bad reserved"),
        (b"\x40\x40\x00", "bad reserved"),
        (b"\x00\x40\x00", "bad reserved"),
        (b"\x00\xff\x00", "bad reserved"),
        (b"\x00\x03\x01", "bad reserved"),
        (b"\x04\x03\x01", "bad reserved"),
        (b"\x00\x03\x02", "bad reserved"),
        (b"\x00\x00\x01", "bad reserved"),
    ],
)
def test_an_impossible_position_of_a_piece_is_refused(two: Two, reserved: bytes, reason: str) -> None:
    burst = two.burst()
    two.give(burst[0][:1] + reserved + burst[0][4:])
    if reason == "bad reserved":
        assert two.bob.drops == {reason: 1}
    two.give(*two.burst())
    assert two.arrived == BIG_AS_PACKETS


def test_pieces_of_different_sizes_or_counts_are_refused(two: Two) -> None:
    burst = two.burst()
    two.give(burst[0])
    two.give(burst[1] + b"x")
    two.give(burst[1][:-1])
    two.give(burst[1][:2] + bytes([burst[1][2] + 1]) + burst[1][3:])
    assert two.bob.drops == {"bad fragment": 3}
    two.give(*burst[1:])
    assert two.arrived == BIG_AS_PACKETS


@pytest.mark.parametrize("together", [False, True])
def test_pieces_before_the_hello_are_refused_even_if_they_are_genuine(loop: HandLoop, together: bool) -> None:
    two = Two(loop, alice_is_plain=True)
    message = bytearray(sealed(two.alice.link, tcp(4, bytes(2000))))
    pieces = BurstCutter(memoryview(message)).cut(len(message), 1200)
    datagrams = [bytes(pieces[at]) + bytes(pieces[at + 1]) for at in range(0, len(pieces), 2)]
    if together:
        two.read(*datagrams)
    else:
        two.give(*datagrams)
    assert two.arrived == []
    assert set(two.bob.drops) == {"bad reserved"}
    assert two.memory() == 0
    two.give(sealed(two.alice.link, GOOD))
    assert two.arrived == [GOOD]
    two.close()


def test_pieces_for_an_unknown_session_are_refused(two: Two) -> None:
    burst = two.burst()
    two.give(*(piece[:4] + bytes(4) + piece[8:] for piece in burst))
    assert two.bob.drops == {"unknown index": len(burst)}
    assert two.memory() == 0


def test_pieces_of_a_session_that_is_too_old_are_refused(two: Two) -> None:
    burst = two.burst()
    two.loop.pass_time(181.0)
    two.give(*burst)
    two.read(*burst)
    assert set(two.bob.drops) == {"expired session"}
    assert two.arrived == []


# Random data


def test_random_changes_of_pieces_damage_only_their_own_record(two: Two) -> None:
    rng = random.Random(7)
    for _ in range(300):
        burst = [bytearray(datagram) for datagram in two.burst()]
        for _ in range(rng.randint(1, 3)):
            piece = rng.choice(burst)
            position = rng.choice((1, 2, 3, rng.randrange(16, len(piece)), len(piece) - 1))
            piece[position] = rng.randrange(256)
        two.read(*map(bytes, burst))
        assert two.arrived in ([], BIG_AS_PACKETS)
        two.loop.pass_time(0.001)
    assert two.still_works()


def of_the_peer(datagram: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(datagram)
    for place, value in changes:
        changed[place % len(changed)] = value
    return bytes(changed)


def counter_of(datagram: Buffer) -> int:
    return int.from_bytes(datagram[8:16], "little")


CHANGES = st.lists(st.tuples(st.one_of(st.integers(0, 15), st.integers(0, 1199)), st.integers(0, 255)), max_size=3)


@settings(max_examples=150)
@example(data=[(0, [(8, 7)], True, None)], segment=1, together=False)
@given(
    data=st.lists(
        st.tuples(st.integers(0, 11), CHANGES, st.booleans(), st.one_of(st.none(), st.binary(max_size=1300))),
        max_size=40,
    ),
    segment=st.integers(1, 1300),
    together=st.booleans(),
)
def test_no_datagrams_raise_or_are_answered_or_stop_the_link(
    data: list[tuple[int, list[tuple[int, int]], bool, bytes | None]], segment: int, together: bool
) -> None:
    loop = HandLoop()
    two = Two(loop)
    genuine = [piece for _ in range(4) for piece in two.burst()]
    datagrams = [
        of_the_peer(genuine[index % len(genuine)], changes) if junk is None else junk
        for index, changes, _, junk in data
    ]
    if together and datagrams:
        joined = memoryview(bytearray(b"".join(datagrams)[:65535]))
        source = cast(UdpEndpoint, two.evil)
        named = {counter_of(joined[at : at + segment]) for at in range(0, len(joined), segment)}
        two.bob.inbound.read_datagrams(cast(UdpSocket, FakeSocket([(joined, segment, 1, source, 0)])))
    else:
        named = set(map(counter_of, datagrams))
        for datagram, (_, _, from_peer, _) in zip(datagrams, data, strict=True):
            two.give(datagram, path=two.wire.to_left if from_peer else two.evil)
    assert set(map(bytes, two.bob.device.arrived)) <= set(BIG_AS_PACKETS)
    assert two.memory() <= (ENDPOINT_SLOTS + OTHER_SLOTS) * 65535
    assert two.evil.sent == []
    two.arrived  # noqa: B018, empties it
    burst = two.burst()
    while counter_of(burst[0]) in named:  # a forged piece may cost the record whose counter it names, and no other
        burst = two.burst()
    two.give(*burst)
    assert two.arrived == BIG_AS_PACKETS
    two.close()
    loop.close()
