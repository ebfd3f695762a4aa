"""Link of a client, which also looks up its peer's name and dials its peer."""

from __future__ import annotations

from collections.abc import Callable
from logging import INFO
from typing import Protocol

from vpntun.carriers.base import ConnectionOwner, Stream
from vpntun.core.endpoint import Endpoint, Outcome
from vpntun.core.events import PathVerified, RenewPort, SendRecord
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.selection.client import ClientCarriers
from vpntun.core.wireguard.peer import Peer
from vpntun.errors import CannotTry
from vpntun.link.carrier_trial import CarrierTrial
from vpntun.link.link import Link, LinkOwner
from vpntun.runtime.resolver import Resolver
from vpntun.types import DIALLED, NEVER, CarrierName, SocketAddress
from vpntun.wire.record import SMALLEST_PROBE, Probe


class Dialler(LinkOwner, Protocol):
    """Calls of a client's link to the engine."""

    def dial(
        self,
        carrier: CarrierName,
        candidate: Endpoint,
        owner: ConnectionOwner,
        on_done: Callable[[Stream | None], None],
    ) -> None:
        """Open a connection of a carrier, as Carrier.dial."""

    def give_up_dials(self, owner: ConnectionOwner) -> None:
        """Give up the connections that are being opened for an owner."""

    def candidate(self, address: SocketAddress) -> Endpoint | None:
        """Return the endpoint of an address, as Engine.candidate."""

    def renew_port(self) -> None:
        """Call from another local port from now on, if that is possible."""


