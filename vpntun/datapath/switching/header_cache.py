"""Cache of what the switch has decided about frames with the same header, so that most of them take one look-up.

The header has both addresses. A frame that has the same one as another from the same port goes the same way: its source
has been claimed, and its destination is known. Frames for groups, and for stations that are not known at a hub, are
decided one by one.

The table of the switch empties the cache whenever an address loses its port, and switch.py every few seconds, so that
sources are claimed again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from vpntun.wire.ethernet.frame import HEADER_SIZE
from vpntun.wire.message import Buffer

MOST_HEADERS = 256

Way = TypeVar("Way")


class HeaderCache(Generic[Way]):
    """Decisions by the header of a frame, as `header_of` returns it. At most 256 are kept.

    find   returns the decision about a header, or None
    """

    def __init__(self) -> None:
        self._ways: dict[bytes, Way] = {}
        self.find: Callable[[bytes], Way | None] = self._ways.get

    def keep(self, header: bytes, way: Way) -> None:
        """Keep the decision about a frame with this header."""
        if len(self._ways) >= MOST_HEADERS:
            self._ways.clear()
        self._ways[header] = way

    def clear(self) -> None:
        """Forget everything."""
        self._ways.clear()


def header_of(frame: Buffer) -> bytes:
    """Return the header of a frame; less than a header for a shorter frame. Untrusted bytes; raises nothing."""
    return bytes(frame[:HEADER_SIZE])
