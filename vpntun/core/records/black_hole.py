"""Detection of bursts or long datagrams that vanish although smaller datagrams get through.

    bursts            two or more were sent and none was completed within 1 s of the first, while a datagram of their
                      length is echoed: a middlebox drops what it does not know (a single burst may just be lost). Then
                      none is sent; they are tried again after 5 s, doubling to 10 min
    long datagrams    no single datagram of over 1,200 bytes has arrived for 1 s: the path has become narrower, and
                      nothing has reported it

Long datagrams alone, or both together, may be a black hole for the length in use. PROBEs tell
(`PathProber.look_for_black_hole`). Times are seconds of the caller's clock.
"""

from __future__ import annotations

from vpntun.core.records.path_estimator import ReportSample
from vpntun.core.records.pathmtu import BASE
from vpntun.core.records.sent_log import SentLog
from vpntun.types import NEVER

SILENCE = 1.0
FEWEST_BURSTS = 2
FIRST_RETRY = 5.0
LAST_RETRY = 600.0


class BlackHoleDetector:
    """Detector for one path. `passes`: whether bursts may be sent, as far as is known."""

    def __init__(self) -> None:
        self._bursts = 0  # sent since one was completed
        self._burst_since = NEVER
        self.moved()

    def begin(self) -> None:
        """Begin in a new session."""
        self.length_changed()
        self._proven = False

    def moved(self) -> None:
        """Forget everything: it is another path."""
        self.passes = True
        self._retry_at = NEVER
        self._retry_pause = FIRST_RETRY
        self.begin()

    def length_changed(self) -> None:
        """Start watching again: datagrams have another length from now on."""
        self._long_since = NEVER
        self._forget_bursts()

    def sent(self, datagrams: int, size: int, now: float) -> None:
        """Note that a record was sent. `size`: bytes of it, if it is one datagram."""
        if datagrams > 1:
            self._bursts += 1
            self._burst_since = min(self._burst_since, now)
        elif size > BASE:
            self._long_since = min(self._long_since, now)

    def is_seen(self, now: float) -> bool:
        """Whether bursts or long datagrams were sent and none of their kind has arrived for a second."""
        return now - min(self._burst_since, self._long_since) >= SILENCE

    def length_passes(self, now: float) -> None:
        """Conclude that the length in use gets through: the path drops bursts, or records were only lost."""
        self._long_since = NEVER
        if self._bursts_vanish(now):
            self.block(now)
        self._burst_since = NEVER

    def block(self, now: float) -> None:
        """Stop bursts for a while: they don't get through, though single datagrams of their length do."""
        self.passes = self._proven = False
        self._forget_bursts()
        self._retry_at = now + self._retry_pause
        self._retry_pause = min(LAST_RETRY, 2 * self._retry_pause)

    def handle_deadline(self, now: float, *, idle: bool) -> bool:
        """Block bursts, or try them again, if it is time to. Return whether either was done."""
        if self.passes and not self._proven and not idle and self._bursts_vanish(now):
            self.block(now)
        elif not self.passes and now >= self._retry_at:
            self.passes = True
            self._forget_bursts()
        else:
            return False
        return True

    def reported(self, previous: ReportSample, highest: int, opened: int, sent_log: SentLog) -> bool:
        """Learn from a REPORT. Return whether its losses count as loss, rather than as an outage or a black hole.

        They do if it shows that a burst was completed since `previous`, the REPORT before it, or if none was sent.
        """
        if self._long_since != NEVER and highest > previous.highest:
            is_long = not sent_log.short(highest - 1, highest, BASE)
            if is_long or opened - previous.opened > sent_log.short(previous.highest, highest, BASE):
                self._long_since = NEVER
        counters = highest - previous.highest
        awaited = self._burst_since != NEVER or not self.passes
        if not awaited or sent_log.datagrams_to(highest) - previous.sent == counters > 0:
            return True
        if not counters:
            return False
        is_single = sent_log.singles(highest - 1, highest) == 1
        if is_single and opened - previous.opened <= sent_log.singles(previous.highest, highest):
            return False
        self._proven = self.passes = True
        self._retry_pause = FIRST_RETRY
        self._forget_bursts()
        return True

    def _forget_bursts(self) -> None:
        self._burst_since = NEVER
        self._bursts = 0

    def _bursts_vanish(self, now: float) -> bool:
        return self._bursts >= FEWEST_BURSTS and now - self._burst_since >= SILENCE
