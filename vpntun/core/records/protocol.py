"""Record protocol with one peer: the choice of records to send, and the handling of those received.

    HELLO          hello.py            what each end can take. Until the peer's HELLO comes, the peer is treated as a
                                       plain WireGuard, unless it must be a vpntun (a shared key, or a TAP device): then
                                       packets wait for its HELLO
    REPORT         receive_stats.py    what has arrived; the sender's span.py learns from it
    PROBE, ECHO    probes.py           the path's MTU, trials of another carrier, black holes, dead paths
    PARITY         parity.py           restores a record that was lost at random
    bursts         span.py             how long a record may be, and in how many datagrams it is sent

Decisions are returned as events (`SendRecord`). The link seals and sends them, asks for `room` before a record with
packets, and reports each record that was sent or opened. No record decided here starts WireGuard's data timers. On an
idle link, only the MTU search sends records, and it ends, and a PROBE follows each persistent keepalive.
"""

from __future__ import annotations

from vpntun.core.endpoint import Endpoint
from vpntun.core.events import DrainQueue, Event, HandshakeWanted, PathVerified, SendRecord
from vpntun.core.records.bottleneck import BusyMeter
from vpntun.core.records.hello import HelloExchange
from vpntun.core.records.parity import LARGEST_KEPT, ParityMaker, Restorer
from vpntun.core.records.pathmtu import PathMtu
from vpntun.core.records.probes import PathProber
from vpntun.core.records.reassembly import Reassembly
from vpntun.core.records.receive_stats import ReceiveStats
from vpntun.core.records.span import LARGEST_SEND, Span
from vpntun.core.verification import Verification
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
    FRAMES,
    HELLO,
    LARGEST_RECORD,
    PARITY_SIZE,
    PROBE,
    REPORT,
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
"""Bytes that a record of one packet adds to the packet."""

UNCUT = 65507
"""Datagram size while IP may fragment messages: no message is longer, so none is cut here."""


