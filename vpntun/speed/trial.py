"""Part of a speed test at one end of a link: it sends load, counts what comes, or only measures round trips.

A trial is in force from its making until `close`. It sends a PROBE every 50 ms, if it is to measure: round trips tell
the rate of the load, and are themselves a result.
"""

from __future__ import annotations

import secrets

from vpntun.core.events import SendRecord
from vpntun.core.speed.arrivals import WARM_UP, Arrivals
from vpntun.core.speed.round_trips import RoundTrips
from vpntun.link.link import Link
from vpntun.link.seal_buffer import SealBuffer
from vpntun.runtime.loop import Loop
from vpntun.speed.load_sender import LoadSender
from vpntun.wire.inside.load import id_of
from vpntun.wire.record import SMALLEST_PROBE, Probe


class Trial:
    """One trial of a link. It becomes the link's `test`.

    id         tells the load of this trial from that of another
    arrivals   what has arrived of the load
    trips      the round trips during the trial
    sender     the sender of load; None if this end sends none
    """

    def __init__(self, link: Link, loop: Loop, id: int, seconds: float, *, receives: bool = False) -> None:
        self.id = id
        self.seconds = seconds
        self.link = link
        self.began_at = loop.now
        self.arrivals = Arrivals(seconds)
        self.trips = RoundTrips(loop.now)
        self.sender: LoadSender | None = None
        self._receives = receives
        self._loop = loop
        self._span = link.records.span
        self._sent_before = self._lost_before = 0
        self._is_open = True
        self._endpoint = link.endpoint
        link.test = self

    def measure(self) -> None:
        """Send PROBEs until the trial is closed."""
        if not self._is_open:
            return
        now = self._loop.now
        token = secrets.randbits(64)
        if self.link.endpoint != self._endpoint:
            self._endpoint = self.link.endpoint
            self.trips.forget_asked()
        self.trips.asked(token, now)
        self.link.act([SendRecord(Probe(token, SMALLEST_PROBE).pack())])
        self._loop.call_later(max(0.0, self.trips.due - now), self.measure)

    def send(self, seal_buffer: SealBuffer, round_trip: float) -> None:
        """Send load for the seconds of the trial. `round_trip`: that of the idle path, 0 if unknown."""
        self.sender = LoadSender(self.link, self._loop, seal_buffer, self.id, self.seconds, round_trip)
        self._loop.call_later(WARM_UP * self.seconds, self._begin_to_count)

    def close(self) -> None:
        """End the trial: no load is accepted any more, and none is sent."""
        self._is_open = False
        if self.link.test is self:
            self.link.test = None
        if self.sender is not None:
            self.sender.stop()

    @property
    def lost(self) -> tuple[int, int] | None:
        """The datagrams that were sent in the later part, and those of them that were lost; None over a stream."""
        if not self.link.records.cuts:
            return None
        return self._span.reported_sent - self._sent_before, max(0, self._span.reported_lost - self._lost_before)

    # For the link (LinkTest of link/link.py)

    def load_arrived(self, record: memoryview, now: float) -> bool:
        """Count a LOAD; return whether it belongs to this trial. Raises BadPacket."""
        if id_of(record) != self.id or not self._receives:
            return False
        self.arrivals.received(len(record), now)
        return True

    def echo_arrived(self, token: int, now: float) -> None:
        """Learn a round trip from an ECHO, if it answers a PROBE of this trial."""
        round_trip = self.trips.echoed(token, now)
        if round_trip is not None and self.sender is not None and self._endpoint is not None:
            self.sender.control.echoed(round_trip, now)
            self.sender.reached(self._endpoint, now)

    def _begin_to_count(self) -> None:
        """Count losses from now on: before, the sender looked for the rate by trying too high ones."""
        self._sent_before, self._lost_before = self._span.reported_sent, self._span.reported_lost
