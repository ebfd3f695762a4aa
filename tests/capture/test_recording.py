"""Recordings: what is in them, where they end, and what they lose when nobody reads."""

from __future__ import annotations

from ipaddress import ip_network
from types import SimpleNamespace
from typing import cast

import pytest

from tests.capture.test_describing_frames import IPV4, frame
from tests.wire.packets import is_right, tcp, tcp_superpacket, udp, unfinished
from vpntun.capture.pcapng import SIZE_OF_STATISTICS
from vpntun.capture.reading import CapturedPacket, CaptureReader
from vpntun.capture.recording import DESCRIBED_AT_ONCE, MOST_WAITING, Bounds, Recording
from vpntun.capture.selection import Selection
from vpntun.link.link import Link
from vpntun.types import DeviceKind

PACKET = udp(4, b"hello")


class NamedLink:
    """What a recording needs of a link."""

    def __init__(self, name: str, public: bytes) -> None:
        self.name = name
        self.peer = SimpleNamespace(public=public)


def new_link(name: str, key: int = 1) -> Link:
    return cast(Link, NamedLink(name, bytes([key]) * 32))


class Studio:
    """A recording, and what has become of it."""

    def __init__(
        self,
        *links: Link,
        selection: Selection | None = None,
        bounds: Bounds | None = None,
        kind: DeviceKind = "tun",
    ) -> None:
        self.now = 1_700_000_000_000_000_000
        self.ends = self.calls = 0
        self.reader = CaptureReader()
        self.size = 0
        self.recording = Recording(
            "tun3", links, selection or Selection(), bounds or Bounds(), self.count_end, lambda: self.now, kind
        )
        self.recording.call_on_more(self.count_call)

    def count_end(self, recording: Recording) -> None:
        assert recording is self.recording
        self.ends += 1

    def count_call(self) -> None:
        self.calls += 1

    def saw(self, link: Link, packet: bytes = PACKET, *, outbound: bool = True, unfinished: bool = False) -> None:
        self.now += 1
        self.recording.saw(link, memoryview(bytearray(packet)), outbound=outbound, unfinished=unfinished)

    def read(self) -> list[CapturedPacket]:
        """Take everything there is, and return its packets."""
        found: list[CapturedPacket] = []
        while piece := self.recording.take():
            self.size += len(piece)
            found += self.reader.take(piece)
        return found


def test_packets_are_recorded_with_time_direction_and_the_name_of_the_peer() -> None:
    office, other = new_link("office"), new_link("", 2)
    studio = Studio(office)
    studio.saw(office)
    studio.saw(other, tcp(6, b"x"), outbound=False)
    at = studio.now
    assert studio.read() == [
        CapturedPacket("office", at - 1, True, PACKET, len(PACKET)),
        CapturedPacket("peer AgICAgICAg", at, False, tcp(6, b"x"), len(tcp(6, b"x"))),
    ]
    assert studio.read() == []


def test_only_selected_packets_are_recorded() -> None:
    office, other = new_link("office"), new_link("other", 2)
    studio = Studio(office, other, selection=Selection([bytes([1]) * 32], [ip_network("fd00::/64")]))
    for link in (office, other):
        for version in (4, 6):
            studio.saw(link, udp(version, b"hello"))
    assert [(each.peer, each.data) for each in studio.read()] == [("office", udp(6, b"hello"))]


def test_the_reader_is_called_once_for_all_that_comes_before_it_takes() -> None:
    office = new_link("office")
    studio = Studio(office)
    studio.read()
    studio.saw(office)
    studio.saw(office)
    assert studio.calls == 1
    studio.read()
    studio.saw(office)
    assert studio.calls == 2


def test_bytes_that_nobody_takes_are_bounded_and_the_lost_packets_are_counted() -> None:
    office = new_link("office")
    studio = Studio(office)
    packet = udp(4, bytes(30_000))
    offered = MOST_WAITING // 30_000 + 50
    for _ in range(offered):
        studio.saw(office, packet)
    kept = len(studio.read())
    assert studio.size <= MOST_WAITING
    assert offered - 55 < kept < offered - 49
    assert studio.size > MOST_WAITING - 31_000
    assert studio.reader.lost == 0
    studio.saw(office)
    assert len(studio.read()) == 1
    assert studio.reader.lost == offered - kept
    studio.saw(office)
    studio.recording.end()
    studio.read()
    assert (studio.reader.packets, studio.reader.lost) == (kept + 2, offered - kept)


