"""What two vpntuns say to each other inside a session, besides packets; one object a peer.

    HELLO          hello.py   what each can take; before the peer's is seen it is treated as plain WireGuard, or,
                                 where it is known to be a vpntun (a shared key), packets wait for it
    REPORT         receive_stats.py      what has arrived, which the other's span.py follows
    PROBE, ECHO    probes.py     the path's MTU (pathmtu.py), trials of another carrier, black holes
    PARITY         parity.py     restores a record that was lost at random
    bursts         span.py       how long a record may be, and in how many datagrams it goes

This decides (`SendRecord`); the link seals and sends what is decided, asks for `room` before a record with packets, and
reports each record that was sent or opened. No record decided here arms WireGuard's data timers, and an idle link sends
none except for the MTU search, which ends.
"""

from __future__ import annotations

from vpntun.core.endpoint import Endpoint
from vpntun.core.events import DrainQueue, Event, HandshakeWanted, PathVerified, SendRecord
from vpntun.core.records.hello import HelloExchange
from vpntun.core.records.parity import LARGEST_KEPT, ParityMaker, Restorer
from vpntun.core.records.pathmtu import PathMtu
from vpntun.core.records.probes import Probes, Purpose
from vpntun.core.records.reassembly import Reassembly
from vpntun.core.records.receive_stats import ReceiveStats
from vpntun.core.records.span import LARGEST_SEND, Span
from vpntun.core.wireguard.timers import REKEY_TIMEOUT
from vpntun.crypto.session import Session
from vpntun.errors import BadPacket
from vpntun.types import NEVER
from vpntun.wire.burst import MOST_DATAGRAMS, datagrams_for
from vpntun.wire.message import DATA_OVERHEAD, HEADER_SIZE, TAG_SIZE
from vpntun.wire.record import (
    BUNDLE,
    BUNDLE_START,
    ECHO,
    ENTRY_SIZE,
    HELLO,
    PARITY_SIZE,
    PROBE,
    REPORT,
    SMALLEST_PROBE,
    TAKES_ALL,
    TAKES_BURSTS,
    TAKES_PARITY,
    Echo,
    Hello,
    Parity,
    Probe,
    Report,
)

OVERHEAD = BUNDLE_START + ENTRY_SIZE + DATA_OVERHEAD
"""What a record of one packet adds to it."""

HINDSIGHT = 0.25
"""Seconds after which bursts that have arrived must have been reported."""

UNCUT = 65507
"""The datagram size of a message that IP may fragment: it is never cut here."""


