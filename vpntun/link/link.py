"""Link to one peer: sends packets to it (sending_link.py), and processes everything that it sends.

Every authenticated message enters by `opened`, which classifies it once: a keepalive, a record without packets, a
bundle, or a bare packet. A bundle in the session and from the endpoint in use enters by `bundle_opened`.
controlled_peer.py carries out the core's decisions.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from vpntun.core.endpoint import Endpoint
from vpntun.core.events import HandshakeWanted
from vpntun.core.inside.asker import OnAnswer
from vpntun.core.inside.requests import Requests
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.selection.executor import CarrierSelector
from vpntun.core.wireguard.initiations import Timestamps
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.session import Session
from vpntun.errors import BadPacket, CannotAsk, CannotAskYet
from vpntun.link.drops import note_drop
from vpntun.link.seal_buffer import SealBuffer
from vpntun.link.sending_link import SendingLink
from vpntun.runtime.log import Warnings, notice
from vpntun.runtime.loop import Loop
from vpntun.runtime.schedule import Schedule
from vpntun.types import CarrierName
from vpntun.wire.record import ANSWER, BUNDLE, ECHO, FRAMES, HELLO, LAST_KIND, LOAD, PARITY, PROBE, REQUEST, Echo


class LinkOwner(Protocol):
    """Parts and calls of the engine that a link uses."""

    @property
    def loop(self) -> Loop:
        """The loop that all links share."""

    @property
    def schedule(self) -> Schedule:
        """The deadlines of all links."""

    @property
    def seal_buffer(self) -> SealBuffer:
        """The buffer that messages are sealed into."""

    def deliver_bundle(self, link: Link, record: memoryview, source: Endpoint, ecn: int) -> None:
        """Deliver the packets of a bundle. `ecn`: the ECN field of the outer headers. Raises BadPacket."""

    def deliver_packet(self, link: Link, packet: memoryview, ecn: int) -> None:
        """Deliver one packet, with its padding. `ecn`: as in `deliver_bundle`. Raises BadPacket."""

    def drain(self, link: Link) -> None:
        """Send the waiting packets until the path accepts no more."""

    def answer(self, link: Link, what: int, content: dict[str, Any]) -> Mapping[str, Any] | None:
        """Return the answer to a request of the link's peer, None while it is not ready. Raises nothing."""

    def has_moved(self, link: Link) -> None:
        """Note that the peer's endpoint has changed."""

    def has_acted(self, link: Link) -> None:
        """Note that the core has decided something, which may change whether packets can be sent."""


class LinkTest(Protocol):
    """A speed test of a link, which the link tells what arrives (speed/trial.py)."""

    def load_arrived(self, record: memoryview, now: float) -> bool:
        """Count a LOAD; return whether this end has agreed to it. Raises BadPacket."""

    def echo_arrived(self, token: int, now: float) -> None:
        """Take note of an ECHO, which may answer a PROBE of the test."""


