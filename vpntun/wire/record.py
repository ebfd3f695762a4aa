"""Records between two vpntuns, such as BUNDLE and REPORT: layout, parsing and packing.

The first byte of a data message's plaintext tells what the plaintext is:

    0x40 and above   an IP packet, as in WireGuard
    0x01-0x3f        a record; kinds that are not in the next table are dropped
    0x00             invalid

Integers are big endian. Each field is preceded by its offset in bytes; the kind is at offset 0.

    1  HELLO    1 version u8 (1); 2 flags u8: bit 0 "I have seen yours", 1 "I answer REQUESTs", 2 "my device is a TAP";
                3 takes u8: bit 0 checksum offload, 1 TSO4, 2 TSO6, 3 USO4, 4 USO6, 5 bursts, 7 PARITY; 4 largest record
                u16, in bytes of plaintext. At least 6 bytes; unknown bits and any bytes that follow are ignored. Bit 6
                of takes is retired and never set.
    2  BUNDLE   from 1 on, 1 to 256 times: length u16, segment u16, packet of that length (20 or more). segment: bits
                0-13 gso_size (0: an ordinary packet), bit 14 zero, bit 15 the transport checksum is unfinished. The
                bytes behind a packet are padding if there are no more than 4 or they begin with a length of zero.
    3  REPORT   1 highest counter u64; 9 messages opened u64; 17 datagrams seen u64; 25 records failed u64; 33 busy u8:
                the share of the time that this end did not sleep, in 255ths; 0 if it is missing. At least 33 bytes;
                any that follow are ignored. All of this session: highest is the highest counter opened by the deadline
                before this one, at least 50 ms ago; opened and seen are totals up to that counter; failed is the total
                until now (see core/records/receive_stats.py).
    4  PROBE    1 token u64, zeros up to the size that is tested. At least 9 bytes.
    5  ECHO     1 token u64, the probe's; 9 size u16: the size of the probe's plaintext in bytes. At least 11 bytes;
                any that follow are ignored.
    6  PARITY   1 first counter u64; 9 count u8 (2 to 64); 10 lengths u16; 12 sum. It covers `count` BUNDLEs or
                FRAMES with consecutive counters from the first on, each of which was sent in one datagram. lengths is
                the XOR of the lengths of their plaintexts; sum is the XOR of the plaintexts, as long as the longest
                (see core/records/parity.py).
    7  REQUEST  wire/inside/request.py has the fields
    8  ANSWER   wire/inside/request.py has the fields
    9  LOAD     wire/inside/load.py has the fields
   10  FRAMES   a BUNDLE of Ethernet frames (14 bytes or more each) in place of IP packets, between two TAP devices

Everything here handles untrusted bytes: they are authenticated, but the peer may be hostile. The parsers raise only
BadPacket. Packets in a bundle are neither checked nor copied here: see `length_of` and `header_for`.

Interface:
    Hello, Report, Probe, Echo, Parity   .parse(plaintext), .pack()
    BUNDLE_START, ENTRY_SIZE        offset of the first entry; bytes that an entry adds to its packet
    begin_bundle(record, kind) -> int               offset of the first entry; kind: BUNDLE or FRAMES
    put_entry(record, at, length, segment) -> int   for a packet that is already at `at + ENTRY_SIZE`
    append(record, at, packet, segment) -> int      copies the packet
    packets_of(record) -> Iterator[(packet, segment)]
    needs_of(packet, segment, lead) -> int          the TAKES_* flags that the peer must have announced
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from vpntun.errors import BadPacket
from vpntun.wire.checksum import TCP
from vpntun.wire.message import DATA_OVERHEAD, LARGEST, Buffer
from vpntun.wire.transport_header import shape_of
from vpntun.wire.vnet import SEGMENT_SIZE, UNFINISHED

HELLO, BUNDLE, REPORT, PROBE, ECHO, PARITY, REQUEST, ANSWER, LOAD, FRAMES = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
LAST_KIND = 0x3F
LARGEST_RECORD = LARGEST - DATA_OVERHEAD

VERSION = 1
TAKES_CHECKSUM, TAKES_TSO4, TAKES_TSO6, TAKES_USO4, TAKES_USO6, TAKES_BURSTS = 1, 2, 4, 8, 16, 32
TAKES_PARITY = 128

TAKES_ALL = TAKES_CHECKSUM | TAKES_TSO4 | TAKES_TSO6 | TAKES_USO4 | TAKES_USO6 | TAKES_BURSTS
"""Every flag that a packet may need. No packet needs TAKES_PARITY."""

MOST_PACKETS = 256
"""The limit on packets in a bundle. A receiver needs 2 ms for 256. Without the limit, a bundle of 65 kB in packets of
20 bytes would block its event loop for 15 ms."""
SMALLEST_PACKET, SMALLEST_FRAME = 20, 14
"""Size in bytes of an IPv4 header, and of an Ethernet header."""
BUNDLE_START = 1
ENTRY = struct.Struct("!HH")
ENTRY_SIZE = 4
LARGEST_ENTRY = 0xFFFF
"""Bytes of the longest packet that an entry can have."""

_SMALLEST = {BUNDLE: SMALLEST_PACKET, FRAMES: SMALLEST_FRAME}
_HELLO = struct.Struct("!BBBBH")
_REPORT = struct.Struct("!BQQQQ")
_BUSY = _REPORT.size
_PROBE = struct.Struct("!BQ")
_ECHO = struct.Struct("!BQH")
_PARITY = struct.Struct("!BQBH")

PARITY_SIZE = _PARITY.size
"""Size in bytes of a PARITY without its sum."""
MOST_IN_GROUP = 64

SMALLEST_PROBE = _PROBE.size

_SEEN_YOURS, _ANSWERS, _IS_TAP = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Hello:
    """The sender's abilities: `takes` combines TAKES_* flags, `largest` is the longest record, in bytes of plaintext.

    `seen_yours` tells the receiver that its own HELLO has arrived; `answers`, that the sender answers REQUESTs;
    `is_tap`, that the sender's device carries Ethernet frames. An end that predates TAP devices never sets that flag.
    """

    seen_yours: bool
    takes: int
    largest: int = LARGEST_RECORD
    version: int = VERSION
    answers: bool = False
    is_tap: bool = False

    @classmethod
    def parse(cls, plaintext: Buffer) -> Hello:
        """Parse a HELLO. Raises BadPacket("bad hello")."""
        if len(plaintext) < _HELLO.size or plaintext[0] != HELLO:
            raise BadPacket("bad hello")
        _, version, flags, takes, largest = _HELLO.unpack_from(plaintext)
        if not version:
            raise BadPacket("bad hello")
        return cls(bool(flags & _SEEN_YOURS), takes, largest, version, bool(flags & _ANSWERS), bool(flags & _IS_TAP))

    def pack(self) -> bytes:
        """The record's 6 bytes."""
        flags = (
            (_SEEN_YOURS if self.seen_yours else 0)
            | (_ANSWERS if self.answers else 0)
            | (_IS_TAP if self.is_tap else 0)
        )
        return _HELLO.pack(HELLO, self.version, flags, self.takes, self.largest)


