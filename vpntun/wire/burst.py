"""Bursts: one sealed data message cut into several UDP datagrams, and joined again.

A data message that does not fit in one datagram of the path is cut after it was sealed. Each piece of ciphertext gets
the message's own 16-byte header, whose reserved bytes then say which piece it is:

    0  type 4
    1  index        0 to count - 1
    2  count - 1    0 to 63
    3  zero
    4  receiver u32, 8 counter u64, little endian: copied from the message, so the same in each piece
    16 ciphertext: all datagrams have the same size, except that the last may be shorter (at least 1 byte of ciphertext)

A protected burst has one more datagram, the parity. Its index equals count, and in place of ciphertext it holds the
XOR of all pieces. All pieces of a protected burst have the full size, so any one of them can be restored. A burst of
64 datagrams has no parity.

A whole message has zeros in the reserved bytes, as in WireGuard. Anything else is legal only on type 4, over UDP, after
the peer's HELLO. Joining a burst authenticates nothing; only opening the joined message does.

Outbound: `BurstCutter` lays out the headers and pieces of one fixed buffer once for each datagram size, and then only
fills in the headers.

Inbound: a coalesced read (UDP_GRO) is expected to resemble the last one. After a burst, `BurstReader` lets the kernel
scatter the next burst straight into place, with the headers elsewhere, and checks all headers with one comparison. Any
other read is flat: `join_in_order` checks only the first and the last datagram of a burst, and copies the pieces
together. If the result does not open, only that copy was wasted, and the burst is examined datagram by datagram with
`place_of`.

Interface:
    BurstCutter(buffer).cut(length, size, protected=) -> list of buffers for sendmsg
    parity_of(pieces, step) -> XOR of the pieces
    BurstReader(buffer): .expect(size)  .buffers  .message(read, segment) -> length  .flat(read) -> the bytes read
    place_of(datagram) -> (index, count)
    join_in_order(read, at, size, out) -> (length of the message in out, offset of the read's next datagram)
"""

from __future__ import annotations

from collections.abc import Iterable

from vpntun.errors import BadPacket
from vpntun.wire.message import DATA, DATA_HEADER, HEADER_SIZE, SMALLEST, Buffer

MOST_DATAGRAMS = 64

_INDICES = bytes(range(MOST_DATAGRAMS))


