"""Base class of links: start and stop, deadlines, and the actions that carry out the core's decisions.

The core decides and returns events. The executor (core/selection/executor.py) carries them out by calling the actions
of this class. SendingLink (sending_link.py) sends packets, and Link (link.py) processes what arrives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from logging import INFO

from vpntun.carriers.base import Stream
from vpntun.core.endpoint import Endpoint, Outcome
from vpntun.core.events import Event, SendRecord
from vpntun.core.queue import PacketQueue
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.records.receive_stats import INTERVAL
from vpntun.core.selection.executor import CarrierSelector, Executor
from vpntun.core.selection.reason import Reason
from vpntun.core.wireguard.peer import Peer
from vpntun.link.link_states import LinkStates
from vpntun.runtime.log import NOTICE, LineLimit
from vpntun.runtime.loop import Loop
from vpntun.runtime.schedule import Schedule
from vpntun.types import NEVER, CarrierName
from vpntun.wire.burst import BurstCutter
from vpntun.wire.message import DATA_OVERHEAD

SOONEST = INTERVAL
"""Seconds to the nearest deadline that a packet can set: that of a REPORT."""
MOST_LINES = 10
"""Log lines about one peer in ten seconds. A new session with a move writes three."""


class ControlledPeer(ABC):
    """One peer, as the core sees it.

    name             the peer's name for the log, or empty
    queue            packets that wait, unsealed
    drops            packets and messages dropped, by reason
    touched          used by the schedule
    states           the link's three states, as the monitor last saw them
    refused_since    when this host first refused to send to the endpoint in use; NEVER while it accepts
    lines            limit on log lines about this peer: one that keeps moving must not suppress those about others
    """

    def __init__(
        self,
        loop: Loop,
        schedule: Schedule,
        peer: Peer,
        selector: CarrierSelector,
        records: RecordProtocol,
        name: str,
    ) -> None:
        self.peer = peer
        self.records = records
        self.queue = PacketQueue()
        self.name = name
        self.drops: Counter[str] = Counter()
        self.touched = False
        self.states = LinkStates(loop.now)
        self.refused_since = NEVER
        self.lines = LineLimit(MOST_LINES)
        self._loop = loop
        self._schedule = schedule
        self._executor = Executor(peer, selector, records, self)
        self._stopped = False
        self._traffic_noted_until = 0.0
        self._look_again_at = NEVER
        self.touch()

    @abstractmethod
    def resolve(self) -> None:
        """Look up the peer's name again."""

    @abstractmethod
    def dial(self, carrier: CarrierName, candidate: Endpoint) -> None:
        """Open a connection of a carrier to the address of a candidate."""

    @abstractmethod
    def give_up_dials(self) -> None:
        """Give up every connection that is being opened."""

    @abstractmethod
    def renew_port(self) -> None:
        """Call from another local port from now on, if that is possible."""

    @abstractmethod
    def drain_queue(self) -> None:
        """Send the waiting packets until the path accepts no more."""

    @abstractmethod
    def _has_moved(self) -> None:
        """Note that the peer's endpoint has changed."""

    @abstractmethod
    def _has_acted(self) -> None:
        """Note that the core has decided something, which may change whether packets can be sent."""

    # State

    @property
    def endpoint(self) -> Endpoint | None:
        """Where the peer is reached now; None if that is unknown."""
        return self.peer.endpoint

    @property
    def now(self) -> float:
        """The time at which this turn of the loop began."""
        return self._loop.now

    @property
    def deadline(self) -> float:
        """When `handle_deadline` is due, on the loop's clock."""
        return min(self._executor.deadline, self._look_again_at)

    @property
    def searching(self) -> bool:
        """Whether a handshake was asked for and not answered yet, or a path to the peer is being looked for."""
        return self._executor.selector.searching

    @property
    def chosen_because(self) -> Reason:
        """Why the carrier in use was chosen, or why there is none."""
        return self._executor.selector.reason

    def at(self, endpoint: Endpoint) -> str:
        """Return the peer and an endpoint, for the log."""
        return f"{self.name} at {endpoint}" if self.name else str(endpoint)

    @property
    def destinations(self) -> list[Endpoint]:
        """The endpoints that messages may be sent to now."""
        return [] if self.peer.endpoint is None else [self.peer.endpoint]

    # Life

    def start(self) -> None:
        """Begin to keep in contact with the peer."""
        self.begin_path_again()
        self.act(self._executor.selector.start(self._loop.now))

    def stop(self) -> None:
        """Stop for good: drop the waiting packets, and carry out no more decisions."""
        self._stopped = True
        self.queue.clear()

    def keep_alive(self, seconds: float) -> None:
        """Change the interval of the persistent keepalive, in seconds; 0: no keepalive."""
        self.peer.timers.keep_alive(seconds, self._loop.now)
        self.touch()

    def touch(self) -> None:
        """Make the schedule read the deadline again."""
        if not self.touched:
            self._schedule.touch(self)

    def touched_by_traffic(self, now: float) -> None:
        """Note that something was sent or received.

        Any deadline that this sets is at least 50 ms away. So the schedule reads the link's deadline now, and again
        50 ms later, but not at each packet.
        """
        if now >= self._traffic_noted_until:
            self._traffic_noted_until = self._look_again_at = now + SOONEST
            self.touch()

    def begin_path_again(self) -> None:
        """Forget what was learned about the path to the peer: packets take another one now."""
        if self.peer.endpoint is not None:
            self.records.moved(self.peer.endpoint, self._loop.now, ipv6=self.peer.endpoint.ipv6)
            self.touch()

    def rerouted(self, *, lost: bool) -> None:
        """Note that packets to the peer take another route; `lost`: this host has lost their source address."""
        self.begin_path_again()
        self.act(self._executor.selector.rerouted(self._loop.now, lost=lost))

    def handle_deadline(self) -> None:
        """Do everything that is due now."""
        now = self._loop.now
        if now >= self._look_again_at:
            self._look_again_at = NEVER
        if not self._stopped:
            self._executor.handle_timers(now, self._loop.slept)
            self._acted()

    def act(self, events: Iterable[Event]) -> None:
        """Carry out the core's decisions."""
        if not self._stopped:
            self._executor.act(events, self._loop.now)
            self._acted()

    def woken(self) -> None:
        """Ask the peer for a handshake at once if there was a link: this process did not run for a while."""
        if not self._stopped:
            self._executor.woken(self._loop.now)
            self._acted()

    def closed(self, connection: Stream) -> None:
        """Note that a connection of this peer has closed."""
        if not self._stopped:
            self.lines.log(INFO, "the connection with %s has closed", self.at(connection))
            self.act(self._executor.selector.lost(connection, self._loop.now))

    # Actions of the executor

    def transmit(self, endpoint: Endpoint, message: bytes) -> bool:
        """Send a handshake or keepalive message; return False if this host cannot send to the endpoint."""
        if self._leads_inside(endpoint):
            return False
        outcome = endpoint.send_first(message)
        self._note_sent(outcome, endpoint)
        if outcome is Outcome.UNDELIVERABLE:
            self.drops["undeliverable"] += 1
            return False
        self.peer.sent_bytes += len(message)
        return True

    def send_record_alone(self, wanted: SendRecord) -> list[Event]:
        """Seal a record without packets and send it ahead of data. It does not start the timers that data starts."""
        now = self._loop.now
        session = self.peer.sending_session(now)
        endpoint = wanted.endpoint or self.peer.endpoint
        if session is None or endpoint is None or self._leads_inside(endpoint):
            return []
        message = memoryview(bytearray(len(wanted.record) + DATA_OVERHEAD))
        session.seal_into(wanted.record, message)
        self.peer.timers.authenticated_sent(now)
        if wanted.size_matters:
            self.records.probe_sent(session.send_counter - 1)
            size = wanted.datagram or len(message)
            datagrams = BurstCutter(message).cut(len(message), size)
            outcome = endpoint.send(datagrams, wanted.datagram, dont_fragment=True)
            if outcome is Outcome.TOO_BIG:
                return self.records.probe_refused(size, now)
        else:
            outcome = endpoint.send_first(message)
        self.peer.sent_bytes += len(message)
        self._note_sent(outcome, endpoint)
        return []

    def established(self, source: Endpoint, *, initiator: bool) -> None:
        """Log a new session."""
        asker = "this end" if initiator else "the peer"
        self.lines.log(INFO, "session with %s (asked for by %s)", self.at(source), asker)

    def moved(self, endpoint: Endpoint, former: Endpoint | None) -> None:
        """Log the peer's new endpoint, and close the connection that it replaces."""
        self.refused_since = NEVER
        if former is None:
            self.lines.log(NOTICE, "connected to %s", self.at(endpoint))
        else:
            self.lines.log(NOTICE, "%s is at %s now (it was at %s)", self.name or "the peer", endpoint, former)
            former.hang_up_later()
        self._has_moved()

    def nothing_arrives(self, endpoint: Endpoint) -> None:
        """Log that the path is dead towards the peer, whatever comes from there."""
        self.lines.log(NOTICE, "nothing sent to %s has arrived for 15 s", self.at(endpoint))

    def close_connection(self, endpoint: Endpoint) -> None:
        """Close a connection soon."""
        endpoint.hang_up_later()

    def drop_queued(self) -> None:
        """Drop the waiting packets: the peer has not answered for 90 s."""
        self.drops["no session"] += self.queue.clear()

    def _acted(self) -> None:
        self.touch()
        self._has_acted()

    def _note_sent(self, outcome: Outcome, endpoint: Endpoint) -> None:
        """Note whether a message left this host, and whether from another address than before."""
        if endpoint == self.peer.endpoint and outcome is Outcome.UNDELIVERABLE:
            self._note_refused()
        elif endpoint == self.peer.endpoint:
            self.refused_since = NEVER
        if outcome is Outcome.REROUTED and endpoint is self.peer.endpoint:
            self.begin_path_again()

    def _note_refused(self) -> None:
        if self.refused_since == NEVER:
            self.refused_since = self._loop.now
            self._has_acted()

    def _leads_inside(self, endpoint: Endpoint) -> bool:
        """Return whether a message to this endpoint would come out of the device again, and count it if so.

        The peer's current endpoint was checked when the peer moved there.
        """
        if endpoint is self.peer.endpoint or self.peer.may_move_to(endpoint):
            return False
        self.drops["routing loop"] += 1
        return True