class ClientLink(Link, ConnectionOwner):
    """A link that owns the connections which it dials. Stopping it closes `resolver`.

    trial    the trial of the other carrier that is under way, or the last one; None if there was none
    """

    def __init__(
        self,
        owner: Dialler,
        peer: Peer,
        selector: ClientCarriers,
        records: RecordProtocol,
        resolver: Resolver,
        name: str = "",
    ) -> None:
        self.trial: CarrierTrial | None = None
        super().__init__(owner, peer, selector, records, name)
        self._dialler = owner
        self._client = selector
        self._resolver = resolver
        self._connections: set[Stream] = set()

    @property
    def candidates(self) -> list[Endpoint]:
        """The addresses that the peer's name had last."""
        return self._client.candidates

    @property
    def destinations(self) -> list[Endpoint]:
        """The endpoints that messages may be sent to now: while the peer is searched for, all its addresses."""
        return [*super().destinations, *(self.candidates if self.searching else ())]

    def stop(self) -> None:
        """Stop for good: close the connections, and stop looking up the name."""
        super().stop()
        self._resolver.close()
        if self.trial is not None:
            self.trial.stop()
        for connection in list(self._connections):
            connection.close()

    def resolved(self, candidates: list[Endpoint]) -> None:
        """Process the addresses to which the peer's name resolves now."""
        self.act(self._client.resolved(candidates, self._loop.now))

    def call_at(self, endpoint: Endpoint, resolver: Resolver) -> None:
        """Call the peer at another address from now on, which `resolver` finds. The session continues there.

        Over a connection the former path stays in use until the new one is found.
        """
        self._resolver.close()
        self._resolver = resolver
        self.resolved([endpoint])
        if self.endpoint is not None and not self.endpoint.is_stream:
            self.move(endpoint)
        else:
            self._ask_again(True)

    def ready(self, connection: Stream) -> None:
        """Send the waiting packets: a connection accepts data again."""
        self.drain_queue()

    def closed(self, connection: Stream) -> None:
        """Forget a connection that has closed."""
        self._connections.discard(connection)
        super().closed(connection)

    def renew_candidates(self) -> None:
        """Call the peer's addresses from the local port that is used from now on."""
        renewed = [self._dialler.candidate(each.address) for each in self.candidates]
        self._client.renewed([each for each in renewed if each is not None], self._loop.now)

    def renew_port(self) -> None:
        """Call from another local port from now on, if that is possible."""
        self._dialler.renew_port()

    def resolve(self) -> None:
        """Look up the name again."""
        self._resolver.look_up()

    def dial(self, carrier: CarrierName, candidate: Endpoint) -> None:
        """Open a connection to the address of a candidate."""

        def done(connection: Stream | None) -> None:
            self._dialled(carrier, connection)

        self._dialler.dial(carrier, candidate, self, done)

    def give_up_dials(self) -> None:
        """Give up every connection that is being opened."""
        self._dialler.give_up_dials(self)

    def _dialled(self, carrier: CarrierName, connection: Stream | None) -> None:
        if self._stopped:
            if connection is not None:
                connection.close()
        elif connection is None:
            self.lines.log(INFO, "no %s connection could be opened; trying again", carrier.upper())
            self.act(self._client.dial_failed(carrier, self._loop.now))
        else:
            self._connections.add(connection)
            self.act(self._client.dialled(connection, self._loop.now))

    # Trials of the other carrier

    def try_other_carrier(self) -> CarrierTrial:
        """Try the carrier that is not in use; return the trial, or the last one if that is under 10 s old.

        Raises CannotTry.
        """
        session, endpoint = self.peer.sending_session(self._loop.now), self.peer.endpoint
        if session is None or endpoint is None or self.searching:
            raise CannotTry("a path to the peer is being looked for, over every carrier: wait until it is connected")
        others = [each for each in self._client.allowed if each != endpoint.carrier]
        if not others:
            raise CannotTry(f"the link uses {endpoint.carrier.upper()} alone, as configured: there is no other carrier")
        if not self.records.takes_records(session, self._loop.now):
            raise CannotTry("the peer is no vpntun, or has not shown so yet: only a vpntun answers over both carriers")
        if not self.candidates:
            raise CannotTry("no address of the peer is known at which another carrier could be tried")
        if self.trial is None or not self.trial.is_recent or self.trial.used != endpoint.carrier:
            if self.trial is not None:
                self.trial.stop()
            self.trial = CarrierTrial(self, self._loop, others[0], endpoint.carrier, self.candidates)
            self.trial.begin()
            self.touch()
        return self.trial

    @property
    def deadline(self) -> float:
        """When `handle_deadline` is due, on the loop's clock."""
        return min(super().deadline, self.trial.deadline if self.trial is not None else NEVER)

    def handle_deadline(self) -> None:
        """Do everything that is due now. After a silent trial over UDP, the next one is made from another port."""
        super().handle_deadline()
        trial = self.trial
        if trial is not None and self._loop.now >= trial.deadline:
            trial.handle_timer(self._loop.now)
            if trial.outcome is not None and trial.carrier not in DIALLED:
                self.act([RenewPort()])
            self.touch()

    def probe(self, endpoint: Endpoint, token: int) -> None:
        """Send a PROBE of a trial."""
        self.act([SendRecord(Probe(token, SMALLEST_PROBE).pack(), endpoint)])

    def dial_for(
        self,
        trial: ConnectionOwner,
        carrier: CarrierName,
        candidate: Endpoint,
        on_done: Callable[[Stream | None], None],
    ) -> None:
        """Open a connection, which the trial owns."""
        self._dialler.dial(carrier, candidate, trial, on_done)

    def give_up_dials_for(self, trial: ConnectionOwner) -> None:
        """Give up the connections that are being opened for a trial."""
        self._dialler.give_up_dials(trial)

    def opened_for_trial(self, connection: Stream) -> None:
        """Close the connection of a trial when the link stops."""
        self._connections.add(connection)

    def _echo_arrived(self, token: int, source: Endpoint, now: float) -> None:
        """Tell a trial of an ECHO. A link that had to do with a connection returns to UDP at once."""
        super()._echo_arrived(token, source, now)
        if self.trial is not None and self.trial.echoed(token, source, now) and source.carrier not in DIALLED:
            self.act([PathVerified(source)])

    def _note_sent(self, outcome: Outcome, endpoint: Endpoint) -> None:
        super()._note_sent(outcome, endpoint)
        if self.trial is not None:
            self.trial.note_sent(outcome, endpoint)
