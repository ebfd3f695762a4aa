"""PROBEs to one peer: the path's length, black holes, dead paths, round trips, and trials of other carriers.

    purpose    sent                                           its ECHO shows
    size       while the longest datagram is searched for     a datagram of this length gets through (pathmtu.py)
    small      together with a size probe of 1,200 bytes      smaller ones get through
    carrier    to try another path                            that path works in both directions
    doubt      when sent records seem to vanish               datagrams of the length in use get through
    health     together with a doubt probe                    the peer answers. If the doubt probe is still unanswered,
                                                              the length in use is a black hole
    verify     when somebody asks whether data arrives        data arrives on the path in use (core/verification.py)
    burst      together with a doubt probe if bursts seem to  bursts get through. It is sent as one, in two datagrams
               vanish, and to try them again
    (arrival)  when nothing was reported, or at a keepalive   what this end sends arrives (ArrivalWatch, black_hole.py,
                                                              which keeps these tokens itself: an ECHO may be late)

    asked      a PROBE is sent to some place; its token, time, length and purpose are noted
    echoed     the ECHO with that token came from the place the PROBE was sent to: it is answered, once, and the round
               trip is measured. An ECHO from elsewhere shows nothing about the path tried, and the PROBE still awaits
               its answer
    expired    the PROBE is given up after three smoothed round trips without an answer, 1 s at least and 5 s at most.
               One that verifies always has 5 s, because a late answer proves as much as an early one

A place is any hashable by which the caller compares paths: an endpoint, a connection. A PROBE moves no endpoint. At
most 16 await their answer; the oldest is given up for the next. Lengths are bytes of UDP payload, times seconds of the
caller's clock. Round trip: RFC 6298, section 2.
"""

from __future__ import annotations

import secrets
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from vpntun.core.endpoint import Endpoint
from vpntun.core.events import Event, NothingArrives, SendRecord, SessionDoubtful
from vpntun.core.records.black_hole import ArrivalWatch
from vpntun.core.records.pathmtu import BASE, PathMtu
from vpntun.core.records.span import Span
from vpntun.core.verification import Verification
from vpntun.types import NEVER
from vpntun.wire.message import DATA_OVERHEAD
from vpntun.wire.record import SMALLEST_PROBE, Echo, Probe

Purpose = Literal["size", "small", "doubt", "carrier", "health", "burst", "verify"]
"""Purpose of a probe, from the first table above."""

MOST_OUT = 16
SHORTEST_TIMEOUT = 1.0
LONGEST_TIMEOUT = 5.0

HINDSIGHT = 0.25
"""Seconds after which the peer must have reported the bursts that have arrived."""

MOST_PATIENCE = 0.5
"""Seconds of a round trip that a REPORT is waited for at most, beside the silence that lets bursts seem to vanish."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A probe that was sent."""

    where: Hashable
    purpose: Purpose
    size: int
    at: float


class Probes:
    """PROBEs sent to one peer that await their ECHO, and the round trips of those that were answered.

    round_trip     smoothed round trip on this path, in seconds; 0 while unknown
    last           last round trip on any path, in seconds; 0 while unknown
    measured_at    when `last` was measured
    """

    def __init__(self) -> None:
        self.round_trip = 0.0
        self.last = 0.0
        self.measured_at = -NEVER
        self._unanswered: dict[int, Asked] = {}

    @property
    def timeout(self) -> float:
        """Seconds after which a probe is given up, unless it verifies; then it may take the longest time."""
        if not self.round_trip:
            return LONGEST_TIMEOUT
        return min(LONGEST_TIMEOUT, max(SHORTEST_TIMEOUT, 3 * self.round_trip))

    @property
    def deadline(self) -> float:
        """When the next probe is to be given up."""
        return min(map(self._end_of, self._unanswered.values())) if self._unanswered else NEVER

    def asked(self, where: Hashable, purpose: Purpose, size: int, now: float) -> int:
        """Note a probe that is being sent, and return its token. If too many await an answer, drop the oldest."""
        token = secrets.randbits(64)
        if len(self._unanswered) >= MOST_OUT:
            del self._unanswered[next(iter(self._unanswered))]
        self._unanswered[token] = Asked(where, purpose, size, now)
        return token

    def echoed(self, token: int, where: Hashable, now: float) -> Asked | None:
        """Return the probe that an ECHO from `where` answers, and forget it; None if it answers none."""
        asked = self._unanswered.get(token)
        if asked is None or asked.where != where:
            return None
        del self._unanswered[token]
        self.last, self.measured_at = max(now - asked.at, 1e-6), now
        if self.round_trip:
            self.round_trip += (self.last - self.round_trip) / 8
        else:
            self.round_trip = self.last
        return asked

    def waiting(self, purpose: Purpose) -> bool:
        """Whether a probe of this purpose awaits its answer."""
        return any(asked.purpose == purpose for asked in self._unanswered.values())

    def give_up_late(self, now: float) -> None:
        """Give up every probe whose time is up."""
        self._unanswered = {token: asked for token, asked in self._unanswered.items() if self._end_of(asked) > now}

    def moved(self) -> None:
        """Forget the smoothed round trip: it is another path now."""
        self.round_trip = 0.0

    def _end_of(self, asked: Asked) -> float:
        """When a probe is to be given up."""
        return asked.at + (LONGEST_TIMEOUT if asked.purpose == "verify" else self.timeout)


