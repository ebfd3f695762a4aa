"""The client's choice of carriers: find a path, keep it, and prefer UDP. It never gives up.

    search      The carrier that worked last is tried at once, the other 2 s later. The first to bring a session ends
                the search. UDP: an initiation to each address in turn. TCP: a connection to each address in turn, and
                initiations on it.
    on UDP      The TCP connection is closed.
    on TCP      UDP is tried after 30 s, doubling to 10 min, by a `ProbePath`. When that succeeds, the link moves.
    silence     Without a session, or without an answer for 15 s, a search begins; the path in use stays in use.
    TCP closed  A search begins.

Pauses follow backoff.py. Every attempt looks the name up again; until the resolver answers, the known addresses are
used.
"""

from __future__ import annotations

import random

from vpntun.core.events import CloseConnection, Dial, DropQueued, Endpoint, Event, ProbePath, Resolve
from vpntun.core.selection.backoff import pause
from vpntun.core.wireguard.peer import Peer
from vpntun.core.wireguard.timers import LARGEST_JITTER, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT
from vpntun.types import CARRIERS, NEVER, Carrier, Transport

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
        self._allowed: tuple[Carrier, ...] = CARRIERS if transport == "auto" else (transport,)
        self._candidates: list[Endpoint] = []
        self._turn: dict[Carrier, int] = {"udp": 0, "tcp": 0}
        self._due: dict[Carrier, float] = {"udp": NEVER, "tcp": NEVER}
        self._searching_since = NEVER
        self._trial_at = NEVER
        self._trial_pause = FIRST_TRIAL
        self._passed_over = 0
        self._connection: Endpoint | None = None
        self._asked_on_connection = 0
        self._dialling = False

    @property
    def deadline(self) -> float:
        """The time at which `handle_timer` must be called next."""
        return min(self._due["udp"], self._due["tcp"], self._trial_at)

    @property
    def searching(self) -> bool:
        """Whether a search is under way, because no path is known to work."""
        return self._searching_since != NEVER

    def start(self, now: float) -> list[Event]:
        """Begin the first search, without waiting for a packet."""
        return self._search(self._allowed[0], now)

    def want(self, now: float) -> list[Event]:
        """Ask for a handshake: on the carrier in use first, and on the other too if that does not answer."""
        if self.searching:
            return []
        endpoint = self._peer.endpoint
        return self._search(endpoint.carrier if endpoint is not None else self._allowed[0], now)

    def resolved(self, candidates: list[Endpoint], now: float) -> list[Event]:
        """Take the name's present addresses, as UDP endpoints; if there are none, the old ones stay in use."""
        if not candidates:
            return []
        first = not self._candidates
        self._candidates = candidates
        if first and self.searching:
            self._due[self._allowed[0]] = now
        return self.handle_timer(now)

    def handle_timer(self, now: float) -> list[Event]:
        """Take the next step on each carrier whose time has come."""
        events: list[Event] = []
        if now - self._searching_since > REKEY_ATTEMPT_TIME:
            events.append(DropQueued())
        if now >= self._due["udp"]:
            self._passed_over = 0
            events += self._ask_over_udp(now)
        if now >= self._due["tcp"]:
            events += self._ask_over_tcp(now)
        if now >= self._trial_at:
            events += self._try_udp(now)
        return events

    def undeliverable(self, endpoint: Endpoint, now: float) -> list[Event]:
        """Try the next address at once, because this host has no route to `endpoint`; each address once per round."""
        if endpoint.carrier != "udp" or not self.searching or self._passed_over + 1 >= len(self._candidates):
            return []
        self._passed_over += 1
        self._peer.forget_handshake("udp")
        candidate = self._next_candidate("udp")
        if candidate == endpoint:
            candidate = self._next_candidate("udp")
        return [*self._peer.initiate(candidate, now), Resolve()]

    def dialled(self, connection: Endpoint, now: float) -> list[Event]:
        """Use a TCP connection that was just opened.

        A keepalive of the live session goes first, so that the session can continue there at once; an initiation
        follows.
        """
        self._dialling = False
        if not self.searching:
            return [CloseConnection(connection)]
        self._connection = connection
        self._asked_on_connection = 0
        self._peer.forget_handshake("tcp")
        return self._peer.keepalive(connection, now) + self._ask_over_tcp(now)

    def dial_failed(self, now: float) -> list[Event]:
        """Note that a TCP connection could not be opened: refused, unreachable or too slow."""
        self._dialling = False
        if self.searching:
            self._due["tcp"] = now + self._pause(SHORTEST_PAUSE, now)
        return []

    def lost(self, connection: Endpoint, now: float) -> list[Event]:
        """Note that a TCP connection has closed."""
        if connection == self._connection:
            self._connection = None
            self._peer.forget_handshake("tcp")
        elif connection != self._peer.endpoint:  # one given up earlier may be the endpoint, if it answered after all
            return []
        if self._peer.endpoint != connection:
            return self.dial_failed(now)
        self._peer.endpoint = None
        self._trial_at = NEVER
        return self._search("tcp", now)

    def established(self, source: Endpoint, now: float, *, initiator: bool) -> list[Event]:
        """Note that a session is established, so `source` works both ways; its initiator confirms it by a keepalive."""
        if not self._peer.may_move_to(source):
            return []
        events: list[Event] = []
        endpoint = self._peer.endpoint
        if self.searching or source.carrier == "udp" or endpoint is None or endpoint.carrier == "tcp":
            events += self._settle_on(source, now)
        if initiator:
            events += self._peer.keepalive(self._peer.endpoint, now)
        return events

    def proved(self, path: Endpoint, now: float) -> list[Event]:
        """Move the link to `path`, which a probe has shown to work both ways; a keepalive makes the peer follow."""
        if not self._peer.may_move_to(path):
            return []
        return self._settle_on(path, now) + self._peer.keepalive(path, now)

    def _settle_on(self, source: Endpoint, now: float) -> list[Event]:
        self._searching_since = NEVER
        self._due = {"udp": NEVER, "tcp": NEVER}
        events = self._peer.move_to(source)
        self._asked_on_connection = 0
        if source.carrier == "udp":
            self._trial_at = NEVER
            if self._connection is not None:
                events.append(CloseConnection(self._connection))
                self._connection = None
        elif "udp" in self._allowed and self._trial_at == NEVER:
            self._trial_pause = FIRST_TRIAL
            self._trial_at = now + FIRST_TRIAL
        return events

    def _search(self, first: Carrier, now: float) -> list[Event]:
        self._searching_since = now
        for carrier in self._allowed:
            self._due[carrier] = now if carrier == first else now + BESIDE_AFTER
        return self.handle_timer(now)

    def _ask_over_udp(self, now: float) -> list[Event]:
        if not self._candidates:
            self._due["udp"] = now + self._pause(SHORTEST_PAUSE, now)
            return [Resolve()]
        self._due["udp"] = now + self._pause(REKEY_TIMEOUT + self._jitter(), now)
        endpoint = self._peer.endpoint
        if endpoint is not None and endpoint.carrier == "udp" and now - self._searching_since < REKEY_TIMEOUT:
            return self._peer.initiate(endpoint, now)
        return [*self._peer.initiate(self._next_candidate("udp"), now), Resolve()]

    def _try_udp(self, now: float) -> list[Event]:
        self._trial_pause = min(LAST_TRIAL, 2 * self._trial_pause)
        self._trial_at = now + self._trial_pause
        if self.searching or not self._candidates:
            return [Resolve()]
        return [ProbePath(self._next_candidate("udp")), Resolve()]

    def _ask_over_tcp(self, now: float) -> list[Event]:
        if self._connection is not None:
            if self._asked_on_connection < ASKED_PER_CONNECTION:
                self._asked_on_connection += 1
                self._due["tcp"] = now + REKEY_TIMEOUT + self._jitter()
                return self._peer.initiate(self._connection, now)
            silent, self._connection = self._connection, None
            return [CloseConnection(silent), *self._ask_over_tcp(now)]
        if not self._candidates:
            self._due["tcp"] = now + self._pause(SHORTEST_PAUSE, now)
            return [Resolve()]
        self._due["tcp"] = NEVER
        if self._dialling:
            return []
        self._dialling = True
        return [Dial(self._next_candidate("tcp")), Resolve()]

    def _next_candidate(self, carrier: Carrier) -> Endpoint:
        turn = self._turn[carrier]
        self._turn[carrier] = turn + 1
        return self._candidates[turn % len(self._candidates)]

    def _pause(self, least: float, now: float) -> float:
        return pause(now - self._searching_since, least, self._rng, addresses=len(self._candidates))

    def _jitter(self) -> float:
        return self._rng.uniform(0, LARGEST_JITTER)