def test_a_peer_that_has_lost_all_its_packets_is_in_the_statistics() -> None:
    office, other = new_link("office"), new_link("other", 2)
    studio = Studio(office)
    for _ in range(MOST_WAITING // 30_000 + 1):
        studio.saw(office, udp(4, bytes(30_000)))
    studio.saw(other, udp(4, bytes(30_000)))
    before = studio.recording._sources[other]
    assert before is not None
    assert before.number is None
    studio.recording.end()
    studio.read()
    assert studio.reader.lost >= 1
    assert studio.reader._peers == ["office", "other"]


def test_a_recording_ends_after_its_last_packet() -> None:
    office = new_link("office")
    studio = Studio(office, bounds=Bounds(packets=2))
    for _ in range(4):
        studio.saw(office)
    assert studio.recording.ended
    assert len(studio.read()) == 2
    assert studio.ends == 1
    studio.recording.end()
    assert (studio.ends, studio.read()) == (1, [])


@pytest.mark.parametrize("size", range(4096, 4112))
def test_a_recording_never_has_more_bytes_than_it_may(size: int) -> None:
    links = [new_link("office"), new_link("other", 2)]
    studio = Studio(bounds=Bounds(bytes=size))
    while not studio.recording.ended:
        for link in links:
            studio.saw(link)
    assert len(studio.read()) > 10
    assert size - 120 - 2 * SIZE_OF_STATISTICS < studio.size <= size
    assert studio.reader.lost == 0


@pytest.mark.parametrize("size", range(4096, 8192, 500))
def test_a_recording_of_many_peers_with_long_names_never_has_more_bytes_than_it_may(size: int) -> None:
    links = [new_link(f"{number} {'x' * 200}", number + 1) for number in range(2 * DESCRIBED_AT_ONCE)]
    studio = Studio(*links, bounds=Bounds(bytes=size))
    for link in links:
        studio.saw(link)
    studio.recording.end()
    studio.read()
    assert size - 500 < studio.size <= size


def test_peers_that_have_lost_all_their_packets_do_not_make_a_recording_too_long() -> None:
    busy, *others = [new_link(f"{number} {'x' * 200}", number + 1) for number in range(5)]
    studio = Studio(bounds=Bounds(bytes=MOST_WAITING))
    while (source := studio.recording._sources.get(busy)) is None or not source.lost:
        studio.saw(busy, udp(4, bytes(1000)))
    for link in others:
        studio.saw(link, udp(4, bytes(1000)))
    studio.recording.end()
    studio.read()
    assert studio.size <= MOST_WAITING


def test_of_a_long_packet_the_beginning_is_recorded() -> None:
    office = new_link("office")
    studio = Studio(office, bounds=Bounds(snaplen=40))
    packet = unfinished(udp(4, bytes(100)), 17, 20)
    studio.saw(office, packet, unfinished=True)
    assert [(each.data, each.length) for each in studio.read()] == [(packet[:40], len(packet))]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17])
def test_the_checksum_of_one_packet_is_finished_in_the_copy_alone(version: int, protocol: int) -> None:
    office = new_link("office")
    studio = Studio(office)
    packet = (udp if protocol == 17 else tcp)(version, b"hello")
    given = memoryview(bytearray(unfinished(packet, protocol, 20 if version == 4 else 40)))
    before = bytes(given)
    studio.recording.saw(office, given, outbound=True, unfinished=True)
    [recorded] = studio.read()
    assert is_right(recorded.data)
    assert recorded.data == packet
    assert bytes(given) == before


@pytest.mark.parametrize("tags", [(), (0x8100_0007,)])
def test_frames_are_recorded_as_such_and_their_checksums_finished_behind_the_header(tags: tuple[int, ...]) -> None:
    office = new_link("office")
    studio = Studio(office, selection=Selection(networks=[ip_network("10.1.2.3/32")]), kind="tap")
    packet = udp(4, b"hello")
    studio.saw(office, frame(0x0806, bytes(28)))
    studio.saw(office, frame(IPV4, unfinished(packet, 17, 20), *tags), unfinished=True)
    [recorded] = studio.read()
    assert recorded.is_frame
    assert recorded.data == frame(IPV4, packet, *tags)


def test_padding_of_a_frame_is_not_in_the_checksum() -> None:
    office = new_link("office")
    studio = Studio(office, kind="tap")
    packet, padding = udp(4, b"x"), b"padding"
    studio.saw(office, frame(IPV4, unfinished(packet, 17, 20) + padding), unfinished=True)
    assert studio.read()[0].data == frame(IPV4, packet + padding)


def test_a_superpacket_is_recorded_as_it_is() -> None:
    office = new_link("office")
    studio = Studio(office)
    packet = tcp_superpacket(4, bytes(50_000))
    studio.saw(office, packet)
    assert studio.read()[0].data == packet


def test_a_tunnel_of_very_many_peers_describes_most_of_them_when_they_have_packets() -> None:
    links = [new_link(f"peer{number}", number + 1) for number in range(100)]
    studio = Studio(*links)
    studio.read()
    assert len(studio.reader._peers) == DESCRIBED_AT_ONCE
    studio.saw(links[99])
    assert studio.read()[0].peer == "peer99"
