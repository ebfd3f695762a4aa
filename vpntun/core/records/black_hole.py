"""Detection of losses: bursts or long datagrams while smaller ones get through, or everything.

    bursts            two or more were sent and none was completed, while a datagram of their length is echoed: a
                      middlebox drops what it does not know (a single burst may just be lost). One of the two may be a
                      PROBE, which is sent as a burst 0.5 s after the first. Then none is sent. With traffic, such a
                      PROBE tries them again after 5 s, doubling to 10 min, so that no packet is lost by it
    long datagrams    no single datagram of over 1,200 bytes has arrived for 1 s: the path has become narrower, and
                      nothing has reported it

    everything        packets were sent, and for 15 s the peer has reported none and echoed none of 10 or more PROBEs,
                      whatever else comes from it: the path is lost one way, or both

Long datagrams alone, or both together, may be a black hole for the length in use. PROBEs tell
(`PathProber.look_for_black_hole`). Times are seconds of the caller's clock.
"""

from __future__ import annotations

import secrets

from vpntun.core.records.path_estimator import ReportSample
from vpntun.core.records.pathmtu import BASE
from vpntun.core.records.sent_log import SentLog
from vpntun.types import NEVER

SILENCE = 1.0
BURST_SILENCE = 0.5
FEWEST_BURSTS = 2
FIRST_RETRY = 5.0
LAST_RETRY = 600.0

REPORTS_ARE_LATE_AFTER = 3.0
PROBE_EVERY = 1.0
PROBE_EVERY_LATER = 5.0
FEWEST_UNANSWERED = 10
NOTHING_ARRIVES_AFTER = 15.0
QUIET = 5.0
DOUBTED_AFTER = 2.0
DOUBTED_UNTIL = 7.0
"""So that an initiation sent in doubt does not delay, by the 5 s between two, the search that follows after 15 s."""


class BlackHoleDetector:
    """Detector for one path. Attributes:

    passes        whether bursts may be sent, as far as is known
    retry_at      when to try them again, if they may not
    deadline      when to look into bursts of which nothing is heard, even if no more are sent
    """

    def __init__(self) -> None:
        self._bursts = 0  # sent since one was completed
        self._burst_since = self.deadline = NEVER
        self.moved()

    def moved(self) -> None:
        """Forget everything: it is another path."""
        self.passes = True
        self.retry_at = NEVER
        self._retry_pause = FIRST_RETRY
        self.begin()

    def begin(self) -> None:
        """Start watching again: in a new session, or because datagrams are shorter from now on."""
        self._long_since = NEVER
        self._forget_bursts()

    def sent(self, datagrams: int, size: int, now: float) -> None:
        """Note that a record was sent. `size`: bytes of it, if it is one datagram."""
        if datagrams > 1:
            self._bursts += 1
            if now < self._burst_since:
                self._burst_since, self.deadline = now, now + BURST_SILENCE
        elif size > BASE:
            self._long_since = min(self._long_since, now)

    @property
    def burst_waits(self) -> bool:
        """Whether bursts were sent of which nothing has been heard so far."""
        return self._burst_since != NEVER

    def is_seen(self, now: float, patience: float = 0.0) -> bool:
        """Whether bursts or long datagrams were sent, of which none has arrived for half a second, or a second.

        `patience`: seconds to wait in addition.
        """
        return now >= min(self._burst_since + BURST_SILENCE, self._long_since + SILENCE) + patience

    def looked_into(self) -> None:
        """Note that the bursts sent so far are being looked into, so that the deadline has passed."""
        self.deadline = NEVER

    def length_passes(self, now: float, *, probe_vanished: bool = False) -> None:
        """Conclude that the length in use gets through: the path drops bursts, or records were only lost.

        `probe_vanished`: a PROBE that was sent as a burst was not echoed.
        """
        self._long_since = NEVER
        silent = now >= self._burst_since + BURST_SILENCE
        if silent and self._bursts + probe_vanished >= FEWEST_BURSTS:
            self.passes = False
            self.retried(now)
        self._forget_bursts()

    def retried(self, now: float) -> None:
        """Wait until the next try, longer than before: bursts have vanished, or are being tried again."""
        self.retry_at = now + self._retry_pause
        self._retry_pause = min(LAST_RETRY, 2 * self._retry_pause)

    def burst_echoed(self) -> None:
        """Note that a PROBE that was sent as a burst was echoed. Later pauses stay long until packets have arrived."""
        if not self.passes:
            self.passes = True
            self._forget_bursts()

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
        self.passes = True
        self._retry_pause = FIRST_RETRY
        self._forget_bursts()
        return True

    def _forget_bursts(self) -> None:
        self._burst_since = self.deadline = NEVER
        self._bursts = 0


class ArrivalWatch:
    """Watch over whether anything that is sent to the peer arrives there.

    1. When packets are sent, or the path goes quiet, the watch waits for proof that something arrives.
    2. That is a REPORT that counts more messages than the one before, or the ECHO of one of the PROBEs below, however
       late. Either ends the watch.
    3. If none came for 3 s, a PROBE is sent every second: neither sparse traffic nor loss must look like a dead path.
    4. If the first PROBE is unanswered for 2 s, and for less than 7 s, the session is in doubt: the peer may have lost
       it, as by a restart.
    5. If none came for 15 s, `nothing_arrives`. PROBEs go on, every 5 s, for the case that the path heals.

    The path is quiet 5 s after the last packets from the peer: an end that only receives cannot know otherwise whether
    the peer has stopped sending.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin in a new session, or on another path."""
        self._since = self._probe_at = self._quiet_at = NEVER
        self._asked: dict[int, float] = {}
        """When each PROBE was sent, by its token; oldest first."""
        self.nothing_arrives = False
        """Whether nothing has arrived for 15 s, as far as is known."""

    @property
    def deadline(self) -> float:
        """When to call `ask`."""
        return min(self._probe_at, self._quiet_at)

    def sent(self, now: float) -> None:
        """Note that packets were sent, which the peer is to report."""
        if self._since == NEVER:
            self._since, self._probe_at = now, now + REPORTS_ARE_LATE_AFTER

    def received(self, now: float) -> None:
        """Note that packets have come from the peer."""
        self._quiet_at = now + QUIET

    def arrived(self) -> None:
        """Note that something has arrived at the peer."""
        self._since = self._probe_at = NEVER
        self._asked.clear()
        self.nothing_arrives = False

    def in_doubt_for(self, now: float) -> float:
        """Return how long the first PROBE has been unanswered, if that puts the session in doubt; else 0."""
        seconds = now - next(iter(self._asked.values()), now)
        return seconds if DOUBTED_AFTER <= seconds < DOUBTED_UNTIL else 0.0

    def ask(self, now: float) -> int:
        """Return the token of a PROBE to send now."""
        self._quiet_at = NEVER
        self._since = min(self._since, now)
        if now - self._since >= NOTHING_ARRIVES_AFTER and len(self._asked) >= FEWEST_UNANSWERED:
            self.nothing_arrives = True
        self._probe_at = now + (PROBE_EVERY_LATER if self.nothing_arrives else PROBE_EVERY)
        token = secrets.randbits(64)
        self._asked[token] = now
        return token

    def echoed(self, token: int) -> bool:
        """Learn from an ECHO. Return whether it answers one of these PROBEs."""
        if token not in self._asked:
            return False
        self.begin()
        return True
