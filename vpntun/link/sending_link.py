"""Sending half of a link: decides how packets are sent to its peer now, and sends its sealed messages.

A packet from the device
    waits            in the link's queue, unsealed, if there is no session or no endpoint, the endpoint is not ready,
                     others wait already, or the peer's HELLO is awaited. Without a session a handshake is asked for
    is bundled       if the peer is a vpntun that takes records (datapath/sending/bundler.py)
    is sent plain    to any other WireGuard, one packet a message (datapath/sending/plain.py)

Waiting packets are sent once there is a session, the HELLO has arrived, or the endpoint is ready again.

A packet that fills a record or comes alone is sent by `send_straight`, without the checks that an earlier record has
passed in the last 50 ms.
"""

from __future__ import annotations

from vpntun.core.endpoint import Outcome
from vpntun.core.events import HandshakeWanted
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.selection.executor import CarrierSelector
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.session import REJECT_AFTER_TIME, Session
from vpntun.link.controlled_peer import ControlledPeer
from vpntun.link.seal_buffer import SealBuffer
from vpntun.runtime.loop import Loop
from vpntun.runtime.schedule import Schedule
from vpntun.types import NEVER
from vpntun.wire.burst import datagrams_for
from vpntun.wire.ip import DSCP
from vpntun.wire.message import DATA_OVERHEAD

SECONDS_BETWEEN_CHECKS = 0.05
"""Seconds between two checks of state that takes seconds to change."""


