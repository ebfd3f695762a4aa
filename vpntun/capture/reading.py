"""Reader of a capture that pcapng.py has written, as its bytes arrive.

It checks every length, and reads what pcapng.py writes and no more: other files may have other byte orders, or times in
other units. Blocks and options that it does not know are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from vpntun.capture.pcapng import (
    AROUND_A_BLOCK,
    BLOCK_HEAD,
    BLOCK_TAIL,
    BYTE_ORDER,
    COUNTER,
    DIRECTION,
    FLAGS,
    INTERFACE,
    INTERFACE_BODY,
    LINKTYPE_ETHERNET,
    LOST,
    LOST_BEFORE,
    NAME,
    OPTION,
    OUTBOUND,
    PACKET,
    PACKET_BODY,
    SECTION,
    SECTION_BODY,
    STATISTICS,
    STATISTICS_BODY,
)
from vpntun.errors import BadPacket

LARGEST_BLOCK = 1 << 20


class CapturedPacket(NamedTuple):
    """A packet of a capture. `at`: nanoseconds since 1970. `length`: its own; of its bytes `data` were written.

    `is_frame`: it is an Ethernet frame, not an IP packet.
    """

    peer: str
    at: int
    outbound: bool
    data: bytes
    length: int
    is_frame: bool = False


class CaptureReader:
    """Reader of one capture. `packets`: how many were read. `lost`: how many were lost, as far as is known yet."""

    def __init__(self) -> None:
        self.packets = 0
        self._waiting = bytearray()
        self._peers: list[str] = []
        self._link_types: list[int] = []
        self._lost: list[int] = []
        self._has_begun = False

    @property
    def lost(self) -> int:
        """How many packets were lost, because they were not read in time."""
        return sum(self._lost)

    def take(self, data: bytes) -> Iterator[CapturedPacket]:
        """Take bytes that have arrived, and yield the packets that they complete. Raises BadPacket("bad capture")."""
        waiting = self._waiting
        waiting += data
        at = 0
        try:
            while len(waiting) - at >= BLOCK_HEAD.size:
                kind, size = BLOCK_HEAD.unpack_from(waiting, at)
                if size % 4 or not AROUND_A_BLOCK <= size <= LARGEST_BLOCK or (kind != SECTION and not self._has_begun):
                    raise BadPacket("bad capture")
                if len(waiting) - at < size:
                    break
                block = bytes(waiting[at : at + size])
                at += size
                if (packet := self._read(kind, block)) is not None:
                    yield packet
        finally:
            del waiting[:at]

    def _read(self, kind: int, block: bytes) -> CapturedPacket | None:
        if block[-BLOCK_TAIL.size :] != BLOCK_TAIL.pack(len(block)):
            raise BadPacket("bad capture")
        body = block[BLOCK_HEAD.size : -BLOCK_TAIL.size]
        if kind == PACKET:
            return self._packet(body)
        if kind == INTERFACE:
            _need(body, INTERFACE_BODY.size)
            name = dict(_options(body[INTERFACE_BODY.size :])).get(NAME, b"")
            self._peers.append(name.decode(errors="replace"))
            self._link_types.append(INTERFACE_BODY.unpack_from(body)[0])
            self._lost.append(0)
        elif kind == STATISTICS:
            _need(body, STATISTICS_BODY.size)
            number = self._known(STATISTICS_BODY.unpack_from(body)[0])
            self._lost[number] = _counter(dict(_options(body[STATISTICS_BODY.size :])).get(LOST), self._lost[number])
        elif kind == SECTION:
            _need(body, SECTION_BODY.size)
            if self._has_begun or SECTION_BODY.unpack_from(body)[0] != BYTE_ORDER:
                raise BadPacket("bad capture")
            self._has_begun = True
        return None

    def _packet(self, body: bytes) -> CapturedPacket:
        _need(body, PACKET_BODY.size)
        number, high, low, size, length = PACKET_BODY.unpack_from(body)
        number = self._known(number)
        end = PACKET_BODY.size + size
        _need(body, end)
        options = dict(_options(body[end + (-size & 3) :]))
        self._lost[number] += _counter(options.get(LOST_BEFORE), 0)
        self.packets += 1
        direction = int.from_bytes(options.get(FLAGS, b""), "little") & DIRECTION
        data = body[PACKET_BODY.size : end]
        is_frame = self._link_types[number] == LINKTYPE_ETHERNET
        return CapturedPacket(self._peers[number], high << 32 | low, direction == OUTBOUND, data, length, is_frame)

    def _known(self, number: int) -> int:
        if number >= len(self._peers):
            raise BadPacket("bad capture")
        return number


def _need(body: bytes, size: int) -> None:
    if len(body) < size:
        raise BadPacket("bad capture")


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the options of a block. Raises BadPacket."""
    at = 0
    while at + OPTION.size <= len(data):
        code, size = OPTION.unpack_from(data, at)
        at += OPTION.size
        if not code:
            return
        _need(data, at + size)
        yield code, data[at : at + size]
        at += size + (-size & 3)


def _counter(value: bytes | None, otherwise: int) -> int:
    return COUNTER.unpack(value)[0] if value is not None and len(value) == COUNTER.size else otherwise
