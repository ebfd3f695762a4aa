"""Receiver of datagrams from a UDP socket, with as few system calls as the kernel allows.

    coalesced    UDP_GRO returns many datagrams by one read. The next read is expected to be like the last. If that was
                 a genuine burst, the next is scattered straight to where its parts belong (wire/burst.py); else it is
                 read into a flat buffer
    batched      recvmmsg reads many datagrams by one call (wire/datagram_batch.py). This begins after 16 records in a
                 row whose pieces were not coalesced. It ends after a minute; 16 such records of another size replace
                 the batch by one for that size

Both ways receive every datagram of every sender in full; they differ only in cost. Only records that opened choose
between them, so strangers cannot. A new batch takes one to three milliseconds to lay out, which happens at most ten
times a second.
"""

from __future__ import annotations

import functools
import math
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from vpntun.carriers.ancillary import IP_PKTINFO, IPV6_RECVPKTINFO, SOL_UDP, UDP_GRO, Ancillary, received
from vpntun.carriers.base import Arrival
from vpntun.carriers.mmsg import AVAILABLE, ManyReader, ancillary_of
from vpntun.core.endpoint import Endpoint
from vpntun.core.records.pathmtu import BASE
from vpntun.core.single_read import SingleReadHint
from vpntun.runtime.log import log
from vpntun.runtime.loop import Loop
from vpntun.types import SocketAddress
from vpntun.wire.burst import BurstReader
from vpntun.wire.datagram_batch import DatagramBatch
from vpntun.wire.message import LARGEST

ANCILLARY_SIZE = 128
MOST_PER_TURN = 64
MOST_MISSES = 4
MOST_KNOWN_ORIGINS = 1024
SCATTERED_RECORDS = 16
SECONDS_OF_A_BATCH = 60.0
SECONDS_BETWEEN_BATCHES = 0.1
LARGEST_IN_BATCH = 9216
"""Size in bytes of a jumbo frame's datagram. Slots for longer ones would take much memory."""