class SendingLink(ControlledPeer):
    """The sending half of a link (link.py). It seals into `seal_buffer`, which all links share."""

    def __init__(
        self,
        loop: Loop,
        schedule: Schedule,
        seal_buffer: SealBuffer,
        peer: Peer,
        selector: CarrierSelector,
        records: RecordProtocol,
        name: str,
    ) -> None:
        self._seal_buffer = seal_buffer
        self._slept = 0.0
        self._check_at = 0.0
        self._straight_until = 0.0
        """When `send_straight` must leave a record to `send_record`. Whatever changes how records are sent calls
        `touch`, which sets this to 0. What time alone changes is looked up when this is set."""
        self._straight_session: Session | None = None
        self._straight_room = 0
        self._span = records.span
        super().__init__(loop, schedule, peer, selector, records, name)

    def session_to_send_with(self) -> Session | None:
        """Return the session if a data message can be sent now. Without a session, ask for a handshake."""
        session = self.peer.sending_session(self._loop.now)
        endpoint = self.peer.endpoint
        if session is None:
            self.act([HandshakeWanted()])
        elif endpoint is not None and endpoint.ready() and not self.records.awaits_hello(session, self._loop.now):
            return session
        return None

    def room_for_record(self) -> int:
        """Return how many bytes of plaintext a record may have; 0: none can be sent now, or the peer takes none."""
        now, records, peer = self._loop.now, self.records, self.peer
        session, endpoint = peer.sending_session(now), peer.endpoint
        if session is None:
            self.act([HandshakeWanted()])
            return 0
        if endpoint is None or not endpoint.ready():
            return 0
        if now >= records.refresh_due and records.refresh(session, now):
            self.touch()
        return records.room

    def enqueue(self, packet: memoryview, field: int) -> None:
        """Queue a packet, with its segment field."""
        now = self._loop.now
        self.queue.follow(self.records.path_rate(now))
        dropped = self.queue.push(bytes(packet), field, now)
        if dropped:
            self.drops["queue full"] += dropped

    def note_backlog(self, count: int) -> None:
        """Note that the device had more to read after `count` records had been sent."""
        self._span.bottleneck.backlogged += count

    def follow_mtu(self, mtu: int) -> None:
        """Adapt records to another MTU of the device, in bytes."""
        self.records.follow_mtu(mtu, self._loop.now)
        self.touch()

    def touch(self) -> None:
        """Make the schedule read the deadline again, and the next record pass all checks."""
        self._straight_until = 0.0
        super().touch()

    def send_straight(self, record: memoryview, tos: int) -> bool:
        """Send a record of one packet as `send_record` does, if an earlier one has passed all checks lately.

        Returns False if it has to pass them itself.
        """
        now, peer, buffer = self._loop.now, self.peer, self._seal_buffer
        session, endpoint = peer.keys.current, peer.endpoint
        if (
            now >= self._straight_until
            or session is not self._straight_session
            or session is None
            or endpoint is None
            or len(record) > self._straight_room
            or self.queue.size
            or buffer.pending
            or not endpoint.ready()
        ):
            return False
        counter, size, payload = session.send_counter, len(record) + DATA_OVERHEAD, self.records.payload
        if endpoint.is_stream or size <= payload:
            count = 1
            outcome = endpoint.send_frame(buffer.seal_frame(session, record), dont_fragment=True, tos=tos)
        else:
            buffers = buffer.seal_burst(session, record, payload, 0)
            count = len(buffers) + 1 >> 1
            outcome = endpoint.send(buffers, payload, dont_fragment=True, tos=tos)
        self._span.sent(counter, count, size, now)
        if outcome is Outcome.SENT:
            peer.sent_bytes += size
            peer.timers.data_sent(now)
        else:
            self._account(session, outcome, 1, size, payload, now)
        return True

    def send_record(self, record: memoryview, tos: int, *, is_last: bool = False) -> bool:
        """Seal and send a record with packets, of a length that `room_for_record` has just allowed.

        `tos`: the TOS byte of its datagrams.

        A record that fits in a datagram is sent with the batch, unless it is the last one and the batch is empty.
        Returns whether anything was sent, after which the endpoint may no longer be ready.
        """
        peer, records, buffer, now = self.peer, self.records, self._seal_buffer, self._loop.now
        session, endpoint = peer.keys.current, peer.endpoint
        if session is None or endpoint is None:
            return True
        payload, size = records.payload, len(record) + DATA_OVERHEAD
        is_stream = endpoint.is_stream
        if not is_stream and size <= payload and not (is_last and not buffer.pending):
            return self._send_with_batch(session, record, tos)
        if buffer.pending:
            buffer.flush()
        counter, count = session.send_counter, 1
        if is_stream or size <= payload:
            frame = buffer.seal_frame(session, record)
            outcome = endpoint.send_frame(frame, dont_fragment=records.dont_fragment, tos=tos)
        else:
            padded = records.protected_size(len(record))
            size = max(size, padded + DATA_OVERHEAD)
            count = datagrams_for(size, payload)
            buffers = buffer.seal_burst(session, record, payload, padded)
            outcome = endpoint.send(buffers, payload, dont_fragment=records.dont_fragment, tos=tos)
        if now >= self._check_at:
            self._note_sleep()
        records.sent(session, counter, size, count, now)
        self._account(session, outcome, 1, size, payload, now)
        if count == 1 and (parity := records.parity_of(session, counter, record)):
            buffer.add(self, session, memoryview(parity), tos & DSCP, is_record=True)
        self._go_straight(session, now)
        return True

    def _go_straight(self, session: Session, now: float) -> None:
        """Let `send_straight` send the records that follow, until something is due."""
        records = self.records
        if records.may_go_straight(session):
            self._straight_session, self._straight_room = session, records.room
            self._straight_until = min(self._check_at, records.refresh_due, session.created + REJECT_AFTER_TIME)

    def _send_with_batch(self, session: Session, record: memoryview, tos: int) -> bool:
        """Seal a record of one datagram, and its parity if one is due. Return whether a batch was sent.

        The parity is Not-ECT, because its group may have records that are.
        """
        buffer = self._seal_buffer
        left = buffer.add(self, session, record, tos, is_record=True)
        if parity := self.records.parity_of(session, buffer.last_counter, record):
            left |= buffer.add(self, session, memoryview(parity), tos & DSCP, is_record=True)
        return left

    def send_batch(
        self, session: Session, messages: memoryview, size: int, first: int, count: int, tos: int, *, are_records: bool
    ) -> None:
        """Send messages, as BatchSender.send_batch."""
        endpoint, records, now = self.peer.endpoint, self.records, self._loop.now
        if endpoint is None:
            return
        dont_fragment = are_records and records.dont_fragment
        outcome = endpoint.send([messages], size if count > 1 else 0, dont_fragment=dont_fragment, tos=tos)
        if are_records:
            if now >= self._check_at:
                self._note_sleep()
            records.sent_singles(session, first, count, size, len(messages), now)
        self._account(session, outcome, count, len(messages), size, now)

    def _note_sleep(self) -> None:
        """Report to the records how long the loop has slept since the last report.

        A REPORT from the peer needs the sum, and so does the first record after a rest.
        """
        slept = self._loop.slept
        self._span.bottleneck.slept += slept - self._slept
        self._slept = slept

    def _account(self, session: Session, outcome: Outcome, messages: int, size: int, datagram: int, now: float) -> None:
        """Account for messages with packets, of `size` bytes in all, that were sealed and then sent or dropped.

        `datagram`: the most bytes that one datagram of them has.
        """
        if outcome is Outcome.SENT or outcome is Outcome.HELD:
            self.peer.sent_bytes += size
        else:
            self.note_outcome(outcome, messages, min(size, datagram))
            if outcome is Outcome.REROUTED:
                self.peer.sent_bytes += size
        self.peer.timers.data_sent(now)
        if now >= self._check_at:
            if outcome is Outcome.SENT:
                self.refused_since = NEVER
            self._check_path_and_session(session, now)

    def note_outcome(self, outcome: Outcome, messages: int, datagram: int) -> None:
        """Note that messages, whose longest datagram has `datagram` bytes, were refused or rerouted."""
        if outcome is Outcome.TOO_BIG:
            self.drops["too big for the path"] += messages
            self.records.refused(datagram, self._loop.now)
            self.touch()
        elif outcome is Outcome.UNDELIVERABLE:
            self.drops["undeliverable"] += messages
            self._note_refused()
        elif outcome is Outcome.REROUTED:
            self.begin_path_again()

    def _check_path_and_session(self, session: Session, now: float) -> None:
        """Check, at most every 50 ms of traffic, for black holes, due reports, and a session due for renewal."""
        self._check_at = now + SECONDS_BETWEEN_CHECKS
        self.touched_by_traffic(now)
        self.records.note_packets_sent(now)
        events = self.records.look_for_black_hole(now) + self.records.on_traffic(session, now)
        if self.peer.is_due_for_renewal(session, now):
            events.append(HandshakeWanted())
        if events:
            self.act(events)