def datagrams_for(length: int, size: int) -> int:
    """Return how many datagrams of at most `size` bytes carry a message of `length` bytes; may exceed the legal 64."""
    return 1 if length <= size else -(-(length - HEADER_SIZE) // (size - HEADER_SIZE))


def headers_of(kind: int, receiver: int, counter: int, count: int) -> bytearray:
    """The 16-byte headers of a burst of `count` datagrams, one after the other."""
    block = bytearray(DATA_HEADER.pack(kind | (count - 1) << 16, receiver, counter) * count)
    block[1::HEADER_SIZE] = _INDICES[:count]
    return block


def parity_header(receiver: int, counter: int, count: int) -> bytes:
    """The header of the parity of a burst of `count` pieces."""
    return DATA_HEADER.pack(DATA | count << 8 | (count - 1) << 16, receiver, counter)


def parity_of(pieces: Iterable[Buffer], step: int) -> bytes:
    """The XOR of pieces of `step` bytes each."""
    parity = 0
    for piece in pieces:
        parity ^= int.from_bytes(piece, "little")
    return parity.to_bytes(step, "little")


class BurstCutter:
    """Cutter for the one message at the start of `buffer`; each result of `cut` is valid until the next call."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._block = bytearray(MOST_DATAGRAMS * HEADER_SIZE)
        self._headers = _pieces_of(memoryview(self._block), HEADER_SIZE)
        self._size = self._length = self._count = 0
        self._laid_out: list[memoryview] = []
        self._cut: list[memoryview] = []
        """The last result without its parity, for a message of `_length` bytes in `_count` datagrams of `_size`."""

    def cut(self, length: int, size: int, *, protected: bool = False) -> list[memoryview]:
        """Return header, piece, header, piece...: for one UDP_SEGMENT send of segment `size`, or one send per pair.

        A message that fits in one datagram is returned uncut, in a list of one. With `protected`, the parity is added
        if the message fills all its pieces. Raises ValueError for more than 64 datagrams: the caller chose the record's
        length.
        """
        if length != self._length or size != self._size:
            self._lay_out(length, size)
        count = self._count
        if count == 1:
            return self._cut
        kind, receiver, counter = DATA_HEADER.unpack_from(self._buffer)
        end = count * HEADER_SIZE
        self._block[:end] = headers_of(kind, receiver, counter, count)
        step = size - HEADER_SIZE
        if not protected or length != HEADER_SIZE + count * step or count == MOST_DATAGRAMS:
            return self._cut
        self._block[end : end + HEADER_SIZE] = parity_header(receiver, counter, count)
        return [*self._cut, self._headers[count], memoryview(parity_of(self._cut[1::2], step))]

    def _lay_out(self, length: int, size: int) -> None:
        """Lay out the result for a message of this length; usually the next one is as long."""
        count = datagrams_for(length, size)
        if count > MOST_DATAGRAMS:
            raise ValueError(f"{length} bytes do not fit in {MOST_DATAGRAMS} datagrams of {size}")
        step = size - HEADER_SIZE
        if size != self._size:
            pieces = _pieces_of(self._buffer[HEADER_SIZE:], step)[:MOST_DATAGRAMS]
            self._laid_out = [each for pair in zip(self._headers, pieces) for each in pair]  # noqa: B905, a short buffer
        self._cut = [self._buffer[:length]]
        if count > 1:
            self._cut = [*self._laid_out[: 2 * count - 1], self._buffer[HEADER_SIZE + (count - 1) * step : length]]
        self._length, self._size, self._count = length, size, count


class BurstReader:
    """Receive buffers laid out so that a read of one burst, of known datagram size, leaves its message in `buffer`.

    `buffer` has room for 65,535 bytes. Receive into `buffers`: whatever size was expected, they have room for the
    longest possible read.
    """

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._block = memoryview(bytearray(MOST_DATAGRAMS * HEADER_SIZE))
        self._headers = _pieces_of(self._block, HEADER_SIZE)[1:]
        self._size = len(buffer)
        self.buffers: list[memoryview] = [buffer]
        self.datagrams = 0
        """Number of datagrams, without a parity, of the last message."""

    def expect(self, size: int) -> None:
        """Lay the buffers out for datagrams of `size` bytes (above 16)."""
        if size == self._size:
            return
        self._size = size
        buffer, step = self._buffer, size - HEADER_SIZE
        end = size + (MOST_DATAGRAMS - 1) * step  # of the longest burst
        self.buffers = [buffer[:size]]
        for header, piece in zip(self._headers, _pieces_of(buffer[size:end], step)):  # noqa: B905, a short buffer
            self.buffers += (header, piece)
        if end < len(buffer):
            self.buffers.append(buffer[end:])

    def message(self, read: int, segment: int) -> int:
        """Return the length of the message that a read has put into the buffer, or 0 if there is none.

        The read has `read` bytes, in datagrams of `segment` bytes. The result is 0 unless it was exactly one whole
        burst of the expected datagram size, in order, with or without its parity. Untrusted bytes; raises nothing.
        """
        size = self._size
        buffer = self._buffer
        rest = buffer[2]
        if read == (rest + 2) * size and rest + 1 < MOST_DATAGRAMS:
            _, receiver, counter = DATA_HEADER.unpack_from(buffer)
            end = (rest + 1) * HEADER_SIZE
            if bytes(self._block[end : end + HEADER_SIZE]) == parity_header(receiver, counter, rest + 1):
                read -= size
        if (
            segment != size
            or not 0 < rest < MOST_DATAGRAMS
            or not rest * size + HEADER_SIZE < read <= (rest + 1) * size
        ):
            return 0
        kind, receiver, counter = DATA_HEADER.unpack_from(buffer)
        if kind != DATA | rest << 16:
            return 0
        end = (rest + 1) * HEADER_SIZE
        if bytes(self._block[HEADER_SIZE:end]) != headers_of(DATA, receiver, counter, rest + 1)[HEADER_SIZE:]:
            return 0
        length = read - rest * HEADER_SIZE
        if length < SMALLEST:
            return 0
        buffer[2] = 0
        self.datagrams = rest + 1
        return length

    def flat(self, read: int) -> memoryview:
        """Return the `read` bytes as they arrived; without copying if they are one datagram."""
        if read <= self._size:
            return self._buffer[:read]
        return memoryview(b"".join(self.buffers))[:read]


def place_of(datagram: Buffer) -> tuple[int, int]:
    """Return the index and count of a data datagram: (0, 1) for a whole message; a parity's index equals the count.

    Untrusted bytes. Raises BadPacket("bad size") for a datagram without ciphertext or a whole message below 32 bytes,
    "bad type" for any type but data, "bad reserved" for an impossible index or count.
    """
    if len(datagram) <= HEADER_SIZE:
        raise BadPacket("bad size")
    if datagram[0] != DATA:
        raise BadPacket("bad type")
    index, count = datagram[1], datagram[2] + 1
    if index >= count + (1 < count < MOST_DATAGRAMS) or count > MOST_DATAGRAMS or datagram[3]:
        raise BadPacket("bad reserved")
    if count == 1 and len(datagram) < SMALLEST:
        raise BadPacket("bad size")
    return index, count


def join_in_order(read: memoryview, at: int, size: int, out: memoryview) -> tuple[int, int]:
    """Join the burst that seems to begin at offset `at` in a coalesced read of datagrams of `size` bytes.

    Copies the message, with its reserved bytes zeroed, to the start of `out`. Returns its length and the offset behind
    its last datagram, or (0, at) if no burst begins there or not all of it is there in order. The datagrams between the
    first and the last are not inspected. Untrusted bytes; raises nothing.
    """
    if len(read) - at <= HEADER_SIZE or read[at] != DATA or read[at + 1] or read[at + 3] or size <= HEADER_SIZE:
        return 0, at
    rest = read[at + 2]
    last = at + rest * size
    end = min(last + size, len(read))
    step = size - HEADER_SIZE
    length = rest * step + end - last
    if not 0 < rest < MOST_DATAGRAMS or end - last <= HEADER_SIZE or not SMALLEST <= length <= len(out):
        return 0, at
    if bytes(read[last : last + 4]) != bytes((DATA, rest, rest, 0)):
        return 0, at
    if read[last + 4 : last + HEADER_SIZE] != read[at + 4 : at + HEADER_SIZE]:
        return 0, at
    out[:HEADER_SIZE] = read[at : at + HEADER_SIZE]
    out[2] = 0
    to = HEADER_SIZE
    for begin in range(at + HEADER_SIZE, last, size):
        out[to : to + step] = read[begin : begin + step]
        to += step
    out[to:length] = read[last + HEADER_SIZE : end]
    return length, end


def _pieces_of(buffer: memoryview, size: int) -> list[memoryview]:
    return [buffer[at : at + size] for at in range(0, len(buffer), size)]