class RecordProtocol:
    """The record protocol's state with one peer. Attributes for the data path:

    takes            what the peer takes now, a sum of TAKES_*; 0 for plain WireGuard
    payload          size of the datagrams that records are cut into, in bytes
    dont_fragment    whether routers must not fragment them; not before some of that size are known to pass
    span             the span towards the peer
    reassembly       bursts from the peer that are incomplete
    restored         records restored by parity after they, or one of their datagrams, were lost on the way here
    unfinished       bursts given up because a piece never came
    verification     when data was last known to arrive at the peer, if that takes records
    is_tap           whether this end's device carries Ethernet frames; packets are frames then
    """

    def __init__(
        self,
        takes: int,
        mtu: int,
        now: float,
        *,
        peer_is_vpntun: bool,
        asks_when_quiet: bool = False,
        is_tap: bool = False,
    ) -> None:
        """`takes`: what this end can take. `asks_when_quiet`: for a client.

        `mtu`: bytes of the device's longest packet, superpackets aside: its MTU, and on a TAP the frame's header.
        """
        self._asks_when_quiet = asks_when_quiet
        self._peer_is_vpntun = peer_is_vpntun
        self.is_tap = is_tap
        self._mtu = mtu
        self._hellos = HelloExchange(takes, peer_is_vpntun=peer_is_vpntun, is_tap=is_tap)
        self._receive_stats = ReceiveStats()
        self._path = PathMtu(now)
        self._is_stream = False
        self._session: Session | None = None
        self._confirmed_at = now
        self._busy_meter = BusyMeter(now)
        self._parities = ParityMaker()
        self._restorer = Restorer()
        self._largest_taken = 0
        self._taken_until = 0.0
        self.reassembly: Reassembly[Session] = Reassembly()
        self.restored = self.unfinished = 0
        self.takes = 0
        self.payload = self._path.payload
        self.dont_fragment = False
        self._is_cut = True  # whether this end cuts long records, rather than IP
        self.span = Span(self.payload, now)
        self._prober = PathProber(self._path, self.span)
        self.verification: Verification = self._prober.verification

    def __str__(self) -> str:
        span = self.span
        return (
            f"datagrams of {self.payload} bytes, {span.span} a record, {span.largest_record} bytes a record, "
            f"{span.estimator.rate * 8 / 1e6:.0f} Mbit/s delivered, {span.estimator.loss:.2%} of datagrams lost"
        )

    @property
    def cuts(self) -> bool:
        """Whether records are sent as datagrams. Only then do span, loss and the longest datagram mean anything."""
        return bool(self.takes) and not self._is_stream

    @property
    def path_payload(self) -> int | None:
        """Longest datagram known to get through, in bytes of UDP payload; None if under 1,200 or not searched for."""
        return self._path.payload if self.cuts and not self._path.needs_fragmentation else None

    @property
    def last_round_trip(self) -> tuple[float, float]:
        """Last PROBE's round trip in seconds and when it was measured; 0 and minus infinity if there was none."""
        return self._prober.last_round_trip

    @property
    def nothing_arrives(self) -> bool:
        """Whether nothing that was sent for 15 s has arrived at the peer, as far as is known."""
        return self._prober.arrivals.nothing_arrives

    @property
    def deadline(self) -> float:
        """When `handle_timer` is due."""
        return min(self._receive_stats.deadline, self._prober.deadline(search=self.cuts), self._hello_deadline())

    # Sessions and paths

    def confirmed(self, session: Session, now: float) -> list[Event]:
        """Begin in a session that is confirmed, and used for sealing from now on."""
        if session is not self._session:
            if self._session is not None:
                self.reassembly.forget(self._session)
            self._session = session
            self._confirmed_at = now
            self._receive_stats.reset()
            self._parities.begin()
            self._restorer.forget()
            self.span.new_session(now)
            self._prober.arrivals.begin()
        self._taken_until = -NEVER
        is_hello_due = self._hellos.confirmed(session, now, session.highest_received)
        return self._hello(session) if is_hello_due else []

    def moved(self, endpoint: Endpoint, now: float, *, ipv6: bool) -> None:
        """Begin again on another path: the peer's endpoint has changed."""
        self._is_stream = endpoint.is_stream
        self._hellos.moved((endpoint.carrier, endpoint.address[0]), now)
        self._taken_until = -NEVER  # the session may be another, too, which is confirmed only after this
        self._prober.moved(endpoint, now, ipv6=ipv6)
        self._follow_path(now)
        self.span.moved(now)

    # Packets

    def awaits_hello(self, session: Session, now: float) -> bool:
        """Whether packets must wait because the peer must be a vpntun, whose HELLO has not come yet."""
        return self._awaits_hellos and self._hellos.taken(session, now) is None

    def devices_differ(self, session: Session, now: float) -> bool:
        """Whether the peer is a vpntun whose device carries packets where this one carries frames, or the reverse."""
        return self.peer_is_tap(session, now) is (not self.is_tap)

    def peer_is_tap(self, session: Session, now: float) -> bool | None:
        """Whether a vpntun's device carries Ethernet frames, by its HELLO; None without one."""
        taken = self._hellos.taken(session, now)
        return None if taken is None else taken.is_tap

    @property
    def seems_plain(self) -> bool:
        """Whether the peer seems to be a plain WireGuard, which leaves HELLOs unanswered."""
        return self._hellos.seems_plain

    def may_be_plain(self, session: Session | None, now: float) -> bool:
        """Whether the peer may be any other WireGuard: nothing in this session shows that it is a vpntun."""
        return not self._peer_is_vpntun and self._hellos.taken(session, now) is None

    def takes_records(self, session: Session, now: float) -> bool:
        """Whether the peer takes records in this session."""
        return self._hellos.taken(session, now) is not None

    def answers_requests(self, session: Session, now: float) -> bool:
        """Whether the peer takes records in this session, and answers a REQUEST."""
        taken = self._hellos.taken(session, now)
        return taken is not None and taken.answers

    @property
    def refresh_due(self) -> float:
        """When to call `refresh`, before the next record with packets."""
        until, deadline = self._taken_until, self.span.deadline
        if deadline < until and self._largest_taken:  # nothing follows from the span while no records are sent
            return deadline
        return until

    def refresh(self, session: Session, now: float) -> bool:
        """Apply what the peer's HELLO and the passing of time have changed, for the records that follow.

        Returns whether `deadline` may be nearer than before: who takes records for the first time is probed.
        """
        taken_before = self.takes
        taken = self._hellos.taken(session, now)
        self._taken_until = self._hellos.taken_until(session, now)
        if taken is None or taken.is_tap is not self.is_tap:
            self.takes = self._largest_taken = 0
            return False
        self.takes = taken.takes & TAKES_ALL
        self._largest_taken = taken.largest
        self.span.protection.possible = taken.takes & TAKES_PARITY > 0
        if now >= self.span.deadline:
            self.span.handle_deadline(now)
        self._follow_path(now)
        return self.takes != taken_before

    @property
    def room(self) -> int:
        """Bytes of plaintext that the next record with packets may have; 0 if the peer takes no records."""
        if self._is_stream or self._is_cut:
            room, taken = self.span.largest_record, self._largest_taken
            return room if room < taken else taken
        return min(max(self._mtu + OVERHEAD, self._path.payload) - DATA_OVERHEAD, self._largest_taken)

    def room_for(self, size: int) -> int:
        """Bytes of plaintext that a record may have whose first packet ends at byte `size`; less if it takes none.

        That is `room`, if the packet fits there. Otherwise it is what the datagrams hold that the packet needs.
        """
        room = self.room
        if self._is_stream:
            room = max(room, min(size, LARGEST_RECORD))
        elif size > room and self._is_cut:
            count, payload = datagrams_for(size + DATA_OVERHEAD, self.payload), self.payload
            room = min(count * payload, LARGEST_SEND) - count * HEADER_SIZE - TAG_SIZE
        return min(room, self._largest_taken)

    def path_rate(self, now: float) -> float:
        """The rate that the path delivers, in bytes a second; 0 if the path is not known to be the limit."""
        return self.span.estimator.path_rate(now)

    def probe_sent(self, counter: int) -> None:
        """Note that a padded PROBE was sent with this counter: its loss does not count as loss on the path."""
        self.span.probed(counter)

    def protected_size(self, size: int) -> int:
        """Bytes to pad a record of `size` bytes to, so that it fills its datagrams; 0 if it is sent without parity.

        Over a stream the result is 0.
        """
        span, payload = self.span, self.payload
        if not (span.protects_bursts and span.protection.possible and self._is_cut):
            return 0
        count = datagrams_for(size + DATA_OVERHEAD, payload)
        padded = count * (payload - HEADER_SIZE) - TAG_SIZE
        fits = count < MOST_DATAGRAMS and (count + 1) * payload <= LARGEST_SEND and padded <= self._largest_taken
        return padded if fits else 0

    def may_go_straight(self, session: Session) -> bool:
        """Whether packets need neither splitting nor a parity, so that they can be sent without asking again."""
        if self.takes != TAKES_ALL or session is not self._session:
            return False
        span = self.span
        return self._is_stream or (self.dont_fragment and not span.protects_bursts and not span.protection.active)

    def sent(self, session: Session, counter: int, size: int, datagrams: int, now: float) -> None:
        """Note that a record with packets was sealed and sent. `size`: bytes of its message."""
        if session is self._session:
            self.span.sent(counter, datagrams, size, now)

    def sent_singles(self, session: Session, first: int, count: int, each: int, size: int, now: float) -> None:
        """Note that `count` records with packets were sent, each in one datagram, from the counter `first` on.

        `each`: bytes of each message but the last, which may be shorter; `size`: bytes of all together.
        """
        if session is self._session:
            self.span.sent_singles(first, count, each, size, now)

    def parity_of(self, session: Session, counter: int, plaintext: memoryview) -> bytes:
        """Return the PARITY record to send after a record sealed for one datagram; empty if none is due."""
        protection = self.span.protection
        if not (protection.active and protection.possible and session is self._session):
            return b""
        if len(plaintext) + PARITY_SIZE + DATA_OVERHEAD > self.payload:
            return b""
        return self._parities.add(counter, plaintext, protection.group)

    def on_traffic(self, session: Session, now: float) -> list[Event]:
        """Send a HELLO if one is due: packets go to the peer, in records or not."""
        return self._hello(session) if self._hellos.on_traffic(session, now, self._receive_stats.highest) else []

    def opened(self, session: Session, counter: int, datagrams: int, now: float, plaintext: memoryview) -> None:
        """Note that a message with packets was opened, which came in this many datagrams."""
        if session is self._session:
            self._receive_stats.record_received(counter, datagrams, now)
            if datagrams == 1 and now < self._restorer.until:
                self._restorer.keep(counter, plaintext)

    def opened_control(self, session: Session, counter: int, datagrams: int) -> None:
        """Note that a message without packets was opened: a keepalive, or a record other than BUNDLE."""
        if session is self._session:
            self._receive_stats.control_received(counter, datagrams)

    def restore(self, session: Session, record: memoryview, now: float) -> bytes | None:
        """Return the plaintext of the bundle that an opened PARITY restores; None if it restores none.

        Raises BadPacket for an invalid PARITY.
        """
        parity = Parity.parse(record)
        if session is not self._session:
            return None
        found = self._restorer.restore(parity, session.replay, now)
        if found is None or found[1][0] not in (BUNDLE, FRAMES) or not session.replay.mark(found[0]):
            return None
        self._receive_stats.restored(found[0])
        self.restored += 1
        return found[1]

    def refused(self, size: int, now: float) -> None:
        """Shorten datagrams: this host refused one of `size` bytes, so the path is narrower than the length in use.

        Other records may already be sealed for that length. That they are refused too tells nothing about a shorter
        one.
        """
        if self._is_cut and size <= self.payload:
            self._path.refused(self.payload, now)
            self._follow_path(now)

    def follow_mtu(self, mtu: int, now: float) -> None:
        """Adapt records to another inner MTU, in bytes."""
        self._mtu = mtu
        self._follow_path(now)

    # Records without packets

    def received(self, session: Session, record: memoryview, source: Endpoint, now: float) -> list[Event]:
        """Act on an opened record other than BUNDLE. Raises BadPacket for an invalid one."""
        kind = record[0]
        if kind == HELLO:
            answer = self._hellos.received(session, Hello.parse(record), now)
            self._taken_until = -NEVER
            return [*(self._hello(session) if answer else []), DrainQueue()]
        if kind in (REPORT, PROBE, ECHO):
            self._hellos.recognised(now)
        if kind == PROBE:
            probe = Probe.parse(record)
            return [SendRecord(Echo(probe.token, probe.size).pack(), source)]
        if kind == ECHO:
            purpose = self._prober.echoed(Echo.parse(record), source, now)
            if purpose == "carrier":
                return [PathVerified(source)]
            if purpose is not None:
                self._follow_path(now)
            return []
        if kind == REPORT:
            report = Report.parse(record)
            if session is self._session and self.span.reported(report, session.send_counter, now):
                self._prober.arrivals.arrived()
                self.verification.proven(now)
            return []
        raise BadPacket("unknown record")

    def try_path(self, endpoint: Endpoint, now: float) -> list[Event]:
        """Test whether another path works in both directions; empty if the peer cannot answer a PROBE."""
        if self._session is None or not self.takes_records(self._session, now):
            return []
        return self._prober.try_path(endpoint, now)

    def ask_whether_anything_arrives(self, now: float) -> list[Event]:
        """Send a PROBE and await its ECHO; empty if the peer cannot answer one."""
        if not self.can_verify(now):
            self._prober.arrivals.begin()
            return []
        return self._prober.ask_whether_anything_arrives(now)

    def can_verify(self, now: float) -> bool:
        """Whether the peer can be sent a PROBE now, and can answer it."""
        session = self._session
        return session is not None and session.may_send(now) and self.takes_records(session, now)

    def verify(self, now: float) -> list[Event]:
        """Test whether data arrives at the peer; empty if that cannot answer, or was asked less than a second ago."""
        return self._prober.verify(now) if self.can_verify(now) else []

    def probe_refused(self, size: int, now: float) -> list[Event]:
        """Probe another length at once: this host refused to send a PROBE whose message has `size` bytes."""
        self._path.refused(size, now)
        self._follow_path(now)
        return self._prober.search(now)

    def handle_timer(self, now: float, slept: float) -> list[Event]:
        """Do what is due. `slept`: seconds that the loop has waited since its start."""
        session = self._session
        if session is None:
            return []
        events: list[Event] = []
        stats = self._receive_stats
        if now >= stats.deadline:
            for counter, datagrams in self.reassembly.given_up(session, now):
                stats.record_given_up(counter, datagrams)
                self.unfinished += 1
            busy = self._busy_meter.share(now, slept)
            report = stats.report(now, self.reassembly.waiting(session, stats.settled), busy)
            if report is not None and self.takes_records(session, now):
                events.append(SendRecord(report.pack()))
                if self._asks_when_quiet:
                    self._prober.arrivals.received(now)
        if now >= self._hello_deadline():
            events += self.on_traffic(session, now)
            if not self._awaits_hellos:  # the peer seems to be a plain WireGuard now: what waits, waits in vain
                events.append(DrainQueue())
            if now - self._confirmed_at >= REKEY_TIMEOUT:  # packets wait, and nothing else would notice the silence
                events.append(HandshakeWanted())
        if now >= self._prober.arrivals.deadline:
            events += self.ask_whether_anything_arrives(now)
        if now >= self._prober.doubt_deadline:
            events += self.look_for_black_hole(now)
            self.span.black_hole.looked_into()
        if now >= self._prober.conclusion_deadline:
            self._prober.conclude(now)
            self._follow_path(now)
        return events + self._prober.handle_timer(now, search=self.cuts)

    def note_packets_sent(self, now: float) -> None:
        """Note that packets were sent, of which the peer must report some. Once in 50 ms is often enough."""
        if self.takes:
            self._prober.arrivals.sent(now)

    def look_for_black_hole(self, now: float) -> list[Event]:
        """If sent records seem to vanish, test whether their length gets through, bursts do, and whether anything does.

        If bursts are known to vanish, test from time to time whether they still do.
        """
        if self._is_stream:
            return []
        if self._is_cut:
            return self._prober.look_for_black_hole(self.payload, now)
        return self._prober.try_bursts(now) if self.takes & TAKES_BURSTS else []

    # Inside

    def _hello(self, session: Session) -> list[Event]:
        return [SendRecord(self._hellos.hello(session).pack())]

    def _hello_deadline(self) -> float:
        """When to send a HELLO without traffic: only if packets wait for the peer's HELLO."""
        return self._hellos.due(self._session) if self._awaits_hellos else NEVER

    @property
    def _awaits_hellos(self) -> bool:
        return self._peer_is_vpntun or (self.is_tap and not self._hellos.seems_plain)

    def _follow_path(self, now: float) -> None:
        """Adapt the cutting of records to the path and to what the peer takes."""
        bursts = self.span.black_hole.passes and (not self.takes or bool(self.takes & TAKES_BURSTS))
        self._is_cut = bursts and not self._path.needs_fragmentation
        self.dont_fragment = self._is_cut and self._path.is_proven
        payload = self._path.payload if self._is_cut else UNCUT
        if payload != self.payload:
            self.payload = payload
            self._parities.begin()  # a parity of records sealed for the former length might not fit the new one
        protectable = self._is_cut and self.payload - DATA_OVERHEAD <= LARGEST_KEPT
        self.span.path(0 if self._is_stream else self.payload, now, protectable=protectable)
