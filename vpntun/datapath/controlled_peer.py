"""One peer under the core's control: its life, its deadlines, and acting on what the core decides.

The core decides and returns events; the executor carries them out (core/selection/executor.py) and calls the actions
here. Packets are the link's matter (link.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from logging import INFO

from vpntun.core.endpoint import Endpoint, Outcome
from vpntun.core.events import Event, SendRecord
from vpntun.core.queue import PacketQueue
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.records.receive_stats import INTERVAL
from vpntun.core.selection.executor import CarrierSelector, Executor
from vpntun.core.wireguard.peer import Peer
from vpntun.runtime.log import NOTICE, LineLimit
from vpntun.runtime.loop import Loop
from vpntun.runtime.schedule import Schedule
from vpntun.types import NEVER, CarrierName
from vpntun.wire.message import DATA_OVERHEAD

SOONEST = INTERVAL
"""Seconds to the nearest deadline that a packet may set: a REPORT's."""
MOST_LINES = 10
"""Log lines about one peer in ten seconds: a rekey with a move writes three."""


class ControlledPeer(ABC):
    """What a link is to the core.

    name        the peer's name for the log, or empty
    queue       packets that wait, unsealed
    drops       packets and messages dropped, by reason
    touched     used by the schedule
    lines       limits what is logged about this peer, so that one that keeps moving does not crowd others out
    """

    def __init__(
        self,
        loop: Loop,
        schedule: Schedule,
        peer: Peer,
        selector: CarrierSelector,
        records: RecordProtocol,
        name: str,
        drops: Counter[str],
    ) -> None:
        self.peer = peer
        self.records = records
        self.queue = PacketQueue()
        self.name = name
        self.drops = drops
        self.touched = False
        self.lines = LineLimit(MOST_LINES)
        self._loop = loop
        self._schedule = schedule
        self._executor = Executor(peer, selector, records, self)
        self._stopped = False
        self._asked_until = 0.0
        self._asked_again_at = NEVER
        self.touch()

    @abstractmethod
    def resolve(self) -> None:
        """Look the peer's name up again."""

    @abstractmethod
    def dial(self, carrier: CarrierName, candidate: Endpoint) -> None:
        """Open a connection of a carrier to the address of a candidate."""

    @abstractmethod
    def drain_queue(self) -> None:
        """Send the packets that wait, as far as they can leave."""

    @abstractmethod
    def _has_moved(self) -> None:
        """Note that the peer's endpoint has changed."""

    @abstractmethod
    def _has_acted(self) -> None:
        """Note that the core has decided something: packets may leave that could not, or no longer."""

    # State

    @property
    def endpoint(self) -> Endpoint | None:
        """Where the peer is reached."""
        return self.peer.endpoint

    @property
    def now(self) -> float:
        """The time at which this turn of the loop began."""
        return self._loop.now

    @property
    def deadline(self) -> float:
        """When `handle_deadline` is due, on the loop's clock."""
        return min(self._executor.deadline, self._asked_again_at)

    @property
    def searching(self) -> bool:
        """Whether a handshake is being asked for, or a path to the peer looked for."""
        return self._executor.selector.searching

    def at(self, endpoint: Endpoint) -> str:
        """Return the peer and an endpoint, for the log."""
        return f"{self.name} at {endpoint}" if self.name else str(endpoint)

    # Life

    def start(self) -> None:
        """Begin."""
        now = self._loop.now
        if self.peer.endpoint is not None:
            self.records.moved(self.peer.endpoint, now, ipv6=self.peer.endpoint.ipv6)
        self.act(self._executor.selector.start(now))

    def stop(self) -> None:
        """End for good: nothing is carried out any more."""
        self._stopped = True
        self.queue.clear()

    def keep_alive(self, seconds: float) -> None:
        """Set another interval for the persistent keepalive, in seconds; 0: none."""
        self.peer.timers.keep_alive(seconds, self._loop.now)
        self.touch()

    def touch(self) -> None:
        """Have the schedule ask for the deadline again."""
        if not self.touched:
            self._schedule.touch(self)

    def touched_by_traffic(self, now: float) -> None:
        """Note that something was sent or received.

        Any deadline that this sets is at least 50 ms away. So the link is asked for its deadline now, and again 50 ms
        later, but not at each packet.
        """
        if now >= self._asked_until:
            self._asked_until = self._asked_again_at = now + SOONEST
            self.touch()

    def handle_deadline(self) -> None:
        """Do what is due."""
        now = self._loop.now
        if now >= self._asked_again_at:
            self._asked_again_at = NEVER
        if not self._stopped:
            self._executor.handle_timers(now, self._loop.slept)
            self._acted()

    def act(self, events: Iterable[Event]) -> None:
        """Carry out what the core has decided."""
        if not self._stopped:
            self._executor.act(events, self._loop.now)
            self._acted()

    def closed(self, connection: Endpoint) -> None:
        """Note that a connection of this peer has closed."""
        if not self._stopped:
            self.lines.log(INFO, "the connection with %s has closed", self.at(connection))
            self.act(self._executor.selector.lost(connection, self._loop.now))

    # Actions of the executor

    def transmit(self, endpoint: Endpoint, message: bytes) -> bool:
        """Send a handshake or keepalive message; False where this host cannot send there."""
        if self._leads_inside(endpoint):
            return False
        if endpoint.send_first(message) is Outcome.UNDELIVERABLE:
            self.drops["undeliverable"] += 1
            return False
        self.peer.sent_bytes += len(message)
        return True

    def send_record_alone(self, wanted: SendRecord) -> list[Event]:
        """Seal and send a record without packets: it goes first, and arms none of data's timers."""
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
            if endpoint.send([message], dont_fragment=True) is Outcome.TOO_BIG:
                return self.records.probe_refused(len(message), now)
        else:
            endpoint.send_first(message)
        self.peer.sent_bytes += len(message)
        return []

    def established(self, source: Endpoint, *, initiator: bool) -> None:
        """Log a new session."""
        self.lines.log(INFO, "session with %s (%s)", self.at(source), "we asked" if initiator else "it asked")

    def moved(self, endpoint: Endpoint, former: Endpoint | None) -> None:
        """Log another endpoint, and close the connection that it replaces."""
        if former is None:
            self.lines.log(NOTICE, "connected to %s", self.at(endpoint))
        else:
            self.lines.log(NOTICE, "%s is at %s now (it was at %s)", self.name or "the peer", endpoint, former)
            former.hang_up_later()
        self._has_moved()

    def close_connection(self, endpoint: Endpoint) -> None:
        """Close a connection soon."""
        endpoint.hang_up_later()

    def drop_queued(self) -> None:
        """Drop the packets that wait: nobody answered for 90 s."""
        self.drops["no session"] += self.queue.clear()

    def _acted(self) -> None:
        self.touch()
        self._has_acted()

    def _leads_inside(self, endpoint: Endpoint) -> bool:
        """Whether a message to an endpoint that the peer has not moved to would come out of the device again."""
        if endpoint is self.peer.endpoint or self.peer.may_move_to(endpoint):
            return False
        self.drops["routing loop"] += 1
        return True