class PathProber:
    """Prober of the paths to one peer. It tells `path_mtu`, `span` and `arrivals` what the ECHOes show."""

    def __init__(self, path_mtu: PathMtu, span: Span) -> None:
        self.arrivals = ArrivalWatch()
        self.verification = Verification()
        self._path_mtu = path_mtu
        self._span = span
        self._probes = Probes()
        self._endpoint: Endpoint | None = None
        self.conclusion_deadline = NEVER
        """When `conclude` is due."""

    @property
    def last_round_trip(self) -> tuple[float, float]:
        """The last round trip in seconds and when it was measured; 0 and minus infinity if there was none."""
        return self._probes.last, self._probes.measured_at

    def deadline(self, *, search: bool) -> float:
        """When `handle_timer` is due. `search`: whether to search for the longest datagram."""
        due = self._search_deadline(search=search)
        due = min(due, self._probes.deadline, self.arrivals.deadline, self.conclusion_deadline)
        if self._span.black_hole.deadline < due:  # spare each packet the slower property while there are no doubts
            due = min(due, self.doubt_deadline)
        return due

    @property
    def doubt_deadline(self) -> float:
        """When `look_for_black_hole` is due, even if nothing is sent: records seem to vanish."""
        return self._span.black_hole.deadline + self._patience

    def moved(self, endpoint: Endpoint, now: float, *, ipv6: bool) -> None:
        """Begin again on another path."""
        self._endpoint = endpoint
        self.conclusion_deadline = NEVER
        self.arrivals.begin()
        self.verification.begin()
        self._path_mtu.moved(now, ipv6=ipv6)
        self._probes.moved()

    def handle_timer(self, now: float, *, search: bool) -> list[Event]:
        """Give up late probes, and continue the search if `search` is set and its next step is due."""
        self._probes.give_up_late(now)
        return self.search(now) if now >= self._search_deadline(search=search) else []

    def search(self, now: float) -> list[Event]:
        """Send the search's next PROBE, if it is due."""
        size = self._path_mtu.probe(now)
        if size is None or self._endpoint is None:
            return []
        probe = self._probe(self._endpoint, "size", size - DATA_OVERHEAD, now)
        if self._path_mtu.probes_base:
            return [probe, self._probe(self._endpoint, "small", SMALLEST_PROBE, now)]
        return [probe]

    def ask_whether_anything_arrives(self, now: float) -> list[Event]:
        """Test whether anything that is sent on the path in use arrives; say so once if nothing does."""
        known = self.arrivals.nothing_arrives
        events: list[Event] = [SendRecord(Probe(self.arrivals.ask(now), SMALLEST_PROBE).pack())]
        if self.arrivals.nothing_arrives and not known:
            events.append(NothingArrives())
        elif seconds := self.arrivals.in_doubt_for(now):
            events.append(SessionDoubtful(seconds))
        return events

    def try_path(self, endpoint: Endpoint, now: float) -> list[Event]:
        """Test whether another path works in both directions."""
        return [self._probe(endpoint, "carrier", SMALLEST_PROBE, now)]

    def verify(self, now: float) -> list[Event]:
        """Test whether data arrives on the path in use, unless that was tested less than a second ago."""
        if self._endpoint is None or not self.verification.may_ask(now):
            return []
        self.verification.asked(now)
        return [self._probe(self._endpoint, "verify", SMALLEST_PROBE, now)]

    def look_for_black_hole(self, payload: int, now: float) -> list[Event]:
        """If sent records seem to vanish, test whether datagrams of `payload` bytes, bursts and small ones get through.

        If the first and the last are echoed, the length is not the reason (see `conclude`). If only the last is
        echoed, the length in use is too long.
        """
        black_hole = self._span.black_hole
        if self._endpoint is None or not black_hole.is_seen(now, self._patience):
            return []
        if self._probes.waiting("health") or self.conclusion_deadline != NEVER:  # they are being tested
            return []
        black_hole.looked_into()
        bursts = [self._probe_by_burst(self._endpoint, now)] if black_hole.burst_waits else []
        return [
            self._probe(self._endpoint, "doubt", payload - DATA_OVERHEAD, now),
            *bursts,
            self._probe(self._endpoint, "health", SMALLEST_PROBE, now),
        ]

    def try_bursts(self, now: float) -> list[Event]:
        """Test whether bursts get through again, if it is time to."""
        black_hole = self._span.black_hole
        if self._endpoint is None or black_hole.passes or now < black_hole.retry_at:
            return []
        black_hole.retried(now)
        return [self._probe_by_burst(self._endpoint, now)]

    def echoed(self, echo: Echo, source: Endpoint, now: float) -> Purpose | None:
        """Learn from an ECHO. Return the purpose of the PROBE that it answers, None if it answers none."""
        asked = self._probes.echoed(echo.token, source, now)
        if asked is None:
            if self.arrivals.echoed(echo.token):
                self.verification.proven(now)
            return None
        black_hole = self._span.black_hole
        if source == self._endpoint:
            self.verification.proven(now)
            self._span.estimator.delay.note_probe(self._probes.last, now)
        if asked.purpose == "doubt":
            self.conclusion_deadline = now + HINDSIGHT
        elif asked.purpose in ("size", "small"):
            self._path_mtu.echoed(asked.size, now)
        elif asked.purpose == "burst":
            black_hole.burst_echoed()
        elif asked.purpose == "health" and self._probes.waiting("doubt") and black_hole.is_seen(now, self._patience):
            self._path_mtu.vanished(now)
        return asked.purpose

    def conclude(self, now: float) -> None:
        """Tell the span that records vanish for another reason than their length, once that is certain.

        It is certain if they still seem to vanish 0.25 s after a doubt probe was echoed: had bursts only been late, a
        REPORT would have come by then. They are dropped because they are bursts, or were only lost.
        """
        if now < self.conclusion_deadline:
            return
        self.conclusion_deadline = NEVER
        if self._span.black_hole.is_seen(now):
            self._span.length_passes(now, probe_vanished=self._probes.waiting("burst"))

    @property
    def _patience(self) -> float:
        return min(MOST_PATIENCE, self._probes.round_trip)

    def _search_deadline(self, *, search: bool) -> float:
        return self._path_mtu.deadline if search and self._endpoint is not None else NEVER

    def _probe(self, endpoint: Endpoint, purpose: Purpose, size: int, now: float) -> SendRecord:
        token = self._probes.asked(endpoint, purpose, size + DATA_OVERHEAD, now)
        return SendRecord(Probe(token, size).pack(), endpoint, size_matters=purpose in ("size", "doubt"))

    def _probe_by_burst(self, endpoint: Endpoint, now: float) -> SendRecord:
        """Make a PROBE that is one byte too long for a datagram of 1,200 bytes, so that it takes two."""
        token = self._probes.asked(endpoint, "burst", BASE + 1, now)
        return SendRecord(Probe(token, BASE + 1 - DATA_OVERHEAD).pack(), endpoint, size_matters=True, datagram=BASE)
