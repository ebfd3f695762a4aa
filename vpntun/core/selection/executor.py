"""Executor of the core's events for one peer, and of the events that follow from them.

    peer        handshakes, sessions, timers                   (core/wireguard)
    selector    where to ask for a handshake                   (core/selection)
    records     records without packets between two vpntuns    (core/records)

Each of the three returns events. The executor passes an event that concerns another of the three to it, and an event
that acts on the world to `actions`: the link of a running program, or a simulator. The consequences of an event come
before the events behind it. Events that `actions` adds meanwhile are queued after their cause, never nested.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from vpntun.core.endpoint import Endpoint
from vpntun.core.events import (
    CloseConnection,
    Confirmed,
    Dial,
    DrainQueue,
    DropQueued,
    Established,
    Event,
    GiveUpDials,
    HandshakeWanted,
    KeptAlive,
    Moved,
    NothingArrives,
    PathVerified,
    ProbePath,
    RenewPort,
    Resolve,
    SendRecord,
    SessionDoubtful,
    Transmit,
)
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.selection.reason import Reason
from vpntun.core.wireguard.peer import Peer
from vpntun.types import CarrierName


class CarrierSelector(Protocol):
    """Selector of the endpoint at which to ask for a handshake: the client's, or the server's."""

    @property
    def deadline(self) -> float:
        """When `handle_timer` is due."""

    @property
    def searching(self) -> bool:
        """Whether a path to the peer is being looked for."""

    @property
    def reason(self) -> Reason:
        """Why the carrier in use was chosen, or why there is none."""

    def start(self, now: float) -> list[Event]:
        """Begin to look for the peer."""

    def want(self, now: float) -> list[Event]:
        """Ask for a handshake, if none is being asked for."""

    def handle_timer(self, now: float) -> list[Event]:
        """Take the steps that are due."""

    def established(self, source: Endpoint, now: float, *, initiator: bool) -> list[Event]:
        """Settle on the endpoint over which a session was established, and confirm it as its initiator."""

    def verified(self, endpoint: Endpoint, now: float) -> list[Event]:
        """Move to another endpoint, which works in both directions."""

    def undeliverable(self, endpoint: Endpoint, now: float) -> list[Event]:
        """Look elsewhere: a handshake message could not leave this host for `endpoint`."""

    def lost(self, connection: Endpoint, now: float) -> list[Event]:
        """Give up a connection that has closed."""

    def rerouted(self, now: float, *, lost: bool) -> list[Event]:
        """Tell the peer this end's new address, or ask at once where it is asked for a handshake already.

        `lost`: this host no longer has the former source address, so a connection from it is dead.
        """

    def doubt_session(self, seconds: float, now: float) -> list[Event]:
        """Ask for a session, and do no more: the peer may have lost the one in use.

        `seconds`: how long it has answered nothing.
        """

    def nothing_arrives(self, now: float) -> list[Event]:
        """Look for another path: nothing that this end has sent for 15 s has arrived."""

    def woken(self, now: float) -> list[Event]:
        """Ask for a handshake at once, although one may be asked for already: this end did not run for a while."""


class Actions(Protocol):
    """Actions on the world on behalf of one peer."""

    def transmit(self, endpoint: Endpoint, message: bytes) -> bool:
        """Send a handshake or keepalive message; return False if this host cannot send there."""

    def send_record_alone(self, wanted: SendRecord) -> list[Event]:
        """Seal and send a record without packets."""

    def established(self, source: Endpoint, *, initiator: bool) -> None:
        """Note that a session is confirmed."""

    def moved(self, endpoint: Endpoint, former: Endpoint | None) -> None:
        """Note that the peer's endpoint has changed."""

    def nothing_arrives(self, endpoint: Endpoint) -> None:
        """Note that nothing which was sent to the endpoint for 15 s has arrived."""

    def close_connection(self, endpoint: Endpoint) -> None:
        """Close a connection that another endpoint has replaced."""

    def resolve(self) -> None:
        """Look the peer's name up again."""

    def dial(self, carrier: CarrierName, candidate: Endpoint) -> None:
        """Open a connection of a carrier to the address of this candidate."""

    def give_up_dials(self) -> None:
        """Give up every connection that is being opened."""

    def renew_port(self) -> None:
        """Call from another local port from now on, if that is possible."""

    def drain_queue(self) -> None:
        """Send the packets that wait, as many as possible."""

    def drop_queued(self) -> None:
        """Drop the packets that wait."""


