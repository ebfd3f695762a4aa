"""What comes in on a UDP socket, as few reads as the kernel allows.

    coalesced    UDP_GRO gives many datagrams by one read. The next is expected to be like the last: where that was a
                 genuine burst it is scattered straight into its place (wire/burst.py), else it is read as it comes
    one by one   where 64 pieces of bursts came each by itself, nothing on the way coalesces: recvmmsg gives many by one
                 call all the same (wire/train.py). For a minute, and as long as their size stays; then it is tried anew

Both ways take what any sender sends; they only differ in what it costs.
"""

from __future__ import annotations

import functools
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from vpntun.host.log import log
from vpntun.host.lone import Lone
from vpntun.host.loop import Loop
from vpntun.host.mmsg import AVAILABLE, ManyReader
from vpntun.host.resolver import SocketAddress
from vpntun.wire.burst import BurstReader
from vpntun.wire.message import HEADER_SIZE, LARGEST
from vpntun.wire.train import Train

if TYPE_CHECKING:
    from vpntun.host.udp import UdpEndpoint

SOL_UDP = 17
UDP_GRO = 104
IP_PKTINFO = 8
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
ANCILLARY_SIZE = 128
MOST_PER_TURN = 64
MOST_TRAINS_PER_TURN = 8
MOST_MISSES = 4
MOST_KNOWN_NAMES = 1024
PIECES_IN_A_ROW = 64
TRAIN_TIME = 60.0
LARGEST_IN_TRAIN = 9216
"""A jumbo frame's datagram. A stranger may send longer ones, and room is not laid out by a stranger's length."""

Ancillary = tuple[tuple[int, int, bytes], ...]


Arrival: TypeAlias = "tuple[memoryview, int, int, UdpEndpoint]"
"""What one read brought: its bytes, a segment, in how many datagrams they came, and from whom.

One message, or, where the segment is not 0, datagrams of that size. The bytes are valid until the next read.
"""


