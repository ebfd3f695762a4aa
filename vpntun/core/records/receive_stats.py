"""Totals of what arrived in one session, and when to REPORT them to the peer.

    event                                     action
    a message is authenticated, no replay     count it: the peer counts each counter that it used
    it carried packets                        also make a REPORT due in 50 ms, unless one is due
    a record is given up                      count it, with the datagrams of it that came
    a REPORT is due                           report up to the highest counter of 50 ms ago, and how many of those
                                              counters have come by now
    packets came since the REPORT before      make another REPORT due in 50 ms, which includes them

So late messages have had 50 ms to come. Datagrams that a REPORT does not count are lost: the number is exact. REPORTs
are sent every 50 ms while packets come, the last within 100 ms after the last packets, and none on an idle link.
REPORT, HELLO, PROBE, ECHO and keepalives carry no packets and never cause a REPORT.

Each session has a ReceiveStats of its own, or starts with `reset`. Times are seconds of the caller's clock.
"""

from __future__ import annotations

from vpntun.types import NEVER
from vpntun.wire.record import Report

INTERVAL = 0.05


class ReceiveStats:
    """Totals since the session began.

    deadline    when a REPORT is due
    highest     the greatest counter that was opened, -1 for none
    settled     `highest` at the time when the last REPORT was due. The next one covers counters up to it
    """

    __slots__ = (
        "_datagrams",
        "_datagrams_above",
        "_failed",
        "_has_later_news",
        "_has_news",
        "_opened",
        "_opened_above",
        "deadline",
        "highest",
        "settled",
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start at zero, for a new session."""
        self.highest = self.settled = -1
        self.deadline = NEVER
        self._opened = self._opened_above = 0
        self._datagrams = self._datagrams_above = 0
        self._failed = 0
        self._has_news = False
        """Whether packets came that the next REPORT includes."""
        self._has_later_news = False
        """Whether packets came that the REPORT after it includes."""

    def record_received(self, counter: int, datagrams: int, now: float) -> None:
        """Count a message with packets that was opened. `datagrams`: number of datagrams that it came in."""
        if counter > self.settled:
            self._opened_above += 1
            self._datagrams_above += datagrams
            self._has_later_news = True
            if counter > self.highest:
                self.highest = counter
        else:
            self._opened += 1
            self._datagrams += datagrams
            self._has_news = True
        if self.deadline == NEVER:
            self.deadline = now + INTERVAL

    def control_received(self, counter: int, datagrams: int = 1) -> None:
        """Count a message without packets that was opened: a keepalive, HELLO, REPORT, PROBE or ECHO."""
        if counter > self.settled:
            self._opened_above += 1
            self._datagrams_above += datagrams
            if counter > self.highest:
                self.highest = counter
        else:
            self._opened += 1
            self._datagrams += datagrams

    def restored(self, counter: int) -> None:
        """Count a message that was restored, not received, as opened, and its datagram as lost."""
        self.control_received(counter, 0)

    def record_given_up(self, counter: int, datagrams: int) -> None:
        """Count a record that will not be opened since one datagram is missing; `datagrams` of it came."""
        self._failed += 1
        self.datagrams_received(counter, datagrams)

    def datagrams_received(self, counter: int, datagrams: int) -> None:
        """Count datagrams of a record that came in addition to those it was opened with."""
        if counter > self.settled:
            self._datagrams_above += datagrams
        else:
            self._datagrams += datagrams

    def report(self, now: float, waiting: int = 0, busy: float = 0.0) -> Report | None:
        """Return the REPORT to send now that the deadline has come; None if it would contain nothing new.

        `waiting`: number of datagrams that the reassembly holds of unfinished records with counters up to `settled`;
        they count as seen, too. `busy`: the share of the time that the program did not sleep.
        """
        report = None
        if self._has_news:
            report = Report(self.settled, self._opened, self._datagrams + waiting, self._failed, busy)
        self.settled = self.highest
        self._opened += self._opened_above
        self._datagrams += self._datagrams_above
        self._opened_above = self._datagrams_above = 0
        self.deadline = now + INTERVAL if self._has_later_news else NEVER
        self._has_news, self._has_later_news = self._has_later_news, False
        return report