@dataclass(frozen=True, slots=True)
class Report:
    """The messages of this session that have arrived, out of all those sent up to the counter `highest`.

    `highest` is not the newest counter: it was the highest one opened when the last REPORT was due, at least 50 ms ago,
    so late messages have had time to arrive. `opened` counts messages of every kind up to it. `datagrams` counts the
    datagrams in which these messages and unfinished records arrived. `failed` counts every record given up until now.
    `busy` is the share of the recent time, 0 to 1, that the receiver did not sleep.
    """

    highest: int
    opened: int
    datagrams: int
    failed: int
    busy: float = 0.0

    @classmethod
    def parse(cls, plaintext: Buffer) -> Report:
        """Parse a REPORT. Raises BadPacket("bad report")."""
        if len(plaintext) < _REPORT.size or plaintext[0] != REPORT:
            raise BadPacket("bad report")
        busy = plaintext[_BUSY] / 255 if len(plaintext) > _BUSY else 0.0
        highest, opened, datagrams, failed = _REPORT.unpack_from(plaintext)[1:]
        return cls(highest, opened, datagrams, failed, busy)

    def pack(self) -> bytes:
        """The record's 34 bytes."""
        totals = _REPORT.pack(REPORT, self.highest, self.opened, self.datagrams, self.failed)
        return totals + bytes((round(255 * self.busy),))


@dataclass(frozen=True, slots=True)
class Probe:
    """A request for an echo, with `size` bytes of plaintext (at least 9); only its sender interprets `token`."""

    token: int
    size: int = SMALLEST_PROBE

    @classmethod
    def parse(cls, plaintext: Buffer) -> Probe:
        """Parse a PROBE. Raises BadPacket("bad probe")."""
        if len(plaintext) < _PROBE.size or plaintext[0] != PROBE:
            raise BadPacket("bad probe")
        return cls(_PROBE.unpack_from(plaintext)[1], len(plaintext))

    def pack(self) -> bytes:
        """The record's `size` bytes."""
        return _PROBE.pack(PROBE, self.token).ljust(self.size, b"\0")