class RecordProtocol:
    """Attributes for the data path:

    takes     what the peer takes now, a sum of TAKES_*; 0 for a plain WireGuard
    payload   the size of the datagrams that records are cut into, in bytes
    df        no router may cut them
    span      the span towards the peer
    """

    def __init__(self, takes: int, mtu: int, now: float, *, peer_is_vpntun: bool) -> None:
        """`takes`: what this end can take. `mtu`: the inner MTU, in bytes."""
        self._peer_is_vpntun = peer_is_vpntun
        self._mtu = mtu
        self._hellos = HelloExchange(takes)
        self._receive_stats = ReceiveStats()
        self._probes = Probes()
        self._path = PathMtu(now)
        self._stream = False
        self._session: Session | None = None
        self._confirmed_at = now
        self._length_passes_at = NEVER
        self._busy_since = now, 0.0
        self._endpoint: Endpoint | None = None
        self.reassembly: Reassembly[Session] = Reassembly()
        self._parities = ParityMaker()
        self._restorer = Restorer()
        self.restored = 0
        """Records that were lost on the way here, or one of their datagrams was, and that were restored."""
        self.unfinished = 0
        """Bursts that were given up, since a piece of them never came."""
        self.takes = 0
        self._largest_taken = 0
        self._taken_until = 0.0
        self.payload = self._path.payload
        self.dont_fragment = True
        self.span = Span(self.payload, self._smallest(), now)

    def __str__(self) -> str:
        span = self.span
        return (
            f"datagrams of {self.payload} bytes, {span.span} a record, {span.largest_record} bytes a record, "
            f"{span.estimator.rate * 8 / 1e6:.0f} Mbit/s delivered, {span.estimator.loss:.2%} of datagrams lost"
        )

    @property
    def cuts(self) -> bool:
        """Whether records go to the peer in datagrams: only then there is a span, a loss and a path's length."""
        return bool(self.takes) and not self._stream

    @property
    def path_payload(self) -> int | None:
        """The longest datagram known to get through, in bytes of UDP payload; None: under 1,200, or not looked for."""
        return self._path.payload if self.cuts and not self._path.needs_fragmentation else None

    @property
    def last_round_trip(self) -> tuple[float, float]:
        """The last PROBE's, in seconds, and when it was measured; 0 and minus infinity: none was."""
        return self._probes.last, self._probes.measured_at

    @property
    def deadline(self) -> float:
        """When `handle_timer` is to be called."""
        return min(self._receive_stats.deadline, self._probes.deadline, self._search_deadline(), self._hello_deadline())

    # Sessions and paths

    def confirmed(self, session: Session, now: float) -> list[Event]:
        """A session is confirmed, and sealed with from now on."""
        if session is not self._session:
            if self._session is not None:
                self.reassembly.forget(self._session)
            self._session = session
            self._confirmed_at = now
            self._receive_stats.reset()
            self._parities.begin()
            self._restorer.forget()
            self.span.new_session(now)
        self._taken_until = now
        return self._hello(session) if self._hellos.confirmed(session, now) else []

    def moved(self, endpoint: Endpoint, now: float, *, ipv6: bool) -> None:
        """The peer's endpoint is another now."""
        self._endpoint = endpoint
        self._stream = endpoint.is_stream
        self._length_passes_at = NEVER
        self._path.moved(now, ipv6=ipv6)
        self._probes.moved()
        self._follow_path(now)
        self.span.moved(now)

    # Packets

    def awaits_hello(self, session: Session, now: float) -> bool:
        """Whether packets wait, because the peer is a vpntun and has not said what it takes yet."""
        return self._peer_is_vpntun and self._hellos.taken(session, now) is None

    def takes_records(self, session: Session, now: float) -> bool:
        """Whether the peer speaks of records in this session."""
        return self._hellos.taken(session, now) is not None

    @property
    def refresh_due(self) -> float:
        """When `refresh` is to be called, before the next record with packets."""
        return min(self._taken_until, self.span.deadline)

    def refresh(self, session: Session, now: float) -> bool:
        """Apply what the peer's HELLO and the passing of time have changed, for the records that follow.

        Returns whether `deadline` may be nearer than before.
        """
        taken = self._hellos.taken(session, now)
        self._taken_until = self._hellos.taken_until(session, now)
        if taken is None:
            self.takes = self._largest_taken = 0
            return False
        self.takes = taken.takes & TAKES_ALL
        self._largest_taken = taken.largest
        self.span.protection.possible = taken.takes & TAKES_PARITY > 0
        if now >= self.span.deadline:
            self.span.handle_deadline(now)
            # Had the bursts only been late, their REPORT would have come by now.
            if now - self._length_passes_at >= HINDSIGHT and self.span.black_hole.is_seen(now):
                self.span.length_passes(now)
                self._length_passes_at = NEVER
        self._follow_path(now)
        return True

    @property
    def room(self) -> int:
        """Bytes of plaintext that the next record with packets may have; 0: the peer takes none."""
        if self._stream or self.dont_fragment:
            return min(self.span.largest_record, self._largest_taken)
        return min(max(self._mtu + OVERHEAD, self._path.payload) - DATA_OVERHEAD, self._largest_taken)

    def path_rate(self, now: float) -> float:
        """The rate that the path delivers, in bytes a second; 0 where the path is not known to be the limit."""
        return self.span.estimator.path_rate(now)

    def note_backlog(self, count: int) -> None:
        """Note that the device had more to read after `count` records had been sent."""
        self.span.bottleneck.backlogged += count

    def note_sleep(self, seconds: float) -> None:
        """Note how long the loop has waited since the last call."""
        self.span.bottleneck.slept += seconds

    def probe_sent(self, counter: int) -> None:
        """Note that a padded PROBE was sent with this counter: if it is lost, that says nothing about the path."""
        self.span.probed(counter)

    def protected_size(self, size: int) -> int:
        """Bytes that a record of `size` bytes in several datagrams is padded to, to fill them; 0: it has no parity.

        Over a stream there is none.
        """
        span, payload = self.span, self.payload
        if not (span.protects_bursts and span.protection.possible and self.dont_fragment):
            return 0
        count = datagrams_for(size + DATA_OVERHEAD, payload)
        padded = count * (payload - HEADER_SIZE) - TAG_SIZE
        fits = count < MOST_DATAGRAMS and (count + 1) * payload <= LARGEST_SEND and padded <= self._largest_taken
        return padded if fits else 0

    def sent(self, session: Session, counter: int, size: int, datagrams: int, now: float) -> None:
        """A record with packets was sealed and sent, `size` bytes of message."""
        if session is self._session:
            self.span.sent(counter, datagrams, size, now)

    def sent_singles(self, session: Session, first: int, count: int, each: int, size: int, now: float) -> None:
        """So many records with packets were sent in a datagram each.

        `each`: bytes of all messages but the last, which may be shorter; `size`: bytes of all together.
        """
        if session is self._session:
            self.span.sent_singles(first, count, each, size, now)

    def parity_of(self, session: Session, counter: int, plaintext: memoryview) -> bytes:
        """The PARITY record to send behind a record that was sealed for one datagram; empty where none is due."""
        protection = self.span.protection
        if not (protection.active and protection.possible and session is self._session):
            return b""
        if len(plaintext) + PARITY_SIZE + DATA_OVERHEAD > self.payload:
            return b""
        return self._parities.add(counter, plaintext, protection.group)

    def on_traffic(self, session: Session, now: float) -> list[Event]:
        """Packets go to the peer in whatever form: a HELLO that was not answered may be due."""
        return self._hello(session) if self._hellos.on_traffic(session, now) else []

    def opened(self, session: Session, counter: int, datagrams: int, now: float, plaintext: memoryview) -> None:
        """A message with packets was opened that came in so many datagrams."""
        if session is self._session:
            self._receive_stats.record_received(counter, datagrams, now)
            if datagrams == 1 and now < self._restorer.until:
                self._restorer.keep(counter, plaintext)

    def opened_control(self, session: Session, counter: int, datagrams: int) -> None:
        """A message without packets was opened: a keepalive, or a record that is no BUNDLE."""
        if session is self._session:
            self._receive_stats.control_received(counter, datagrams)

    def restore(self, session: Session, record: memoryview, now: float) -> bytes | None:
        """A PARITY was opened: the plaintext of the record that it restores, which is a BUNDLE; None: it restores none.

        Raises BadPacket for one that cannot be.
        """
        parity = Parity.parse(record)
        if session is not self._session:
            return None
        found = self._restorer.restore(parity, session.replay, now)
        if found is None or found[1][0] != BUNDLE or not session.replay.mark(found[0]):
            return None
        self._receive_stats.restored(found[0])
        self.restored += 1
        return found[1]

    def refused(self, size: int, now: float) -> None:
        """This host would not send a datagram of `size` bytes: the path has become narrower than the length in use.

        Others may have been sealed for that length, too: that they are refused says nothing of a shorter one.
        """
        if self.dont_fragment and size <= self.payload:
            self._path.refused(self.payload, now)
            self._follow_path(now)

    # Records without packets

    def received(self, session: Session, record: memoryview, source: Endpoint, now: float) -> list[Event]:
        """A record that is no BUNDLE was opened. Raises BadPacket for one that cannot be."""
        kind = record[0]
        if kind == HELLO:
            answer = self._hellos.received(session, Hello.parse(record), now)
            self._taken_until = now
            return [*(self._hello(session) if answer else []), DrainQueue()]
        if kind == PROBE:
            probe = Probe.parse(record)
            return [SendRecord(Echo(probe.token, probe.size).pack(), source)]
        if kind == ECHO:
            return self._echoed(Echo.parse(record), source, now)
        if kind == REPORT:
            report = Report.parse(record)
            if session is self._session:
                self.span.reported(report, session.send_counter, now)
            return []
        raise BadPacket("unknown record")

    def try_path(self, endpoint: Endpoint, now: float) -> list[Event]:
        """Ask whether this other path works both ways; empty where the peer cannot answer that."""
        if self._session is None or not self.takes_records(self._session, now):
            return []
        return [self._probe(endpoint, "carrier", SMALLEST_PROBE, now)]

    def probe_refused(self, size: int, now: float) -> list[Event]:
        """This host will not send a PROBE whose message has `size` bytes: another length is asked for at once."""
        self._path.refused(size, now)
        self._follow_path(now)
        return self._search(now)

    def handle_timer(self, now: float, slept: float) -> list[Event]:
        """What the deadlines that have passed ask for. `slept`: seconds that the loop has waited since its start."""
        session = self._session
        if session is None:
            return []
        events: list[Event] = []
        if now >= self._receive_stats.deadline:
            for counter, datagrams in self.reassembly.given_up(session, now):
                self._receive_stats.record_given_up(counter, datagrams)
                self.unfinished += 1
            busy = self._busy_share(now, slept)
            report = self._receive_stats.report(
                now, self.reassembly.waiting(session, self._receive_stats.settled), busy
            )
            if report is not None and self.takes_records(session, now):
                events.append(SendRecord(report.pack()))
        if now >= self._hello_deadline():
            events += self.on_traffic(session, now)
            if now - self._confirmed_at >= REKEY_TIMEOUT:  # packets wait, and nothing else would notice the silence
                events.append(HandshakeWanted())
        self._probes.give_up_late(now)
        if now >= self._search_deadline():
            events += self._search(now)
        return events

    def look_for_black_hole(self, now: float) -> list[Event]:
        """Ask whether the length in use gets through, and behind it whether anything does: what is sent may vanish.

        Both: bursts are dropped for what they are (`room` concludes). The second alone: the length is too much.
        """
        if (
            not self.dont_fragment
            or self._stream
            or self._endpoint is None
            or not self.span.black_hole.is_seen(now)
            or self._probes.waiting("health")
        ):
            return []
        return [
            self._probe(self._endpoint, "doubt", self.payload - DATA_OVERHEAD, now),
            self._probe(self._endpoint, "health", SMALLEST_PROBE, now),
        ]

    # Inside

    def _busy_share(self, now: float, slept: float) -> float:
        """The share of the time since the last call that the loop did not wait."""
        since, slept_before = self._busy_since
        self._busy_since = now, slept
        return max(0.0, min(1.0, 1 - (slept - slept_before) / (now - since))) if now > since else 0.0

    def _hello(self, session: Session) -> list[Event]:
        return [SendRecord(self._hellos.hello(session).pack())]

    def _hello_deadline(self) -> float:
        """Only where packets wait for the peer's HELLO does a HELLO go out without traffic."""
        return self._hellos.due(self._session) if self._peer_is_vpntun else NEVER

    def _echoed(self, echo: Echo, source: Endpoint, now: float) -> list[Event]:
        asked = self._probes.echoed(echo.token, source, now)
        if asked is None:
            return []
        if source == self._endpoint:
            self.span.estimator.delay.note_probe(self._probes.last, now)
        if asked.purpose == "carrier":
            return [PathVerified(source)]
        if asked.purpose == "doubt":
            self._length_passes_at = now
        elif asked.purpose == "size":
            self._path.echoed(asked.size, now)
        elif self._probes.waiting("doubt") and self.span.black_hole.is_seen(now):
            self._path.vanished(now)
        self._follow_path(now)
        return []

    def _search_deadline(self) -> float:
        """The length is searched for over UDP alone, and with who answers."""
        return NEVER if self._stream or not self.takes or self._endpoint is None else self._path.deadline

    def _search(self, now: float) -> list[Event]:
        size = self._path.probe(now)
        if size is None or self._endpoint is None:
            return []
        return [self._probe(self._endpoint, "size", size - DATA_OVERHEAD, now)]

    def _probe(self, endpoint: Endpoint, purpose: Purpose, size: int, now: float) -> SendRecord:
        token = self._probes.asked(endpoint, purpose, size + DATA_OVERHEAD, now)
        return SendRecord(Probe(token, size).pack(), endpoint, size_matters=purpose in ("size", "doubt"))

    def _smallest(self) -> int:
        """As many as one packet needs; one that needs more than a send takes goes without a record."""
        return min(datagrams_for(self._mtu + OVERHEAD, self.payload), LARGEST_SEND // self.payload)

    def _follow_path(self, now: float) -> None:
        """Cut records as the path has it now, and as the peer takes it."""
        bursts = self.span.black_hole.passes and (not self.takes or bool(self.takes & TAKES_BURSTS))
        self.dont_fragment = bursts and not self._path.needs_fragmentation
        payload = self._path.payload if self.dont_fragment else UNCUT
        if payload != self.payload:
            self.payload = payload
            self._parities.begin()  # the parity of what was sealed for the former length may be longer than this one
        room = self.payload - self._mtu - OVERHEAD - PARITY_SIZE
        protectable = self.dont_fragment and room >= 0 and self.payload - DATA_OVERHEAD <= LARGEST_KEPT
        self.span.path(0 if self._stream else self.payload, self._smallest(), now, protectable=protectable)
