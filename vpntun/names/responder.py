"""Responder between the name server's sockets and its answers: limits on askers, and counters.

A peer may ask 100 questions a second, and 100 at once, by whichever of its addresses; all together may ask 1,000. On a
TAP device, where addresses belong to no peer, each address or IPv6 /64 counts instead. What is beyond that is dropped
before it is parsed, and costs some microseconds: the loop also carries the tunnel's packets. A question that was
answered from the directory before, but for its number, gets the same answer again, as long as the directory is the
same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable

from vpntun.core.bucket import TokenBucket, TokenBuckets
from vpntun.core.source_limits import SourceLimits, network_of
from vpntun.names.answering import Question, answer
from vpntun.names.forwarding import Deliver, Forwarding, Servers
from vpntun.names.zones import Directory
from vpntun.runtime.loop import Loop

RATE_OF_A_SOURCE, BURST_OF_A_SOURCE = 100.0, 100
RATE_OF_ALL, BURST_OF_ALL = 1000.0, 1000
MOST_KEPT = 1024
LARGEST_KEPT = 512
"""Bytes of a question, and of an answer, that are kept."""
_NUMBER = 2
"""Bytes at the beginning of a message that only tell it from others."""


class Responder:
    """Takes questions and delivers their answers. `directory` returns the zones as they are now.

    `peer_of`: the peer that an address belongs to, None if that is not known.
    `counts` counts the messages: "asked", of which some are "answered" from the directory, "forwarded", or "limited",
    and "failed", those forwarded that nobody has answered.
    """

    def __init__(
        self,
        loop: Loop,
        directory: Callable[[], Directory],
        servers: Servers,
        peer_of: Callable[[bytes], Hashable | None],
        counts: Counter[str],
    ) -> None:
        self._loop = loop
        self._directory = directory
        self._counts = counts
        self._peer_of = peer_of
        self._of_peer: TokenBuckets[Hashable] = TokenBuckets(RATE_OF_A_SOURCE, BURST_OF_A_SOURCE)
        self._of_source = SourceLimits(RATE_OF_A_SOURCE, BURST_OF_A_SOURCE)
        self._of_all = TokenBucket(RATE_OF_ALL, BURST_OF_ALL)
        self._forwarding = Forwarding(loop, servers, self._note_failed)
        self._kept: dict[tuple[bytes, bool], bytes] = {}
        self._kept_of: Directory | None = None

    def take(self, data: bytes, source: bytes, deliver: Deliver, *, is_stream: bool) -> bool:
        """Take a message from an address (4 or 16 bytes); deliver its answer, now or later. False: there is none."""
        self._counts["asked"] += 1
        now = self._loop.now
        peer = self._peer_of(source)
        is_allowed = self._of_source.allow(source, now) if peer is None else self._of_peer.of(peer).take(now)
        if not is_allowed or not self._of_all.take(now):
            self._counts["limited"] += 1
            return False
        found = self._answer(data, is_stream)
        if isinstance(found, Question):
            self._counts["forwarded"] += 1
            self._forwarding.ask(found, network_of(source) if peer is None else peer, deliver)
            return True
        if found is None:
            return False
        self._counts["answered"] += 1
        deliver(found)
        return True

    def _answer(self, data: bytes, is_stream: bool) -> bytes | Question | None:
        """Return what `answer` does."""
        directory = self._directory()
        if directory is not self._kept_of or len(self._kept) >= MOST_KEPT:
            self._kept, self._kept_of = {}, directory
        key = data[_NUMBER:], is_stream
        kept = self._kept.get(key)
        if kept is not None:
            return data[:_NUMBER] + kept
        found = answer(data, directory, is_stream=is_stream)
        if isinstance(found, bytes) and max(len(data), len(found)) <= LARGEST_KEPT:
            self._kept[key] = found[_NUMBER:]
        return found

    def close(self) -> None:
        """End all questions without an answer."""
        self._forwarding.close()

    def _note_failed(self) -> None:
        self._counts["failed"] += 1
