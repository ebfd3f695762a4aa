"""recvmmsg(2), which Python's socket module lacks: reads many datagrams by one call.

Each datagram is scattered to its slot of a batch (wire/datagram_batch.py). The structures are those of 64-bit Linux
(include/linux/socket.h). They are laid out once. Before each call only the fields that the kernel overwrites are set
again: the lengths of names and of ancillary data.

    mmsghdr, 64 bytes    0 name, 8 length of name (u32), 16 iovec, 24 count of iovecs, 32 ancillary, 40 its length,
                         48 flags (u32), 56 length of the datagram (u32)
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from array import array

from vpntun.wire.datagram_batch import ORIGIN_SIZE, SLOTS, DatagramBatch
from vpntun.wire.message import HEADER_SIZE

AVAILABLE = ctypes.sizeof(ctypes.c_void_p) == 8 and os.uname().sysname == "Linux"

MSG_DONTWAIT = 0x40
NAME_SIZE = 28
ANCILLARY_AT = 32
ANCILLARY_SIZE = ORIGIN_SIZE - ANCILLARY_AT
"""Enough for an in6_pktinfo and a traffic class: cmsg(3) aligns each to 8 bytes, as ANCILLARY_AT does."""
_HEADER = struct.Struct("=QIxxxxQQQQIxxxxIxxxx")
_IOVECS = struct.Struct("=QQQQQQ")
_IOVECS_PER_SLOT = 3
_CMSG = struct.Struct("=QII")


class ManyReader:
    """Reader of a socket's datagrams into a batch."""

    def __init__(self, descriptor: int, batch: DatagramBatch) -> None:
        self._descriptor = descriptor
        self.batch = batch
        self._iovecs = bytearray(SLOTS * _IOVECS.size)
        self._messages = bytearray(SLOTS * _HEADER.size)
        headers, pieces = _address_of(batch.headers), _address_of(batch.pieces)
        tails, origins = _address_of(batch.tails), _address_of(batch.origins)
        iovecs = _address_of(self._iovecs)
        for slot in range(SLOTS):
            header, piece = headers + slot * HEADER_SIZE, pieces + HEADER_SIZE + slot * batch.step
            tail = tails + slot * batch.tail
            _IOVECS.pack_into(
                self._iovecs, slot * _IOVECS.size, header, HEADER_SIZE, piece, batch.step, tail, batch.tail
            )
            origin, first = origins + slot * ORIGIN_SIZE, iovecs + slot * _IOVECS.size
            _HEADER.pack_into(
                self._messages,
                slot * _HEADER.size,
                origin,
                NAME_SIZE,
                first,
                _IOVECS_PER_SLOT,
                origin + ANCILLARY_AT,
                ANCILLARY_SIZE,
                0,
                0,
            )
        words = memoryview(self._messages)
        self._name_lengths = words.cast("I")[2 :: _HEADER.size // 4]
        self._ancillary_lengths = words.cast("Q")[5 :: _HEADER.size // 8]
        self._lengths = words.cast("I")[14 :: _HEADER.size // 4]
        self._fresh_name_lengths = memoryview(array("I", [NAME_SIZE] * SLOTS))
        self._fresh_ancillary_lengths = memoryview(array("Q", [ANCILLARY_SIZE] * SLOTS))
        self._first_message = _address_of(self._messages)
        self._recvmmsg = ctypes.CDLL(None).recvmmsg

    def read(self) -> bool:
        """Read waiting datagrams into the free slots; return False if there were none, or an error was reported."""
        first = self.batch.room()
        count = SLOTS - first
        self._name_lengths[first:] = self._fresh_name_lengths[:count]
        self._ancillary_lengths[first:] = self._fresh_ancillary_lengths[:count]
        where = ctypes.c_void_p(self._first_message + first * _HEADER.size)
        read: int = self._recvmmsg(self._descriptor, where, count, MSG_DONTWAIT, None)
        if read <= 0:  # nothing waits, or the kernel reports an ICMP error about an earlier datagram
            return False
        self.batch.received(self._lengths[first : first + read].tolist())
        return True


def ancillary_of(origin: bytes) -> list[tuple[int, int, bytes]]:
    """Return the ancillary data of a datagram with this origin: (level, type, data) of each control message."""
    found: list[tuple[int, int, bytes]] = []
    at = ANCILLARY_AT
    while at + _CMSG.size <= ORIGIN_SIZE:
        length, level, kind = _CMSG.unpack_from(origin, at)
        if length < _CMSG.size or at + length > ORIGIN_SIZE:
            break
        found.append((level, kind, origin[at + _CMSG.size : at + length]))
        at += length + 7 & ~7
    return found


def _address_of(buffer: bytearray | mmap.mmap) -> int:
    """Return the buffer's address. The buffer must exist and keep its size for as long as the address is used."""
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))
