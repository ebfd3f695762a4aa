"""Frames of a TAP device arrive at the other end as they were, whatever is in them; and at no other kind of device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.ends import ALICE, BOB, End, Wire, ipv4, sealed
from tests.datapath.switching.lan import ALL, carrying, frame, station
from tests.machine import HandLoop
from tests.wire.packets import payload, tcp, tcp_run, tcp_superpacket, udp, udp_run, unfinished
from vpntun.core.records.hello import MOST_UNANSWERED
from vpntun.datapath.sending.device_reader import MOST_PACKETS_PER_TURN
from vpntun.types import CarrierName, DeviceKind
from vpntun.wire.record import TAKES_ALL, Hello

A, B = station(1), station(2)


class Pair:
    """Alice and Bob, who have not met yet."""

    def __init__(self, loop: HandLoop, kinds: tuple[DeviceKind, DeviceKind] = ("tap", "tap"), *, plain: bool = False):
        self.loop = loop
        self.alice = End(ALICE, loop, 1500, kind=kinds[0])
        self.bob = End(BOB, loop, 1500, kind=kinds[1], plain=plain)
        self.alice.know(BOB.public)
        self.bob.know(ALICE.public)

    def meet(self, carrier: CarrierName = "udp") -> Pair:
        """Let them meet over a carrier."""
        self.wire = Wire(self.alice, self.bob, carrier=carrier)
        self.wire.shake_hands()
        return self

    def send(self, *given: bytes | tuple[bytes, int]) -> list[bytes]:
        """Let Alice's device hand over frames; return what arrives at Bob's."""
        self.bob.device.clear()
        self.alice.send(*given)
        self.wire.run()
        return self.bob.device.arrived

    def close(self) -> None:
        self.alice.close()
        self.bob.close()


@pytest.fixture
def pair(loop: HandLoop) -> Iterator[Pair]:
    made = Pair(loop).meet()
    yield made
    made.close()


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(frame(A, ALL), id="ARP"),
        pytest.param(frame(A, B, payload(1500), 0x88B5), id="an EtherType nobody knows"),
        pytest.param(frame(A, b"\x01\x80\xc2\0\0\0", b"\x42\x42\3" + bytes(35), 38), id="STP, with an 802.3 length"),
        pytest.param(frame(A, B, b"", 0x0800), id="no payload"),
        pytest.param(frame(A, B, b"\x45", 0x0800), id="a truncated IP packet"),
        pytest.param(frame(A, B, bytes(40), 0x86DD), id="IPv6 of another version"),
        pytest.param(frame(A, B, udp(4, b"nested"), 0x0800, 7, 8), id="two VLAN tags"),
        pytest.param(frame(A, B, udp(4, b"nested"), 0x0800, 7, 8, 9), id="three VLAN tags"),
        pytest.param(frame(A, B, ipv4("10.0.0.1", "10.0.0.2") + bytes(26), 0x0800), id="padding"),
        pytest.param(frame(A, B, payload(1500), 0x0806, 7), id="a VLAN tag and a full payload"),
    ],
)
def test_any_frame_arrives_as_it_was(pair: Pair, given: bytes) -> None:
    assert pair.send(given) == [given]
    assert not pair.alice.drops + pair.bob.drops


@pytest.mark.parametrize("carrier", ["udp", "tcp"])
@pytest.mark.parametrize("vlans", [(), (7,), (7, 8)], ids=len)
def test_superpackets_arrive_as_the_frames_they_stand_for(
    loop: HandLoop, carrier: CarrierName, vlans: tuple[int, ...]
) -> None:
    pair = Pair(loop).meet(carrier)
    whole = carrying(tcp_superpacket(4, payload(20_000)), A, B, *vlans)
    header = whole[: whole.index(b"\x45")]
    expected = [header + each for each in tcp_run(4, payload(20_000), 1400)]
    for _ in range(3):
        assert pair.send((whole, 1400)) == expected
    pair.close()


@pytest.mark.parametrize("vlans", [(), (7,)], ids=len)
def test_an_unfinished_checksum_is_finished_by_the_other_ends_kernel(pair: Pair, vlans: tuple[int, ...]) -> None:
    packet = tcp(6, b"hello")
    begun = carrying(unfinished(packet, 6, 40), A, B, *vlans)
    assert pair.send((begun, 0)) == [carrying(packet, A, B, *vlans)]


def test_datagrams_of_one_flow_are_joined_into_one_superpacket(pair: Pair) -> None:
    run = [carrying(each, A, B) for each in udp_run(4, payload(1000), 100)]
    begun = [(carrying(unfinished(each, 17, 20), A, B), 0) for each in udp_run(4, payload(1000), 100)]
    assert pair.send(*begun) == run
    assert len(pair.bob.device.packets) < len(run)


@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_what_waits_at_the_device_is_known_on_both_kinds_of_device(loop: HandLoop, kind: DeviceKind) -> None:
    pair = Pair(loop, (kind, kind)).meet()
    packet = udp(4, payload(1400))
    given = packet if kind == "tun" else carrying(packet, A, B)
    pair.alice.device.from_the_kernel(*[given] * (MOST_PACKETS_PER_TURN + 1))
    loop.poll()
    pair.bob.send(packet if kind == "tun" else carrying(packet, B, A))
    pair.alice.take_together(pair.wire.to_left.take(), pair.wire.to_right)
    loop.poll()
    assert pair.alice.link.records.span.bottleneck.backlogged == MOST_PACKETS_PER_TURN
    pair.close()


def test_frames_wait_for_a_session_and_for_the_peers_hello(loop: HandLoop) -> None:
    pair = Pair(loop)
    pair.wire = Wire(pair.alice, pair.bob)
    given = [frame(A, ALL, bytes([number])) for number in range(20)]
    pair.alice.send(*given)
    loop.clock.ticks = 1e-6  # a turn takes time, so that the HELLO is read later than the turn began
    pair.wire.shake_hands()
    assert pair.bob.device.packets == given
    assert not pair.alice.drops
    pair.close()


@pytest.mark.parametrize("kinds", [("tap", "tun"), ("tun", "tap")])
def test_devices_that_differ_exchange_nothing_and_both_ends_say_so(
    loop: HandLoop, kinds: tuple[DeviceKind, DeviceKind], caplog: pytest.LogCaptureFixture
) -> None:
    pair = Pair(loop, kinds).meet()
    packet = udp(4, b"hello")
    for end in (pair.alice, pair.bob):
        end.send(packet if end.device.kind == "tun" else carrying(packet, A, B))
        pair.wire.run()
    assert pair.alice.device.packets == pair.bob.device.packets == []
    assert pair.alice.drops == pair.bob.drops == {"other kind of device": 1}
    lines = [line for line in caplog.text.splitlines() if "nothing passes until both ends" in line]
    assert len(lines) == 2
    assert sum("has a TUN device, and this end a TAP device" in line for line in lines) == 1
    pair.close()


def test_a_peer_that_comes_back_with_another_kind_of_device_gets_nothing_until_it_has_a_tap_again(pair: Pair) -> None:
    given = frame(A, ALL)
    assert pair.send(given) == [given]
    for is_tap in (False, True):
        hello = Hello(seen_yours=True, takes=TAKES_ALL, is_tap=is_tap)
        pair.alice.take(sealed(pair.bob.link, hello.pack()), pair.wire.to_right)
        assert pair.send(given) == ([given] if is_tap else [])
    assert pair.alice.drops == {"other kind of device": 1}


def test_a_plain_wireguard_gets_no_frames_and_one_line_says_so(
    loop: HandLoop, caplog: pytest.LogCaptureFixture
) -> None:
    pair = Pair(loop, ("tap", "tun"), plain=True).meet()
    link = pair.alice.link
    loop.on_deadline = link.handle_deadline
    for _ in range(4 * MOST_UNANSWERED):
        pair.alice.send(frame(A, ALL))
        pair.bob.send(udp(4, b"hello"))
        pair.wire.run()
        loop.deadline = lambda: link.deadline
        loop.pass_time(5)
    assert pair.bob.device.packets == pair.alice.device.packets == []
    assert pair.alice.drops["no vpntun"] > 0
    assert caplog.text.count("a TAP device needs a vpntun") == 1
    pair.close()


def test_the_tunnels_own_packets_are_dropped(loop: HandLoop) -> None:
    pair = Pair(loop).meet()
    endpoint = pair.alice.link.endpoint
    assert endpoint is not None
    pair.alice.guard.follow(pair.alice.link)
    (destination,), ((_, source, port),) = pair.alice.guard.endpoints, next(iter(pair.alice.guard.endpoints.values()))
    ports = source.to_bytes(2, "big") + port.to_bytes(2, "big")
    own = ipv4("10.0.0.1", ".".join(map(str, destination)), ports + b"\0\x0c\0\0data")
    other = ipv4("10.0.0.1", ".".join(map(str, destination)), b"\x30\x39" + ports[2:] + b"\0\x0c\0\0data")
    assert pair.send(carrying(own, A, B), carrying(other, A, B)) == [carrying(other, A, B)]
    assert pair.alice.drops == {"routing loop": 1}
    pair.close()


def test_a_superpacket_longer_than_an_entry_can_be_is_split(pair: Pair) -> None:
    packet = tcp_superpacket(4, payload(65_535 - 52))
    given = carrying(packet, A, B, 7)
    assert len(given) > 0xFFFF
    arrived = pair.send((given, 1400))
    assert b"".join(each[18 + 52 :] for each in arrived) == payload(65_535 - 52)


@pytest.mark.parametrize("begun", [False, True])
def test_a_frame_longer_than_an_entry_can_be_is_dropped_and_the_next_one_passes(pair: Pair, begun: bool) -> None:
    packet = tcp(4, payload(65_535 - 52))
    given = (carrying(unfinished(packet, 6, 20), A, B, 7), 0) if begun else carrying(packet, A, B, 7)
    assert pair.send(given, frame(A, B)) == [frame(A, B)]
    assert pair.alice.drops == {"too large": 1}


@pytest.mark.parametrize(("vlans", "ecn"), [((), 2), ((7,), 0)])
def test_the_outer_packet_has_the_ecn_field_of_a_packet_without_a_vlan_tag(
    pair: Pair, vlans: tuple[int, ...], ecn: int
) -> None:
    pair.alice.send(carrying(udp(4, b"hello", tos=2), A, B, *vlans))
    assert [tos & 3 for tos in pair.wire.to_right.tos] == [ecn]
