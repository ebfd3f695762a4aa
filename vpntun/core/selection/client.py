"""The client's choice of carriers: find a path, keep it, and prefer the first carrier. It never gives up.

    search              the carrier that worked last at once, the others 2 s later; the first to authenticate ends it.
                        Over UDP an initiation goes to one address after the other, a quarter of a second apart. A
                        carrier that needs dialling is dialled in the same way, and initiations go over the first
                        connection that opens (round.py).
    on UDP              connections are closed.
    on a connection     UDP is tried after 30 s, doubling to 10 min, with a PROBE or a handshake; its answer moves the
                        link.
    ports               over UDP, the fourth round comes from a fresh port, and so on (ports.py). On a connection each
                        trial of UDP after the first does.
    silence             no session, or no answer for 15 s: a search, while the path in use stays in use.
    connection closed   a search.
    rerouted            packets leave this host by another route, or from another address: a keepalive shows the peer
                        the new address, and a PROBE tests whether it arrives. Over a connection, a search. While
                        searching, the next tries come at once. Dials under way are given up, because they are made
                        from the former address.
    session in doubt    nothing that was sent for 5 s has arrived: over UDP an initiation to the endpoint in use, and no
                        search, because the server may just have lost its sessions.
    nothing arrives     of what this end has sent for 15 s, though the peer may be heard: a search that dials again,
                        since a connection in use may be dead.
    woken               after a pause of this end: the same, and the name is looked up.

Pauses follow backoff.py. Every attempt also looks the name up; until that answers, the known addresses serve.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from vpntun.core.endpoint import Endpoint
from vpntun.core.events import (
    CloseConnection,
    Dial,
    DropQueued,
    Event,
    GiveUpDials,
    KeptAlive,
    ProbePath,
    RenewPort,
    Resolve,
)
from vpntun.core.records.black_hole import NOTHING_ARRIVES_AFTER
from vpntun.core.selection.backoff import pause
from vpntun.core.selection.ports import Ports
from vpntun.core.selection.reason import Reason, ReasonsOfClient
from vpntun.core.selection.round import MOST_AT_ONCE, Round
from vpntun.core.wireguard.peer import Peer
from vpntun.core.wireguard.timers import LARGEST_JITTER, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT
from vpntun.types import DIALLED, NEVER, CarrierName, Transport, carriers_of

BESIDE_AFTER = 2.0
SHORTEST_PAUSE = 1.0
FIRST_TRIAL = 30.0
LAST_TRIAL = 600.0
ASKED_PER_CONNECTION = 3


class ClientCarriers:
    """The decisions of the end that calls: where to ask `peer` for a handshake, and which carrier to use."""

    def __init__(self, peer: Peer, transport: Transport, rng: random.Random) -> None:
        self._peer = peer
        self._rng = rng
        self._allowed = carriers_of(transport)
        self._worked_last = self._allowed[0]
        self._candidates: list[Endpoint] = []
        self._due: dict[CarrierName, float] = dict.fromkeys(self._allowed, NEVER)
        self._searching_since = NEVER
        self._trial_at = NEVER
        self._trial_pause = FIRST_TRIAL
        self._rounds = {carrier: Round() for carrier in self._allowed}
        self._dials = dict.fromkeys(self._allowed, 0)
        self._ports = Ports()
        self._connections: dict[CarrierName, Endpoint] = {}
        self._asked_on: dict[CarrierName, int] = {}
        self._reasons = ReasonsOfClient(self._allowed)

    @property
    def deadline(self) -> float:
        """When `handle_timer` is due."""
        return min(*self._due.values(), *(each.next_at for each in self._rounds.values()), self._trial_at)

    @property
    def allowed(self) -> Sequence[CarrierName]:
        """The carriers that may be used, by preference."""
        return self._allowed

    @property
    def candidates(self) -> list[Endpoint]:
        """The addresses that the peer's name had last, as UDP endpoints."""
        return self._candidates

    @property
    def searching(self) -> bool:
        """Whether a search is under way, because no path is known to work."""
        return self._searching_since != NEVER

    @property
    def reason(self) -> Reason:
        """Why the carrier in use was chosen, or why there is none."""
        endpoint = self._peer.endpoint
        carrier = endpoint.carrier if endpoint is not None else None
        return self._reasons.reason(carrier, has_address=bool(self._candidates))

    def start(self, now: float) -> list[Event]:
        """Begin the first search, without waiting for a packet."""
        return self._search(self._allowed[0], now)

    def want(self, now: float) -> list[Event]:
        """Ask for a handshake on the carrier in use, and on the others should that not answer."""
        if self.searching:
            return []
        return self._search(self._worked_last, now, self._peer.timers.unanswered_since)

    def resolved(self, candidates: list[Endpoint], now: float) -> list[Event]:
        """Take in the addresses that the name has now, as UDP endpoints; where there are none, keep the old ones."""
        if not candidates:
            return []
        first = not self._candidates
        self._candidates = candidates
        if first and self.searching:
            self._due[self._allowed[0]] = now
        return self.handle_timer(now)

    def renewed(self, candidates: list[Endpoint], now: float) -> None:
        """Call the same addresses from a fresh local port. If none can be called any more, look the name up again."""
        self._candidates = candidates
        self._ports.renewed()
        if self.searching and not candidates:
            for carrier in self._allowed:
                self._rounds[carrier].end()
                self._due[carrier] = min(self._due[carrier], now + self._pause(SHORTEST_PAUSE, now))

    def handle_timer(self, now: float) -> list[Event]:
        """Take the next step on each carrier whose time has come."""
        events: list[Event] = []
        if now - self._searching_since > REKEY_ATTEMPT_TIME:
            events.append(DropQueued())
        for carrier in self._allowed:
            ask, ask_another = (
                (self._ask_over_connection, self._dial) if carrier in DIALLED else (self._ask, self._ask_another)
            )
            if now >= self._due[carrier]:
                events += ask(carrier, now)
            elif now >= self._rounds[carrier].next_at:
                events += ask_another(carrier, now)
        if now >= self._trial_at:
            events += self._try_first_carrier(now)
        return events

    def undeliverable(self, endpoint: Endpoint, now: float) -> list[Event]:
        """Ask the next address at once, since this host cannot send to this one; each address once a round."""
        carrier = endpoint.carrier
        if carrier in DIALLED or not self.searching or not self._rounds[carrier].left:
            return []
        return [*self._ask_another(carrier, now, but=endpoint), Resolve()]

    def dialled(self, connection: Endpoint, now: float) -> list[Event]:
        """Use a new connection: continue the live session there at once, and ask for a new one."""
        carrier = connection.carrier
        self._dials[carrier] -= 1
        if not self.searching or carrier in self._connections:
            return [CloseConnection(connection)]
        self._rounds[carrier].end()
        self._connections[carrier] = connection
        self._asked_on[carrier] = 0
        self._peer.forget_handshake(carrier)
        return self._peer.keepalive(connection, now) + self._ask_over_connection(carrier, now)

    def dial_failed(self, carrier: CarrierName, now: float) -> list[Event]:
        """Dial the next address, or all again later: the connection was refused, unreachable or too slow."""
        self._dials[carrier] -= 1
        if self.searching and carrier not in self._connections:
            if self._rounds[carrier].left:
                self._rounds[carrier].next_at = now
            elif not self._dials[carrier]:
                self._due[carrier] = now + self._pause(SHORTEST_PAUSE, now)
        return []

    def lost(self, connection: Endpoint, now: float) -> list[Event]:
        """Give up a connection that has closed, and search where it was in use."""
        carrier = connection.carrier
        if connection == self._connections.get(carrier):
            del self._connections[carrier]
            self._peer.forget_handshake(carrier)
        elif connection != self._peer.endpoint:  # it may be the endpoint though it was given up: it answered late
            return []
        if self._peer.endpoint != connection:
            if self.searching:
                self._due[carrier] = now + self._pause(SHORTEST_PAUSE, now)
            return []
        self._peer.endpoint = None
        self._trial_at = NEVER
        return self._search(carrier, now)

    def rerouted(self, now: float, *, lost: bool) -> list[Event]:
        """Tell the peer this end's new address by a keepalive; search over a connection. If searching, try at once."""
        endpoint = self._peer.endpoint
        if endpoint is not None and endpoint.is_stream and lost:
            return [CloseConnection(endpoint), *self._forget_tries(), *self.lost(endpoint, now)]
        if self.searching:
            return [Resolve(), *self._forget_tries(), *self._try_all(self._worked_last, now)]
        if endpoint is not None and endpoint.is_stream:
            return self.woken(now)
        return [*self._peer.keepalive(endpoint, now), KeptAlive()]

    def doubt_session(self, seconds: float, now: float) -> list[Event]:
        """Ask for a session on the path in use. A server that has lost its sessions answers nothing else.

        A path may also be slow, so two round trips are waited for. A connection would have closed.
        """
        endpoint = self._peer.endpoint
        if self.searching or endpoint is None or endpoint.is_stream or seconds < 2 * self._peer.round_trip:
            return []
        return self._peer.initiate(endpoint, now)

    def nothing_arrives(self, now: float) -> list[Event]:
        """Search, while the path in use stays in use: nothing that this end has sent for 15 s has arrived."""
        if self.searching:
            return []
        since = min(now - NOTHING_ARRIVES_AFTER, self._peer.timers.unanswered_since)
        return [*self._leave_connections(), *self._search(self._worked_last, now, since)]

    def woken(self, now: float) -> list[Event]:
        """Search as at the start: this end did not run for a while, so another network or address may be in use."""
        return [Resolve(), *self._forget_tries(), *self._search(self._worked_last, now)]

    def established(self, source: Endpoint, now: float, *, initiator: bool) -> list[Event]:
        """Settle on `source`, which works in both directions. As the initiator this end confirms with a keepalive."""
        if not self._peer.may_move_to(source):
            return []
        events: list[Event] = []
        endpoint = self._peer.endpoint
        if self.searching or source.carrier not in DIALLED or endpoint is None or endpoint.carrier in DIALLED:
            events += self._settle_on(source, now)
        if initiator:
            events += self._peer.keepalive(self._peer.endpoint, now)
        return events

    def verified(self, endpoint: Endpoint, now: float) -> list[Event]:
        """Move to an endpoint that was probed and works in both directions; a keepalive has the other end follow."""
        if not self._peer.may_move_to(endpoint):
            return []
        return self._settle_on(endpoint, now) + self._peer.keepalive(endpoint, now)

    def _settle_on(self, source: Endpoint, now: float) -> list[Event]:
        self._searching_since = NEVER
        self._due = dict.fromkeys(self._allowed, NEVER)
        for each in self._rounds.values():
            each.end()
        events = self._peer.move_to(source)
        self._worked_last = source.carrier
        self._reasons.settled(source.carrier)
        self._asked_on.clear()
        if source.carrier not in DIALLED:
            self._trial_at = NEVER
            events += [CloseConnection(connection) for connection in self._connections.values()]
            self._connections.clear()
        elif self._allowed[0] not in DIALLED and self._trial_at == NEVER:
            self._trial_pause = FIRST_TRIAL
            self._trial_at = now + FIRST_TRIAL
        return events

    def _search(self, first: CarrierName, now: float, unanswered_since: float = NEVER) -> list[Event]:
        """Search, beginning on a carrier. `unanswered_since`: since when the path in use has left data unanswered."""
        self._searching_since = now
        endpoint = self._peer.endpoint
        self._reasons.asked(now, unanswered_since, endpoint.carrier if endpoint is not None else None)
        self._ports.begin(now)
        return self._try_all(first, now)

    def _try_all(self, first: CarrierName, now: float) -> list[Event]:
        """Begin a new round on every carrier: on the first at once, on the others a bit later."""
        for carrier in self._allowed:
            self._rounds[carrier].end()
            self._due[carrier] = now if carrier == first else now + BESIDE_AFTER
        return self.handle_timer(now)

    def _forget_tries(self) -> list[Event]:
        """Forget handshakes and dials under way, and connections: none of them may reach the peer any more."""
        for carrier in self._allowed:
            self._peer.forget_handshake(carrier)
            self._dials[carrier] = 0
        return [GiveUpDials(), *self._leave_connections()]

    def _leave_connections(self) -> list[Event]:
        """Have a connection dialled next, instead of asking on one that is open: it may be dead."""
        unused = [each for each in self._connections.values() if each != self._peer.endpoint]
        self._connections.clear()
        return list(map(CloseConnection, unused))

    def _ask(self, carrier: CarrierName, now: float) -> list[Event]:
        """Begin a round of initiations over a carrier that needs no dialling."""
        count = len(self._candidates)
        if not count:
            self._due[carrier] = now + self._pause(SHORTEST_PAUSE, now)
            return [Resolve()]
        self._due[carrier] = now + self._pause(REKEY_TIMEOUT + self._jitter(), now)
        endpoint, its_round = self._peer.endpoint, self._rounds[carrier]
        its_round.begin(count, min(count, MOST_AT_ONCE))
        if endpoint is not None and endpoint.carrier == carrier and now - self._searching_since < REKEY_TIMEOUT:
            return self._peer.initiate(endpoint, now)
        self._ports.next_round()
        if self._ports.is_fresh:  # an answer that the peer was sent from the other port must not delay this initiation
            self._peer.forget_handshake(carrier)
        events = self._peer.initiate(self._next_to_ask(carrier), now)
        if events:
            its_round.asked(now, self._peer.round_trip)
        return [*events, *([RenewPort()] if self._ports.wants_another(now) else ()), Resolve()]

    def _ask_another(self, carrier: CarrierName, now: float, but: Endpoint | None = None) -> list[Event]:
        """Send the initiation to the next address too, or to the one after it if that is `but`."""
        candidate = self._next_to_ask(carrier)
        if candidate == but:
            candidate = self._next_to_ask(carrier)
        self._rounds[carrier].asked(now, self._peer.round_trip)
        return self._peer.initiate_also(candidate, now)

    def _next_to_ask(self, carrier: CarrierName) -> Endpoint:
        """Return the next address to ask: from the port that worked last there, unless a fresh one has its turn."""
        candidate, endpoint = self._next_candidate(carrier), self._peer.endpoint
        return candidate if self._ports.is_fresh or endpoint is None or candidate != endpoint else endpoint

    def _try_first_carrier(self, now: float) -> list[Event]:
        self._trial_pause = min(LAST_TRIAL, 2 * self._trial_pause)
        self._trial_at = now + self._trial_pause
        if self.searching or not self._candidates:
            return [Resolve()]
        return [ProbePath(self._next_candidate(self._allowed[0])), RenewPort(), Resolve()]

    def _ask_over_connection(self, carrier: CarrierName, now: float) -> list[Event]:
        """Send an initiation over this carrier's connection, or dial one."""
        connection = self._connections.get(carrier)
        if connection is not None:
            asked = self._asked_on.get(carrier, 0)
            if asked < ASKED_PER_CONNECTION:
                self._asked_on[carrier] = asked + 1
                self._due[carrier] = now + REKEY_TIMEOUT + self._jitter()
                return self._peer.initiate(connection, now)
            del self._connections[carrier]
            return [CloseConnection(connection), *self._ask_over_connection(carrier, now)]
        if not self._candidates:
            self._due[carrier] = now + self._pause(SHORTEST_PAUSE, now)
            return [Resolve()]
        self._due[carrier] = NEVER
        self._rounds[carrier].begin(len(self._candidates), len(self._candidates))
        return self._dial(carrier, now)

    def _dial(self, carrier: CarrierName, now: float) -> list[Event]:
        """Dial the next address of a round, unless enough dials are under way: the end of one is awaited then."""
        its_round = self._rounds[carrier]
        if self._dials[carrier] >= min(MOST_AT_ONCE, len(self._candidates)):
            its_round.next_at = NEVER
            return []
        self._dials[carrier] += 1
        candidate = self._next_candidate(carrier)
        its_round.asked(now, self._peer.round_trip)
        return [Dial(carrier, candidate), Resolve()]

    def _next_candidate(self, carrier: CarrierName) -> Endpoint:
        return self._candidates[self._rounds[carrier].next(len(self._candidates))]

    def _pause(self, least: float, now: float) -> float:
        rounds = -(-len(self._candidates) // MOST_AT_ONCE)
        return pause(now - self._searching_since, least, self._rng, rounds=rounds)

    def _jitter(self) -> float:
        return self._rng.uniform(0, LARGEST_JITTER)
