"""A hub with a TAP device and three peers with one each, and frames between the stations behind them."""

from __future__ import annotations

from tests.datapath.ends import ALICE, BOB, CAROL, STRANGER, End, Wire, sealed
from tests.machine import HandLoop
from tests.wire import packets
from vpntun.types import CarrierName
from vpntun.wire.record import FRAMES, append, begin_bundle

DAVE = STRANGER
ALL = b"\xff" * 6
ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD


def station(number: int) -> bytes:
    """The MAC address of a station."""
    return b"\x02\0\0\0" + number.to_bytes(2, "big")


def frame(source: bytes, destination: bytes, payload: bytes = b"who has", kind: int = ARP, *vlans: int) -> bytes:
    """Return an Ethernet frame, with VLAN tags if there are `vlans`."""
    return packets.frame(destination, source, payload, kind, *(0x8100_0000 | vlan for vlan in vlans))


def carrying(packet: bytes, source: bytes, destination: bytes, *vlans: int) -> bytes:
    """Return the frame of an IP packet."""
    return frame(source, destination, packet, IPV4 if packet[0] < 0x50 else IPV6, *vlans)


def frames(*entries: tuple[bytes, int]) -> bytes:
    """Return a record with these frames and segment fields, legal or not."""
    record = bytearray(1 + sum(4 + len(each) for each, _ in entries))
    at = begin_bundle(record, FRAMES)
    for each, field in entries:
        at = append(record, at, each, field)
    return bytes(record)


class Lan:
    """Bob, the hub, and his peers Alice, Carol and Dave. Each has a TAP device."""

    def __init__(self, loop: HandLoop, carriers: tuple[CarrierName, CarrierName] = ("udp", "udp")) -> None:
        self.loop = loop
        self.alice, self.bob, self.carol, self.dave = (
            End(identity, loop, 1500, kind="tap") for identity in (ALICE, BOB, CAROL, DAVE)
        )
        self.to_alice, self.to_carol, self.to_dave = (
            self.bob.know(identity.public, ()) for identity in (ALICE, CAROL, DAVE)
        )
        for end in (self.alice, self.carol, self.dave):
            end.know(BOB.public, ())
        self.alices = Wire(self.alice, self.bob, " alice", carriers[0])
        self.carols = Wire(self.carol, self.bob, " carol", carriers[1])
        self.daves = Wire(self.dave, self.bob, " dave")
        for wire in (self.alices, self.carols, self.daves):
            wire.shake_hands()

    @property
    def ends(self) -> tuple[End, End, End, End]:
        """All four."""
        return self.alice, self.bob, self.carol, self.dave

    def run(self) -> None:
        """Carry messages on all wires until none is under way."""
        while self.alices.run() + self.carols.run() + self.daves.run():
            pass

    def send(self, end: End, *given: bytes | tuple[bytes, int]) -> None:
        """Let a device hand over frames, and carry them to their destinations."""
        end.send(*given)
        self.run()

    def send_record(self, wire: Wire, *entries: tuple[bytes, int]) -> None:
        """Let a peer send the hub a record with any frames and segment fields, past the checks of its own switch."""
        self.bob.take(sealed(wire.left.link, frames(*entries)), wire.to_left)
        self.run()

    def arrived(self) -> tuple[list[bytes], list[bytes], list[bytes], list[bytes]]:
        """Return the frames that have arrived at the devices of all four since the last time."""
        found = tuple(end.device.arrived for end in self.ends)
        for end in self.ends:
            end.device.clear()
        return found  # type: ignore[return-value]

    def close(self) -> None:
        for end in self.ends:
            end.close()