class Receiver:
    """Receives from one socket. `endpoint` makes an endpoint of an address and the ancillary data to answer with."""

    def __init__(
        self,
        bound: socket.socket,
        loop: Loop,
        endpoint: Callable[[SocketAddress, Ancillary], UdpEndpoint],
        *,
        answers_from_where_asked: bool,
    ) -> None:
        self._socket = bound
        self._loop = loop
        self._endpoint = endpoint
        self._answers_from_where_asked = answers_from_where_asked
        self._buffer = memoryview(bytearray(LARGEST))
        self._flat = [self._buffer]
        self._bursts = BurstReader(self._buffer)
        self._misses = MOST_MISSES
        self._many: ManyReader | None = None
        self._train_until = 0.0
        self._pieces = 0
        self._lone = Lone()
        self._address: SocketAddress | None = None  # what the last read came with, and what was made of it
        self._ancillary: list[tuple[int, int, bytes]] = []
        self._segment = 0
        self._source: UdpEndpoint
        self._coalesce(True)
        if answers_from_where_asked:
            if bound.family == socket.AF_INET:
                bound.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            else:
                bound.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)

    def receive(self) -> Iterable[Arrival]:
        """What waits, a bounded number of reads; each is valid until the next."""
        if self._many is not None:
            return self._receive_train(self._many)
        if self._lone.expected(self._loop.turns) and (arrival := self._read()) is not None:
            return (arrival,)
        return self._receive_coalesced()

    def _receive_coalesced(self) -> Iterator[Arrival]:
        for number in range(MOST_PER_TURN):
            arrival = self._read()
            if arrival is None:
                self._lone.drained(number)
                return
            yield arrival

    def _read(self) -> Arrival | None:
        foreseen = self._misses < MOST_MISSES
        try:
            read, ancillary, _, address = self._socket.recvmsg_into(
                self._bursts.buffers if foreseen else self._flat, ANCILLARY_SIZE
            )
        except OSError:  # nothing waits, or an ICMP error of an earlier datagram was reported here
            return None
        if address == self._address and ancillary == self._ancillary:
            segment, source = self._segment, self._source
        else:
            segment, local = _read_ancillary(ancillary) if ancillary else (0, ())
            source = self._endpoint(address, local)
            self._address, self._ancillary, self._segment, self._source = address, ancillary, segment, source
        self._pieces = self._pieces + 1 if not segment and read > HEADER_SIZE and self._buffer[2] else 0
        if self._pieces >= PIECES_IN_A_ROW and AVAILABLE:
            self._begin_train(read)
        if not foreseen:
            return self._buffer[:read], segment, 1, source
        if length := self._bursts.message(read, segment):
            self._misses = 0
            return self._buffer[:length], 0, -(-read // segment), source
        self._misses += 1
        return self._bursts.flat(read), segment, 1, source

    def _receive_train(self, many: ManyReader) -> Iterator[Arrival]:
        for _ in range(MOST_TRAINS_PER_TURN):
            if not many.read():
                break
            local = _read_ancillary(many.ancillary())[1] if self._answers_from_where_asked else ()
            for message, datagrams, name in many.train.arrivals():
                is_piece = datagrams == 1 and len(message) > HEADER_SIZE and message[2]
                self._pieces = self._pieces + 1 if is_piece else 0
                yield message, 0, datagrams, self._endpoint(_address_from(name), local)
            if many.cut_short:
                self._pieces = PIECES_IN_A_ROW
        if self._pieces >= PIECES_IN_A_ROW or self._loop.now >= self._train_until:
            self._end_train()

    def _begin_train(self, size: int) -> None:
        """Datagrams of bursts come one by one: read many by a call, beginning with one that has their full size."""
        is_last = self._buffer[1] == self._buffer[2]
        if is_last or size > LARGEST_IN_TRAIN:
            return
        log.debug("nothing coalesces datagrams on the way here: reading many by one call")
        self._many = ManyReader(self._socket.fileno(), Train(size))
        self._train_until = self._loop.now + TRAIN_TIME
        self._pieces = 0
        self._coalesce(False)

    def _end_train(self) -> None:
        """Their size is another now, or it is time to see whether something coalesces them after all."""
        self._many = None
        self._pieces = 0
        self._coalesce(True)

    def expect_bursts(self, size: int) -> None:
        """A burst of datagrams of `size` bytes has come, and proved genuine: the next reads may bring more."""
        self._bursts.expect(size)
        self._misses = 0

    def _coalesce(self, wanted: bool) -> None:
        with suppress(OSError):  # a kernel before 5.0: one datagram a read
            self._socket.setsockopt(SOL_UDP, UDP_GRO, int(wanted))


def _read_ancillary(messages: list[tuple[int, int, bytes]]) -> tuple[int, Ancillary]:
    """The size of the datagrams of a coalesced read, 0 for a single one; and the address to answer from."""
    segment = 0
    local: Ancillary = ()
    for level, kind, data in messages:
        if level == SOL_UDP and kind == UDP_GRO and len(data) >= 4:
            segment = int.from_bytes(data[:4], sys.byteorder)
        elif kind == IP_PKTINFO and level == socket.IPPROTO_IP and len(data) >= 12:
            local = ((level, kind, b"\0\0\0\0" + data[4:8] + b"\0\0\0\0"),)
        elif kind == IPV6_PKTINFO and level == socket.IPPROTO_IPV6 and len(data) >= 20:
            link_local = data[0] == 0xFE and data[1] & 0xC0 == 0x80
            local = ((level, kind, data[:16] + (data[16:20] if link_local else bytes(4))),)
    return segment, local


@functools.lru_cache(maxsize=MOST_KNOWN_NAMES)
def _address_from(name: bytes) -> SocketAddress:
    """The address in a sockaddr_in or sockaddr_in6."""
    family, port = struct.unpack_from("=H", name)[0], int.from_bytes(name[2:4], "big")
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port
    flow, scope = int.from_bytes(name[4:8], "big"), int.from_bytes(name[24:28], sys.byteorder)
    host = socket.inet_ntop(socket.AF_INET6, name[8:24])
    if scope:
        host = f"{host}%{socket.if_indextoname(scope)}"
    return host, port, flow, scope
