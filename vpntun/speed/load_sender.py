"""Sender of a speed test's load: as fast as the path takes it (core/speed/rate_control.py), after all other packets.

    packets wait in the link's queue         no load is sent
    no PROBE to the endpoint in use was      no load is sent: a peer can name an endpoint that is not its own, and can
    echoed in the last 2 s                   invent REPORTs, but not ECHOs of what it does not get
    the endpoint is not ready                no load is sent: a TCP connection limits its sender
    the loop does other work                 a slice of load takes at most as long as that work took
    it does none                             a slice takes 2 ms, and then the loop looks for other work
    no REPORT came for 2 s                   the sending ends
    the test's seconds are over              the sending ends

Other traffic of the link counts as sent, so the load is what is left of the rate.
"""

from __future__ import annotations

from vpntun.core.endpoint import Endpoint
from vpntun.core.speed.rate_control import Acknowledged, RateControl
from vpntun.link.link import Link
from vpntun.link.seal_buffer import SealBuffer
from vpntun.runtime.loop import Loop
from vpntun.wire.inside.load import SMALLEST_LOAD, new_load
from vpntun.wire.message import DATA_OVERHEAD

SILENCE = 2.0
LONGEST_SLICE, SHORTEST_SLICE = 0.002, 0.0002
LITTLE_WORK = 0.0005
"""Seconds of other work in a turn of the loop, as for REPORTs and ECHOs, to which load needs not yield."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.1
AT_ONCE = 0.002
"""Seconds of the rate that are worth a call."""
SMALL = 1200


class LoadSender:
    """Sender of one test's load to a link's peer.

    control     the rate at which it sends
    has_ended   whether it has stopped sending
    was_silent  whether it did so because no REPORT came
    delivered   bytes that the peer has reported, those of other traffic among them
    """

    def __init__(
        self,
        link: Link,
        loop: Loop,
        seal_buffer: SealBuffer,
        id: int,
        seconds: float,
        round_trip: float,
    ) -> None:
        """`round_trip`: that of the idle path, 0 if unknown."""
        self.has_ended = self.was_silent = False
        self._link, self._loop, self._seal_buffer = link, loop, seal_buffer
        self._load = new_load(id)
        now = loop.now
        self._until = now + seconds
        self._span = link.records.span
        self.control = RateControl(now, round_trip, self._span.estimator.rate)
        self._seen = self._span.sent_log.bytes
        self._before = -self._seen
        self._report = self._span.last_report
        self._heard_at = now
        self.delivered = 0.0
        self._reached: Endpoint | None = None
        self._reached_at = now
        self._slice_ended_at, self._slept = now, loop.slept
        self._turn()

    def stop(self) -> None:
        """Stop sending."""
        self.has_ended = True

    def reached(self, endpoint: Endpoint, now: float) -> None:
        """Note that the peer has echoed a PROBE that was sent to this endpoint."""
        self._reached, self._reached_at = endpoint, now

    def _turn(self) -> None:
        """Send what may be sent now, and come back when more may be."""
        if self.has_ended:
            return
        now = self._loop.now
        self._learn(now)
        self.was_silent = now - self._heard_at >= SILENCE
        if now >= self._until or self.was_silent:
            self.stop()
            return
        pause = self._send_slice(now)
        self._slice_ended_at, self._slept = self._loop.time(), self._loop.slept
        self._loop.call_later(min(pause, LONGEST_PAUSE), self._turn)

    def _send_slice(self, now: float) -> float:
        """Send load for a slice of time; return the seconds until the next one."""
        link, time = self._link, self._loop.time
        if link.queue.size or link.endpoint != self._reached or now - self._reached_at >= SILENCE:
            return SHORTEST_PAUSE
        allowed = self.control.allowance(self._before + self._span.sent_log.bytes, now)
        end = time() + self._slice(now)
        count = 0
        is_in_time = True
        while (room := link.room_for_record()) > SMALLEST_LOAD:
            wanted = min(room, max(SMALL, int(self.control.rate * AT_ONCE)))
            if allowed < wanted:
                break
            size = min(room, allowed)
            link.send_record(self._load[:size], 0)
            allowed -= size + DATA_OVERHEAD
            count += 1
            if time() >= end:
                is_in_time = False
                break
        self._seal_buffer.flush()
        if count:
            link.note_backlog(count - is_in_time)
        if not is_in_time:
            return 0.0
        return SHORTEST_PAUSE if room <= SMALLEST_LOAD else max(SHORTEST_PAUSE, self.control.seconds_until(wanted))

    def _slice(self, now: float) -> float:
        """Return how long a slice may take, from how long the loop has worked for others since the last one."""
        work = now - self._slice_ended_at - (self._loop.slept - self._slept)
        return LONGEST_SLICE if work <= LITTLE_WORK else min(LONGEST_SLICE, max(SHORTEST_SLICE, work))

    def _learn(self, now: float) -> None:
        """Tell the rate control what the peer has reported."""
        span, former = self._span, self._report
        if span.sent_log.bytes < self._seen:  # another session, whose totals begin at zero
            self._before += self._seen
            self._report = former = span.last_report
            self.control.begin_session(self._before)
        self._seen = span.sent_log.bytes
        report = span.last_report
        if report is former:
            return
        self._report, self._heard_at = report, now
        records = report.highest - former.highest
        if records <= 0:
            return
        arrived = 1 - min(1.0, max(0, report.lost - former.lost) / records)
        self.delivered += (report.bytes - former.bytes) * arrived
        sent = self._before + report.bytes
        if sent > 0:
            self.control.reported(Acknowledged(report.at, report.sent_at, sent, self.delivered))
