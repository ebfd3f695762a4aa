"""pcapng: the blocks of a capture, written and without I/O (draft-ietf-opsawg-pcapng).

    section header    once, at the start
    interface         one for each peer: its name is the peer's. All have the same snapshot length, as libpcap demands
    packet            an enhanced packet block: an IP packet (LINKTYPE_RAW) or an Ethernet frame (LINKTYPE_ETHERNET), as
                      its interface says; its direction, and how many of the same interface were lost before it
    statistics        one for each interface, at the end: how many packets there were, and how many of them were lost

Everything is in little-endian order, and times are nanoseconds since 1970.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from vpntun.wire.message import Buffer

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
BYTE_ORDER, VERSION, LENGTH_UNKNOWN = 0x1A2B3C4D, (1, 0), -1
LINKTYPE_ETHERNET, LINKTYPE_RAW = 1, 101

SECTION_APPLICATION = 4
NAME, DESCRIPTION, RESOLUTION = 2, 3, 9
"""Options of an interface. The application's and the interface's names are UTF-8."""
FLAGS, LOST_BEFORE = 2, 4
"""Options of a packet."""
STARTED, ENDED, SEEN, LOST = 2, 3, 4, 5
"""Options of statistics: two times and two counters."""
INBOUND, OUTBOUND, DIRECTION = 1, 2, 3
"""Directions of a packet, and the bits of FLAGS that hold them."""

NANOSECONDS = 9
LONGEST_TEXT = 1024
"""Bytes of a name. Longer ones are cut."""

SECTION_BODY = struct.Struct("<IHHq")
INTERFACE_BODY = struct.Struct("<HHI")
PACKET_BODY = struct.Struct("<IIIII")
STATISTICS_BODY = struct.Struct("<III")
BLOCK_HEAD, BLOCK_TAIL = struct.Struct("<II"), struct.Struct("<I")
OPTION = struct.Struct("<HH")
COUNTER, HALVES = struct.Struct("<Q"), struct.Struct("<II")
_WITH_FLAGS = struct.Struct("<HHII")
_WITH_FLAGS_AND_LOSS = struct.Struct("<HHIHHQI")
_PACKET_START = struct.Struct("<IIIIIII")

AROUND_A_BLOCK = BLOCK_HEAD.size + BLOCK_TAIL.size
MOST_AROUND_A_PACKET = _PACKET_START.size + 3 + _WITH_FLAGS_AND_LOSS.size + BLOCK_TAIL.size
SIZE_OF_STATISTICS = AROUND_A_BLOCK + STATISTICS_BODY.size + 4 * (OPTION.size + 8) + OPTION.size


def section(application: str) -> bytes:
    """Return the block that begins a capture."""
    body = SECTION_BODY.pack(BYTE_ORDER, *VERSION, LENGTH_UNKNOWN)
    return _block(SECTION, body, [(SECTION_APPLICATION, _text(application))])


def interface(name: str, description: str, snaplen: int, link_type: int = LINKTYPE_RAW) -> bytes:
    """Return the block of an interface. `snaplen`: the most bytes of a packet that are written."""
    options = [(NAME, _text(name)), (DESCRIPTION, _text(description)), (RESOLUTION, bytes((NANOSECONDS,)))]
    return _block(INTERFACE, INTERFACE_BODY.pack(link_type, 0, snaplen), options)


def packet(interface: int, at: int, data: Buffer, length: int, direction: int, lost: int = 0) -> bytes:
    """Return the block of a packet of `length` bytes, of which `data` are written.

    `interface`: its number, in the order of their blocks. `lost`: how many of its packets were lost since the last one.
    """
    size = len(data)
    if lost:
        options = _WITH_FLAGS_AND_LOSS.pack(FLAGS, 4, direction, LOST_BEFORE, 8, lost, 0)
    else:
        options = _WITH_FLAGS.pack(FLAGS, 4, direction, 0)
    padding = -size & 3
    whole = _PACKET_START.size + size + padding + len(options) + BLOCK_TAIL.size
    start = _PACKET_START.pack(PACKET, whole, interface, at >> 32, at & 0xFFFFFFFF, size, length)
    return b"".join((start, data, bytes(padding), options, BLOCK_TAIL.pack(whole)))


def statistics(interface: int, started: int, ended: int, seen: int, lost: int) -> bytes:
    """Return the block of an interface's statistics. `lost`: of the packets seen, those that were not written."""
    options = [
        (STARTED, _halves(started)),
        (ENDED, _halves(ended)),
        (SEEN, COUNTER.pack(seen)),
        (LOST, COUNTER.pack(lost)),
    ]
    return _block(STATISTICS, STATISTICS_BODY.pack(interface, ended >> 32, ended & 0xFFFFFFFF), options)


def _block(kind: int, body: bytes, options: Iterable[tuple[int, bytes]]) -> bytes:
    parts = [body]
    for code, value in options:
        parts += [OPTION.pack(code, len(value)), value, bytes(-len(value) & 3)]
    parts.append(OPTION.pack(0, 0))
    whole = AROUND_A_BLOCK + sum(map(len, parts))
    return b"".join((BLOCK_HEAD.pack(kind, whole), *parts, BLOCK_TAIL.pack(whole)))


def _text(text: str) -> bytes:
    return text.encode(errors="replace")[:LONGEST_TEXT]


def _halves(at: int) -> bytes:
    """Write a time as options have it: its upper half first."""
    return HALVES.pack(at >> 32, at & 0xFFFFFFFF)