class Link(SendingLink):
    """The link of a server, and the common part of a client's (client_link.py). `test`: its speed test, if one runs."""

    def __init__(
        self,
        owner: LinkOwner,
        peer: Peer,
        selector: CarrierSelector,
        records: RecordProtocol,
        name: str = "",
    ) -> None:
        self._owner = owner
        self._warnings = Warnings()
        self._seemed_plain = False
        """Whether the log has said that a plain WireGuard answers a TAP device."""
        self.test: LinkTest | None = None
        self._requests = Requests(lambda what, content: owner.answer(self, what, content))
        super().__init__(owner.loop, owner.schedule, owner.seal_buffer, peer, selector, records, name)

    def opened(
        self,
        session: Session,
        counter: int,
        datagrams: int,
        source: Endpoint,
        plaintext: memoryview,
        size: int,
        ecn: int = 0,
    ) -> None:
        """Process an authenticated message, which is not a replay.

        `datagrams`: the number of datagrams that it arrived in. `size`: bytes of the sealed message. `ecn`: the ECN
        field of the datagrams.
        """
        peer, records, now = self.peer, self.records, self._loop.now
        peer.received_bytes += size
        kind = plaintext[0] if plaintext else 0
        if kind in (BUNDLE, FRAMES) or kind > LAST_KIND:
            if events := peer.opened(session, counter, source, now, keepalive=False):
                self.act(events)
            records.opened(session, counter, datagrams, now, plaintext)
            self.touched_by_traffic(now)
            try:
                if kind > LAST_KIND:
                    self._owner.deliver_packet(self, plaintext, ecn)
                else:
                    self._owner.deliver_bundle(self, plaintext, source, ecn)
            except BadPacket as bad:
                self.drop(bad, source)
            return
        if kind == LOAD:
            self._take_load(session, counter, datagrams, plaintext, source)
            return
        follow = kind not in (PROBE, ECHO)
        if events := peer.opened(session, counter, source, now, keepalive=True, follow=follow):
            self.act(events)
        records.opened_control(session, counter, datagrams)
        self.touched_by_traffic(now)
        if plaintext:
            self._take_record(session, plaintext, source, ecn)

    def bundle_opened(
        self, session: Session, counter: int, datagrams: int, record: memoryview, source: Endpoint, size: int, ecn: int
    ) -> None:
        """Process a bundle in the session that this end sends with, from the peer's endpoint.

        It needs none of the checks by which `opened` notices another session, another endpoint, or an old key.
        """
        peer, now = self.peer, self._loop.now
        peer.received_bytes += size
        peer.timers.data_received(now)
        self.records.opened(session, counter, datagrams, now, record)
        if now >= self._traffic_noted_until:
            self.touched_by_traffic(now)
        try:
            self._owner.deliver_bundle(self, record, source, ecn)
        except BadPacket as bad:
            self.drop(bad, source)

    def drop(self, bad: BadPacket, source: Endpoint) -> None:
        """Count a dropped message or packet of this peer."""
        note_drop(self.drops, self._warnings, bad, source)

    def _take_load(self, session: Session, counter: int, datagrams: int, record: memoryview, source: Endpoint) -> None:
        """Process the load of a speed test as if it were packets. Without a test it is dropped, and not reported."""
        now, is_wanted = self._loop.now, False
        try:
            is_wanted = self.test is not None and self.test.load_arrived(record, now)
            if not is_wanted:
                raise BadPacket("load without a test")
        except BadPacket as bad:
            self.drop(bad, source)
        if events := self.peer.opened(session, counter, source, now, keepalive=not is_wanted):
            self.act(events)
        if is_wanted:
            self.records.opened(session, counter, datagrams, now, record)
        else:
            self.records.opened_control(session, counter, datagrams)
        self.touched_by_traffic(now)

    # Requests inside the tunnel

    def ask(self, what: int, content: Mapping[str, Any], on_answer: OnAnswer) -> None:
        """Ask the peer's vpntun; `on_answer` is called once, with None if no answer comes in 10 s.

        `what`: DOCTOR or another of wire/inside/request.py. Raises CannotAsk if it cannot answer, CannotAskYet if it
        perhaps can in a moment.
        """
        now = self._loop.now
        session = None if self._stopped else self.peer.sending_session(now)
        if session is None or self.peer.endpoint is None:
            kind = CannotAsk if self._stopped or self.peer.endpoint is None else CannotAskYet
            raise kind("there is no link to the peer now, so it cannot be asked anything inside the tunnel")
        if not self.records.takes_records(session, now):
            kind = CannotAsk if self.records.seems_plain else CannotAskYet
            raise kind("the peer is not a vpntun, or has not shown so yet: only a vpntun answers")
        if not self.records.answers_requests(session, now):
            raise CannotAsk("the peer is a vpntun too old to answer: update the program at the other end")
        if self._requests.is_full:
            raise CannotAskYet("the peer is being asked too much at once: wait ten seconds")
        self.act(self._requests.ask(secrets.randbits(64), what, content, on_answer, now))

    def answer_again(self) -> None:
        """Answer requests of the peer whose answers were not ready, and may be now."""
        self.act(self._requests.look_again(self._loop.now))

    @property
    def deadline(self) -> float:
        """When `handle_deadline` is due, on the loop's clock."""
        return min(super().deadline, self._requests.deadline)

    def handle_deadline(self) -> None:
        """Do everything that is due now."""
        super().handle_deadline()
        if self._loop.now >= self._requests.deadline:
            self.act(self._requests.handle_timer(self._loop.now))

    def stop(self) -> None:
        """Stop for good, as ControlledPeer.stop. Who waits for an answer gets none."""
        super().stop()
        self._requests.stop()

    def _take_record(self, session: Session, record: memoryview, source: Endpoint, ecn: int) -> None:
        """Process a record without packets. The clock is read again: a round trip may end late in a long turn."""
        try:
            if not record[0]:  # neither a record nor an IP packet begins with 0
                raise BadPacket("bad inner packet")
            if record[0] in (REQUEST, ANSWER):
                self.act(self._requests.received(record, self._loop.now))
            elif record[0] != PARITY:
                self._note_sleep()
                now = self._loop.time()
                if record[0] == ECHO:
                    self._echo_arrived(Echo.parse(record).token, source, now)
                self.act(self.records.received(session, record, source, now))
                if record[0] == HELLO and self.records.devices_differ(session, now):
                    self._warn_of_device(source)
            elif (restored := self.records.restore(session, record, self._loop.now)) is not None:
                # A relay changes packets in place, so they must be writable.
                self._owner.deliver_bundle(self, memoryview(bytearray(restored)), source, ecn)
        except BadPacket as bad:
            self.drop(bad, source)

    def check_plain(self, session: Session) -> None:
        """Raise BadPacket unless packets may be sent to the peer as WireGuard sends them."""
        records = self.records
        if records.devices_differ(session, self._loop.now):
            raise BadPacket("other kind of device")
        if not records.is_tap:
            return
        if not records.seems_plain:
            raise BadPacket("too big for the path")
        if not self._seemed_plain:
            self._seemed_plain = True
            notice(
                "%s answers as a plain WireGuard, which carries no Ethernet frames: a TAP device needs a vpntun with a "
                "TAP device at the other end",
                self.name or "the peer",
            )
        raise BadPacket("no vpntun")

    def _warn_of_device(self, source: Endpoint) -> None:
        own, its = ("TAP", "TUN") if self.records.is_tap else ("TUN", "TAP")
        self._warnings.log(
            "other kind of device",
            f"%s has a {its} device, and this end a {own} device: nothing passes until both ends are started with -a "
            "(Device = tap), or both without",
            source,
        )

    def _echo_arrived(self, token: int, source: Endpoint, now: float) -> None:
        """Tell the speed test of an ECHO, which may answer a PROBE of the test."""
        if self.test is not None:
            self.test.echo_arrived(token, now)

    def verify(self) -> bool:
        """Ask a vpntun whether data arrives, at most once a second. Return whether its answer is awaited."""
        now, verification = self._loop.now, self.records.verification
        if (events := self.records.verify(now)) or verification.is_awaited:  # its absence may be a state by now
            self.act(events)
        return self.records.can_verify(now) and verification.is_awaited

    # Changes by the operator

    def identify(self, identity: KeyPair, timestamps: Timestamps) -> None:
        """Use other keys of this end. A peer with which there was a session is asked for another one at once."""
        is_wanted = self.peer.keys.current is not None or self.searching
        self.peer.identify(identity, timestamps)
        self._ask_again(is_wanted)

    def change_psk(self, psk: bytes) -> None:
        """Use another preshared key from the next handshake on; one that is under way begins again."""
        self.peer.change_psk(psk)
        self._ask_again(self.searching)

    def move(self, endpoint: Endpoint) -> None:
        """Send to this endpoint from now on, as if the peer had moved there. The peer may move on."""
        former = self.peer.endpoint
        events = self.peer.move_to(endpoint)
        if former is None and events:
            self.start()
            self._has_moved()
        else:
            self.act(events)
            self._ask_again(bool(events) and self.searching)

    def send_again_from(self, endpoint: Endpoint) -> None:
        """Send to the same address through another socket, and show the peer where this end is now."""
        self.peer.endpoint = endpoint
        self.rerouted(lost=False)

    def turn_on_keepalive(self) -> None:
        """Send a keepalive at once, as WireGuard does when the operator turns it on; without a session, ask for one."""
        if self.endpoint is not None:
            self.act(self.peer.keepalive(self.endpoint, self._loop.now) or [HandshakeWanted()])

    def _ask_again(self, is_wanted: bool) -> None:
        self.act(self._executor.selector.woken(self._loop.now) if is_wanted else ())

    # For the core

    def resolve(self) -> None:
        """Do nothing: a server has no name to look up."""

    def renew_candidates(self) -> None:
        """Do nothing: a server calls nobody."""

    def renew_port(self) -> None:
        """Do nothing: peers call a server at its port."""

    def dial(self, carrier: CarrierName, candidate: Endpoint) -> None:
        """Do nothing: a server does not dial."""

    def give_up_dials(self) -> None:
        """Do nothing: a server does not dial."""

    def drain_queue(self) -> None:
        """Send the waiting packets until the path accepts no more."""
        self._owner.drain(self)

    def _has_moved(self) -> None:
        self._owner.has_moved(self)

    def _has_acted(self) -> None:
        self._owner.has_acted(self)