class Receiver:
    """Receiver of one socket. `endpoint` makes an endpoint from an address and the ancillary data to answer with."""

    def __init__(
        self,
        bound: socket.socket,
        loop: Loop,
        endpoint: Callable[[SocketAddress, Ancillary], Endpoint],
        *,
        answers_from_where_asked: bool,
    ) -> None:
        self._socket = bound
        self._loop = loop
        self._endpoint = endpoint
        self._buffer = memoryview(bytearray(LARGEST))
        self._flat = [self._buffer]
        self._bursts = BurstReader(self._buffer)
        self._misses = MOST_MISSES
        self._many: ManyReader | None = None
        self._begun_at = -math.inf
        self._scattered = 0  # records completed by a piece that was read alone, since a genuine burst was read as one
        self._scattered_size = 0
        self._in_turn = 0  # reads in this turn of the loop before the last
        self._single_read = SingleReadHint()
        self._address: SocketAddress | None = None  # these five: metadata of the last read, and the results
        self._ancillary: list[tuple[int, int, bytes]] = []
        self._segment = 0
        self._source: Endpoint
        self._ecn = 0
        self._coalesce(True)
        if bound.family == socket.AF_INET:
            level, tos, local_address = socket.IPPROTO_IP, socket.IP_RECVTOS, IP_PKTINFO
        else:
            level, tos, local_address = socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, IPV6_RECVPKTINFO
        bound.setsockopt(level, tos, 1)
        self._local_address = level, local_address
        if answers_from_where_asked:
            self.answer_from_where_asked(True)

    def answer_from_where_asked(self, wanted: bool) -> None:
        """Set whether endpoints answer from the address to which the datagram was sent."""
        self._socket.setsockopt(*self._local_address, int(wanted))

    def receive(self) -> Iterable[Arrival]:
        """Yield or return waiting datagrams, by a bounded number of reads. Each arrival is valid until the next."""
        if self._scattered >= SCATTERED_RECORDS or self._many is not None:
            self._choose_way()
        if self._many is not None:
            return self._receive_batch(self._many)
        if self._single_read.expected(self._loop.turns) and (arrival := self._read()) is not None:
            return (arrival,)
        return self._receive_coalesced()

    def _receive_coalesced(self) -> Iterator[Arrival]:
        for number in range(MOST_PER_TURN):
            arrival = self._read()
            if arrival is None:
                self._single_read.drained(number)
                return
            self._in_turn = number
            yield arrival

    def _read(self) -> Arrival | None:
        burst_expected = self._misses < MOST_MISSES
        try:
            read, ancillary, _, address = self._socket.recvmsg_into(
                self._bursts.buffers if burst_expected else self._flat, ANCILLARY_SIZE
            )
        except OSError:  # nothing waits, or the kernel reports an ICMP error about an earlier datagram
            return None
        if address == self._address and ancillary == self._ancillary:
            segment, source, ecn = self._segment, self._source, self._ecn
        else:
            segment, local, ecn = received(ancillary)
            source = self._endpoint(address, local)
            self._address, self._ancillary = address, ancillary
            self._segment, self._source, self._ecn = segment, source, ecn
        if not burst_expected:
            return self._buffer[:read], segment, 1, source, ecn
        if length := self._bursts.message(read, segment):
            self._misses = 0
            return self._buffer[:length], 0, self._bursts.datagrams, source, ecn
        self._misses += 1
        return self._bursts.flat(read), segment, 1, source, ecn

    def _receive_batch(self, many: ManyReader) -> Iterable[Arrival]:
        """Return the datagrams that one call reads. If more wait, the socket stays readable."""
        if not many.read():
            return ()
        return many.batch.arrivals(self._read_origin)

    def _read_origin(self, origin: bytes) -> tuple[Endpoint, int]:
        address, local, ecn = _read_origin(origin)
        return self._endpoint(address, local), ecn

    def expect_bursts(self, size: int) -> None:
        """Prepare for more bursts: one in datagrams of `size` bytes was read as one, and opened.

        vpntun never cuts records into datagrams shorter than BASE, so buffers are not laid out for shorter ones.
        """
        self._scattered = 0
        if size >= BASE:
            self._bursts.expect(size)
            self._misses = 0

    def note_whole_message(self, size: int, datagrams: int) -> None:
        """Note that a message of `size` bytes, read in this number of datagrams, opened."""
        if datagrams > 1:
            self._scattered = 0
        elif self._many is None and self._in_turn > 1:  # several datagrams waited and were not coalesced
            self.expect_pieces(size)

    def expect_pieces(self, size: int) -> None:
        """Count a record in datagrams of `size` bytes that was completed by a piece read alone."""
        known = self._many.batch.size if self._many is not None else 0
        if size != known and BASE <= size <= LARGEST_IN_BATCH and AVAILABLE:
            self._scattered += 1
            self._scattered_size = size

    def forget_last(self) -> None:
        """Ask for the endpoint of the next datagram, even if that comes from the same sender as the last one."""
        self._address = None

    def _choose_way(self) -> None:
        """Begin a batch, or one for another size; or after a minute try again whether the kernel coalesces."""
        age = self._loop.now - self._begun_at
        if self._scattered >= SCATTERED_RECORDS and age >= SECONDS_BETWEEN_BATCHES:
            log.debug("datagrams arrive here uncoalesced: reading many of them by one call")
            self._begun_at = self._loop.now
            with suppress(OSError, MemoryError):  # without memory for the slots, go on without a batch
                self._many = ManyReader(self._socket.fileno(), DatagramBatch(self._scattered_size))
        elif self._many is not None and age >= SECONDS_OF_A_BATCH:
            self._many = None
        else:
            return
        self._scattered = 0
        self._coalesce(self._many is None)

    def _coalesce(self, wanted: bool) -> None:
        with suppress(OSError):  # kernels before 5.0 lack UDP_GRO and return one datagram a read
            self._socket.setsockopt(SOL_UDP, UDP_GRO, int(wanted))


@functools.lru_cache(maxsize=MOST_KNOWN_ORIGINS)
def _read_origin(origin: bytes) -> tuple[SocketAddress, Ancillary, int]:
    """Return the sender's address, the address to answer from, and ECN."""
    _, local, ecn = received(ancillary_of(origin))
    return _address_from(origin), local, ecn


def _address_from(name: bytes) -> SocketAddress:
    """Return the address in a sockaddr_in or sockaddr_in6, spelled as the socket module spells it."""
    family, port = struct.unpack_from("=H", name)[0], int.from_bytes(name[2:4], "big")
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port
    flow, scope = int.from_bytes(name[4:8], "big"), int.from_bytes(name[24:28], sys.byteorder)
    return socket.inet_ntop(socket.AF_INET6, name[8:24]), port, flow, scope