class Executor:
    """Executor of one peer's events."""

    def __init__(self, peer: Peer, selector: CarrierSelector, records: RecordProtocol, actions: Actions) -> None:
        self.peer = peer
        self.selector = selector
        self.records = records
        self._actions = actions
        self._waiting: deque[Event] = deque()
        self._is_acting = False

    @property
    def deadline(self) -> float:
        """When `handle_timers` is due."""
        return min(self.selector.deadline, self.records.deadline, self.peer.timers.earliest())

    def handle_timers(self, now: float, slept: float) -> None:
        """Do what is due. `slept`: seconds that the loop has waited since its start."""
        self.act(self.peer.handle_timers(now), now)
        self.act(self.selector.handle_timer(now), now)
        self.act(self.records.handle_timer(now, slept), now)

    def woken(self, now: float) -> None:
        """Ask for a handshake at once if there was a session or a search: this end did not run for a while."""
        is_wanted = self.peer.keys.current is not None or self.selector.searching
        self.peer.wipe_old_keys(now)  # which would end the handshake, too, if it began before
        if is_wanted:
            self.act(self.selector.woken(now), now)

    def act(self, events: Iterable[Event], now: float) -> None:
        """Carry out events in order. Those of a nested call are queued behind the current one."""
        waiting = self._waiting
        waiting.extend(events)
        if self._is_acting:
            return
        self._is_acting = True
        try:
            while waiting:
                waiting.extendleft(reversed(self._act_on(waiting.popleft(), now)))
        finally:
            self._is_acting = False
            waiting.clear()

    def _act_on(self, event: Event, now: float) -> list[Event]:
        """Carry out one event; return the events that follow from it."""
        actions = self._actions
        match event:
            case Transmit(endpoint, message):
                if not actions.transmit(endpoint, message):
                    return self.selector.undeliverable(endpoint, now)
            case SendRecord():
                return actions.send_record_alone(event)
            case HandshakeWanted():
                return self.selector.want(now)
            case KeptAlive():
                return self.records.ask_whether_anything_arrives(now)
            case SessionDoubtful(seconds):
                return self.selector.doubt_session(seconds, now)
            case NothingArrives():
                if self.peer.endpoint is None:  # nothing was sent either
                    return []
                actions.nothing_arrives(self.peer.endpoint)
                return self.selector.nothing_arrives(now)
            case Established(source, initiator):
                actions.established(source, initiator=initiator)
                return [*self.selector.established(source, now, initiator=initiator), Confirmed(), DrainQueue()]
            case Confirmed():
                if self.peer.keys.current is not None:
                    return self.records.confirmed(self.peer.keys.current, now)
            case Moved(endpoint, former):
                actions.moved(endpoint, former)
                self.records.moved(endpoint, now, ipv6=endpoint.ipv6)
                return [DrainQueue()]
            case ProbePath(endpoint):
                return self.records.try_path(endpoint, now) or self.peer.initiate(endpoint, now)
            case PathVerified(endpoint):
                return self.selector.verified(endpoint, now)
            case CloseConnection(endpoint):
                actions.close_connection(endpoint)
            case Resolve():
                actions.resolve()
            case Dial(carrier, candidate):
                actions.dial(carrier, candidate)
            case GiveUpDials():
                actions.give_up_dials()
            case RenewPort():
                actions.renew_port()
            case DrainQueue():
                actions.drain_queue()
            case DropQueued():
                actions.drop_queued()
        return []
