"""LOAD: the record that a speed test sends as many of as the path takes. Its content is counted and dropped.

Integers are big endian. Each field is preceded by its offset in bytes; the kind is at offset 0 (wire/record.py).

    9  LOAD     1 id u64: the test that it belongs to; zeros up to any size. At least 9 bytes.

Everything here handles untrusted bytes: they are authenticated, but the peer may be hostile. The parser raises only
BadPacket.
"""

from __future__ import annotations

import struct

from vpntun.errors import BadPacket
from vpntun.wire.message import Buffer
from vpntun.wire.record import LARGEST_RECORD, LOAD

_LOAD = struct.Struct("!BQ")

SMALLEST_LOAD = _LOAD.size


def new_load(id: int) -> memoryview:
    """Return the longest LOAD of a test; each shorter one is a part of it from the beginning."""
    return memoryview(bytearray(_LOAD.pack(LOAD, id).ljust(LARGEST_RECORD, b"\0")))


def id_of(plaintext: Buffer) -> int:
    """Return the id of the test that a LOAD belongs to. Raises BadPacket("bad load")."""
    if len(plaintext) < SMALLEST_LOAD or plaintext[0] != LOAD:
        raise BadPacket("bad load")
    id: int = _LOAD.unpack_from(plaintext)[1]
    return id
