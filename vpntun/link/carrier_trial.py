"""Trial, on request, of the carrier that a client's link does not use. The tunnel's packets stay where they are.

    datagrams    a PROBE goes to each address of the peer, again each second
    stream       each address is dialled, and a PROBE goes over each connection that opens, which is closed at the end

A PROBE moves no endpoint, so neither end moves, and only an ECHO counts, which nobody but the peer can make. A trial
takes 5 s at most. These are its outcomes:

    answered       the ECHO came from where its PROBE was sent to: packets pass both ways
    refused        the machine, or a firewall, says that nobody listens there
    unreachable    this machine or a router says that there is no way
    forbidden      this machine's own packet filter or routing rules let nothing out
    silent         nothing came
    open           a connection was made, but nothing came by it, or it was closed
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, Protocol

from vpntun.carriers.base import ConnectionOwner, Stream
from vpntun.core.endpoint import Endpoint, Outcome
from vpntun.runtime.loop import Loop
from vpntun.types import DIALLED, NEVER, CarrierName

TrialOutcome = Literal["answered", "refused", "unreachable", "forbidden", "silent", "open"]

SECONDS = 5.0
SECONDS_BETWEEN_PROBES = 1.0
SECONDS_BETWEEN_TRIALS = 10.0
MOST_ADDRESSES = 4
BEST_FIRST: tuple[TrialOutcome, ...] = ("open", "refused", "silent", "forbidden", "unreachable")
"""Failures, from the one that comes from nearest to the peer: where addresses differ, the best of them is reported."""


class Tried(Protocol):
    """Calls of a trial to the link that it is made for."""

    @property
    def endpoint(self) -> Endpoint | None:
        """Where the peer is reached now."""

    def dial_for(
        self,
        trial: ConnectionOwner,
        carrier: CarrierName,
        candidate: Endpoint,
        on_done: Callable[[Stream | None], None],
    ) -> None:
        """Open a connection, which the trial owns."""

    def give_up_dials_for(self, trial: ConnectionOwner) -> None:
        """Give up the connections that are being opened for the trial."""

    def opened_for_trial(self, connection: Stream) -> None:
        """Note that a connection has opened."""

    def probe(self, endpoint: Endpoint, token: int) -> None:
        """Send a PROBE."""

    def ready(self, connection: Stream) -> None:
        """Note that a connection accepts data again."""

    def closed(self, connection: Stream) -> None:
        """Note that a connection has closed."""


class _Asked(NamedTuple):
    """A PROBE that was sent."""

    where: Endpoint
    at: float


class CarrierTrial(ConnectionOwner):
    """One trial of `carrier`, in a link that uses the carrier `used`, from its start to its end.

    outcome       None while the trial is under way
    round_trip    seconds from the PROBE to its ECHO; 0 without one
    where         the address that has answered, or whose failure is the outcome, for people
    began         when the trial began, by the loop's clock
    """

    def __init__(
        self, link: Tried, loop: Loop, carrier: CarrierName, used: CarrierName, candidates: Sequence[Endpoint]
    ) -> None:
        self.carrier, self.used = carrier, used
        self.outcome: TrialOutcome | None = None
        self.round_trip = 0.0
        self.began = loop.now
        self.where = candidates[0].where
        self._link = link
        self._loop = loop
        self._candidates = candidates[:MOST_ADDRESSES]
        self._failures: dict[str, TrialOutcome] = {}
        self._why_not: TrialOutcome = "unreachable"
        self._dialling = 0
        self._connections: list[Stream] = []
        self._asked: dict[int, _Asked] = {}
        self._probe_at = NEVER

    def begin(self) -> None:
        """Send the first PROBEs, or dial."""
        if self.carrier not in DIALLED:
            self._probe_all()
            return
        self._dialling = len(self._candidates)
        for candidate in self._candidates:
            self._link.dial_for(self, self.carrier, candidate, partial(self._dialled, candidate))

    @property
    def is_recent(self) -> bool:
        """Whether the trial is under way, or began so lately that no other may follow."""
        return self.outcome is None or self._loop.now - self.began < SECONDS_BETWEEN_TRIALS

    @property
    def deadline(self) -> float:
        """When `handle_timer` is due."""
        return NEVER if self.outcome is not None else min(self._probe_at, self.began + SECONDS)

    def handle_timer(self, now: float) -> None:
        """Repeat the PROBEs, or end."""
        if now >= self.began + SECONDS:
            self._fail()
        elif now >= self._probe_at:
            self._probe_all()

    def echoed(self, token: int, source: Endpoint, now: float) -> bool:
        """Return whether an ECHO shows that the carrier works. It is the trial's last."""
        asked = self._asked.get(token)
        if self.outcome is not None or asked is None or asked.where != source:
            return False
        self.round_trip, self.where = max(now - asked.at, 1e-6), source.where
        self._end("answered")
        return True

    def note_sent(self, outcome: Outcome, endpoint: Endpoint) -> None:
        """Note whether a PROBE has left this host."""
        if outcome is Outcome.UNDELIVERABLE and self.carrier not in DIALLED:
            self._failures[endpoint.where] = "unreachable"

    def stop(self) -> None:
        """Stop, since the link does. The link closes the connections."""
        self._link.give_up_dials_for(self)
        self.outcome = self.outcome or "silent"

    # Events of connections

    def dial_failed(self, error: OSError) -> None:
        """Note why a connection could not be opened, before `_dialled` is called."""
        self._why_not = _outcome_of(error)

    def ready(self, connection: Stream) -> None:
        """Tell the link, whose endpoint the connection may have become."""
        self._link.ready(connection)

    def closed(self, connection: Stream) -> None:
        """Tell the link. If the other end has closed all connections, nobody answers there."""
        self._link.closed(connection)
        self._connections.remove(connection)
        self._failures[connection.where] = "open"
        self._end_if_nothing_is_left()

    def _dialled(self, candidate: Endpoint, connection: Stream | None) -> None:
        self._dialling -= 1
        if connection is None:
            self._failures[candidate.where] = self._why_not
            self._end_if_nothing_is_left()
            return
        self._link.opened_for_trial(connection)
        self._connections.append(connection)
        self._probe(connection)

    # Inside

    def _probe_all(self) -> None:
        """Send a PROBE to each address. The trial ends if this host can send to none."""
        self._probe_at = self._loop.now + SECONDS_BETWEEN_PROBES
        self._failures.clear()
        for candidate in self._candidates:
            self._probe(candidate)
        if len(self._failures) == len(self._candidates):
            self._fail()

    def _probe(self, endpoint: Endpoint) -> None:
        token = secrets.randbits(64)
        self._asked[token] = _Asked(endpoint, self._loop.time())
        self._link.probe(endpoint, token)

    def _end_if_nothing_is_left(self) -> None:
        if self.outcome is None and not self._dialling and not self._connections:
            self._fail()

    def _fail(self) -> None:
        """End with the best outcome of all addresses. One with a connection is open, one without any news silent."""
        outcomes: dict[str, TrialOutcome] = dict.fromkeys((each.where for each in self._candidates), "silent")
        outcomes.update({each.where: "open" for each in self._connections})
        outcomes.update(self._failures)
        self.where = min(outcomes, key=lambda where: BEST_FIRST.index(outcomes[where]))
        self._end(outcomes[self.where])

    def _end(self, outcome: TrialOutcome) -> None:
        """End, and close the connections in the next turn: one of them may be read from in this turn."""
        self.outcome = outcome
        self._asked.clear()
        self._link.give_up_dials_for(self)
        for connection in self._connections:
            self._loop.call_later(0.0, partial(self._close_unused, connection))

    def _close_unused(self, connection: Stream) -> None:
        if self._link.endpoint != connection:
            connection.close()


def _outcome_of(error: OSError) -> TrialOutcome:
    match error.errno:
        case errno.ECONNREFUSED:
            return "refused"
        case errno.EPERM | errno.EACCES:
            return "forbidden"
        case errno.ETIMEDOUT:
            return "silent"
    return "unreachable"
