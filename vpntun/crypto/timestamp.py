"""TAI64N, the timestamp in an initiation.

Compared byte by byte, a later timestamp is never smaller than an earlier one.
"""

from __future__ import annotations

import struct

_TAI64N = struct.Struct(">QI")
_EPOCH = 0x400000000000000A
"""1970-01-01 00:00:00 UTC was second 2^62 + 10 of TAI (https://cr.yp.to/libtai/tai64.html)."""
_KEPT_NANOSECONDS = ~0xFFFFFF


def tai64n(wall: float) -> bytes:
    """Return the 12 bytes for `wall` seconds since 1970: seconds (8, big endian), nanoseconds (4, big endian).

    The low 24 bits of the nanoseconds are cleared, as in the kernel's WireGuard, so that two handshakes reveal their
    times of sending only to within 17 ms. WireGuard paper, section 5.1.
    """
    seconds, fraction = divmod(wall, 1)
    return _TAI64N.pack(_EPOCH + int(seconds), int(fraction * 1e9) & _KEPT_NANOSECONDS)
