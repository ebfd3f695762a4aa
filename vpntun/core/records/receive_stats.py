"""What arrived in one session, in totals, and when to tell the peer.

    each message that was authenticated and no replay      counted: the peer counts each counter it used
    one that carried packets                               besides, makes a REPORT due 50 ms later, if none is
    a record given up                                      counted with the datagrams of it that came
    a REPORT is due                                        it goes up to the highest counter of 50 ms ago, and says how
                                                           many of those counters have come by now
    packets came since the one before                      due again in 50 ms, so that those are told of, too

So late messages have had 50 ms to come, and what a REPORT does not count is lost, to the datagram. REPORTs go out every
50 ms while packets come, the last within 100 ms after the last of them, and none on an idle link; REPORT, HELLO, PROBE,
ECHO and keepalives carry no packets and never cause one.

One Meter a session. Times are seconds of the caller's clock.
"""

from __future__ import annotations

from vpntun.types import NEVER
from vpntun.wire.record import Report

INTERVAL = 0.05


class ReceiveStats:
    """Totals since the session began; a new one, or one that was `reset`, has seen nothing.

    deadline    when a REPORT is due
    highest     the greatest counter that was opened, -1 for none
    settled     what it was when the last REPORT was due: what the next goes up to
    """

    __slots__ = (
        "_datagrams",
        "_datagrams_above",
        "_due",
        "_failed",
        "_news",
        "_opened",
        "_opened_above",
        "deadline",
        "highest",
        "settled",
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """A new session."""
        self.highest = self.settled = -1
        self.deadline = NEVER
        self._opened = self._opened_above = 0
        self._datagrams = self._datagrams_above = 0
        self._failed = 0
        self._due = False
        """Whether packets came that the next REPORT tells of."""
        self._news = False
        """Whether packets came that the one after it does."""

    def record_received(self, counter: int, datagrams: int, now: float) -> None:
        """A message with packets was opened; it came in so many datagrams."""
        if counter > self.settled:
            self._opened_above += 1
            self._datagrams_above += datagrams
            self._news = True
            if counter > self.highest:
                self.highest = counter
        else:
            self._opened += 1
            self._datagrams += datagrams
            self._due = True
        if self.deadline == NEVER:
            self.deadline = now + INTERVAL

    def control_received(self, counter: int, datagrams: int = 1) -> None:
        """A message without packets was opened: a keepalive, HELLO, REPORT, PROBE or ECHO."""
        if counter > self.settled:
            self._opened_above += 1
            self._datagrams_above += datagrams
            if counter > self.highest:
                self.highest = counter
        else:
            self._opened += 1
            self._datagrams += datagrams

    def restored(self, counter: int) -> None:
        """A message that did not come was restored: it counts as opened, and its datagram as lost."""
        self.control_received(counter, 0)

    def record_given_up(self, counter: int, datagrams: int) -> None:
        """A record of which so many datagrams came will not be opened: one is missing."""
        self._failed += 1
        self.datagrams_received(counter, datagrams)

    def datagrams_received(self, counter: int, datagrams: int) -> None:
        """So many datagrams of a record came besides those that it was opened with."""
        if counter > self.settled:
            self._datagrams_above += datagrams
        else:
            self._datagrams += datagrams

    def report(self, now: float, waiting: int = 0, busy: float = 0.0) -> Report | None:
        """The deadline has come: the REPORT to send, or None where there is nothing new to tell yet.

        `waiting`: how many datagrams of unfinished records with counters up to `settled` the reassembly holds: those
        were seen, too. `busy`: the share of the time that the program did not sleep.
        """
        report = None
        if self._due:
            report = Report(self.settled, self._opened, self._datagrams + waiting, self._failed, busy)
        self.settled = self.highest
        self._opened += self._opened_above
        self._datagrams += self._datagrams_above
        self._opened_above = self._datagrams_above = 0
        self.deadline = now + INTERVAL if self._news else NEVER
        self._due, self._news = self._news, False
        return report