@dataclass(frozen=True, slots=True)
class Echo:
    """The answer to a probe: the probe's token, and the size with which it arrived."""

    token: int
    size: int

    @classmethod
    def parse(cls, plaintext: Buffer) -> Echo:
        """Parse an ECHO. Raises BadPacket("bad echo")."""
        if len(plaintext) < _ECHO.size or plaintext[0] != ECHO:
            raise BadPacket("bad echo")
        return cls(*_ECHO.unpack_from(plaintext)[1:])

    def pack(self) -> bytes:
        """The record's 11 bytes."""
        return _ECHO.pack(ECHO, self.token, self.size)


@dataclass(frozen=True, slots=True)
class Parity:
    """The XOR of `count` records with consecutive counters from `first` on: `lengths` of their lengths, `sum` of bytes.

    `sum` is as long as the longest record; shorter ones are treated as if zeros followed them.
    """

    first: int
    count: int
    lengths: int
    sum: bytes

    @classmethod
    def parse(cls, plaintext: Buffer) -> Parity:
        """Parse a PARITY. Raises BadPacket("bad parity")."""
        if len(plaintext) <= PARITY_SIZE or plaintext[0] != PARITY:
            raise BadPacket("bad parity")
        _, first, count, lengths = _PARITY.unpack_from(plaintext)
        if not 2 <= count <= MOST_IN_GROUP:
            raise BadPacket("bad parity")
        return cls(first, count, lengths, bytes(plaintext[PARITY_SIZE:]))

    def pack(self) -> bytes:
        """The record's bytes: 12 more than the sum's."""
        return _PARITY.pack(PARITY, self.first, self.count, self.lengths) + self.sum


def needs_of(packet: Buffer, segment: int, lead: int = 0) -> int:
    """Return the TAKES_* flags that the peer must have announced before this end may send it the packet.

    `lead`: bytes before the IP header. Raises BadPacket as `shape_of` does.
    """
    if not segment & UNFINISHED:
        return 0
    if not segment & SEGMENT_SIZE:
        return TAKES_CHECKSUM
    if lead:
        packet = packet[lead:]
    protocol, _, _ = shape_of(packet, len(packet))
    if packet[0] < 0x50:
        return TAKES_CHECKSUM | (TAKES_TSO4 if protocol == TCP else TAKES_USO4)
    return TAKES_CHECKSUM | (TAKES_TSO6 if protocol == TCP else TAKES_USO6)


def begin_bundle(record: bytearray | memoryview, kind: int = BUNDLE) -> int:
    """Make `record` a bundle (BUNDLE or FRAMES) without entries; return the offset of the first entry."""
    record[0] = kind
    return BUNDLE_START


def put_entry(record: bytearray | memoryview, at: int, length: int, segment: int) -> int:
    """Add an entry for the packet already at `at + ENTRY_SIZE`; return the next entry's offset, the record's end."""
    ENTRY.pack_into(record, at, length, segment)
    return at + ENTRY_SIZE + length


def append(record: bytearray | memoryview, at: int, packet: Buffer, segment: int) -> int:
    """Copy a packet into the entry at `at`; return the next entry's offset. The caller has checked that it fits."""
    end = put_entry(record, at, len(packet), segment)
    record[at + ENTRY_SIZE : end] = packet
    return end


def packets_of(record: memoryview) -> Iterator[tuple[memoryview, int]]:
    """Yield each packet of a bundle, in place, with its segment field, up to the padding. Both are untrusted.

    The packets of FRAMES are frames. Raises BadPacket("bad bundle") on reaching an entry that does not fit, is shorter
    than an IPv4 header (in FRAMES: an Ethernet header), or is the 257th; the entries before it have been yielded by
    then.
    """
    size = len(record)
    if size <= BUNDLE_START or record[0] not in _SMALLEST:
        raise BadPacket("bad bundle")
    smallest = _SMALLEST[record[0]]
    at = BUNDLE_START
    left = MOST_PACKETS
    while at + ENTRY_SIZE < size:
        begin = at + ENTRY_SIZE
        length, segment = ENTRY.unpack_from(record, at)
        if not length and at > BUNDLE_START:
            return
        at = begin + length
        if length < smallest or at > size or not left:
            raise BadPacket("bad bundle")
        yield record[begin:at], segment
        left -= 1
    if at == BUNDLE_START:
        raise BadPacket("bad bundle")
