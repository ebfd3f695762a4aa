"""One peer's link: acts on what the control plane decides, and says whether and how packets can go out now.

    wait      no session, no path, the path is not ready, others wait already, or the peer's HELLO is awaited:
              the packet stands in the link's queue, unsealed; without a session a handshake is asked for
    bundle    the peer is a vpntun and takes records (bundler.py)
    plain     any other WireGuard: one packet a message (plain.py)

Whatever waits follows when a session stands, the HELLO has come, or the path is ready again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from logging import INFO
from typing import Protocol, cast

from vpntun.carriers.base import Outcome, Path
from vpntun.carriers.tcp import TcpConnection
from vpntun.core.events import (
    CloseConnection,
    DrainQueue,
    DropQueued,
    Endpoint,
    Established,
    Event,
    HandshakeWanted,
    Moved,
    ProbePath,
    SendRecord,
    Transmit,
)
from vpntun.core.queue import PacketQueue
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.records.receive_stats import INTERVAL
from vpntun.core.selection.server import ServerCarriers
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.session import Session
from vpntun.datapath.seal_buffer import SealBuffer
from vpntun.runtime.log import NOTICE, LineLimit, Warnings
from vpntun.runtime.loop import Loop
from vpntun.runtime.schedule import Schedule
from vpntun.types import NEVER
from vpntun.wire.burst import datagrams_for
from vpntun.wire.message import DATA_OVERHEAD

LOOK_EVERY = 0.05
"""Seconds between two looks at what changes in the course of seconds."""
SOONEST = INTERVAL
"""Seconds to the nearest of the deadlines that a packet may be the beginning of: a REPORT's."""
MOST_LINES = 10
"""In ten seconds, in the log about one peer: a rekey with a move writes three."""


class CarrierSelector(Protocol):
    """What a link needs of the choice of carriers, the client's or the server's."""

    @property
    def deadline(self) -> float:
        """When `handle_timer` is to be called."""

    @property
    def searching(self) -> bool:
        """Whether the peer is looked for."""

    def start(self, now: float) -> list[Event]:
        """Begin."""

    def want(self, now: float) -> list[Event]:
        """A handshake is wanted."""

    def handle_timer(self, now: float) -> list[Event]:
        """The deadline has come."""

    def established(self, source: Endpoint, now: float, *, initiator: bool) -> list[Event]:
        """A session stands."""


class Link:
    """The link of a server, and what a client's has in common with it.

    `name`: the peer's, for the log, where it has one. `drops` counts by reason. `touched`: as the schedule has it.
    `lines` and `warnings` bound what the log says of this peer, so that one that hops about keeps no other's lines out.
    `on_news` is called whenever the control plane has done something, and packets may flow that did not, or no longer.
    """

    def __init__(
        self,
        peer: Peer,
        selector: CarrierSelector,
        records: RecordProtocol,
        loop: Loop,
        schedule: Schedule,
        seal_buffer: SealBuffer,
        drops: Counter[str],
        name: str = "",
    ) -> None:
        self.peer = peer
        self.records = records
        self.queue = PacketQueue()
        self.name = name
        self.drops = drops
        self.touched = False
        self._stopped = False
        self.on_endpoint: Callable[[Path], None] = lambda path: None
        self.on_ready: Callable[[], None] = lambda: None
        self.on_news: Callable[[], None] = lambda: None
        self.lines = LineLimit(MOST_LINES)
        self.warnings = Warnings()
        self._selector = selector
        self._loop = loop
        self._schedule = schedule
        self._seal_buffer = seal_buffer
        self._slept = 0.0
        self._look_at = 0.0
        self._asked_until = 0.0
        self._asked_again_at = NEVER
        self._control_deadline = 0.0
        self._decided = False  # something that may have changed the control plane's deadlines
        self._decide()

    @property
    def now(self) -> float:
        """The loop's clock."""
        return self._loop.now

    @property
    def time(self) -> float:
        """Read the loop's clock: by `now`, a round trip that ends in a long turn would seem too short."""
        return self._loop.time()

    @property
    def deadline(self) -> float:
        """The link's next, on the loop's clock."""
        if self._decided:
            self._decided = False
            self._control_deadline = min(self._selector.deadline, self.records.deadline)
        return min(self._control_deadline, self.peer.timers.earliest(), self.records.report_due, self._asked_again_at)

    @property
    def searching(self) -> bool:
        """Whether the peer is being asked for a handshake, or a path to it is looked for."""
        return self._selector.searching

    def at(self, path: Endpoint) -> str:
        """The peer on a path, for the log."""
        return f"{self.name} at {path}" if self.name else str(path)

    def touch(self) -> None:
        """Something was decided: the deadline may have changed."""
        if not self.touched:
            self._schedule.touch(self)

    def touched_by_traffic(self, now: float) -> None:
        """Something was sent or received: what that is the beginning of is due no sooner than 50 ms from now.

        So the link need not be asked for its deadline at each packet: it is, and again after as long.
        """
        if now >= self._asked_until:
            self._asked_until = self._asked_again_at = now + SOONEST
            self.touch()

    def start(self) -> None:
        """Begin."""
        path = self.path
        if path is not None:
            self.records.moved(path, self._loop.now, ipv6=path.ipv6)
        self.act(self._selector.start(self._loop.now))

    def stop(self) -> None:
        """End: whatever is still decided for this link, nothing is done any more."""
        self._stopped = True
        self.queue.clear()

    def keep_alive(self, seconds: float) -> None:
        """Another interval for the persistent keepalive, in seconds; 0: none."""
        self.peer.timers.keep_alive(seconds, self._loop.now)
        self.touch()

    def handle_deadline(self) -> None:
        """Do what the deadlines that have passed ask for."""
        now = self._loop.now
        if now >= self._asked_again_at:
            self._asked_again_at = NEVER
        self.act(self.peer.handle_timers(now))
        self.act(self._selector.handle_timer(now))
        self.act(self.records.handle_timer(now, self._loop.slept))

    def act(self, events: Iterable[Event]) -> None:
        """Do what was decided, and what that decides in turn."""
        if self._stopped:
            return
        self._decide()
        waiting = deque(events)
        while waiting:
            waiting.extend(self._act_on(waiting.popleft()))
        self.on_news()

    @property
    def path(self) -> Path | None:
        """Where the peer is reached."""
        return self.peer.endpoint  # type: ignore[return-value] # the host makes all endpoints, and makes them paths

    def session_to_send_with(self) -> Session | None:
        """The session, if a data message can leave now; else packets wait, for a handshake where there is none."""
        session = self.peer.sending_session(self._loop.now)
        path = self.path
        if session is None:
            self.act([HandshakeWanted()])
        elif path is not None and path.ready() and not self.records.awaits_hello(session, self._loop.now):
            return session
        return None

    def room_for_record(self) -> int:
        """Bytes of plaintext that a record to the peer may have now; 0: it takes none."""
        now, records = self._loop.now, self.records
        session = self.peer.sending_session(now)
        path = self.path
        if session is None:
            self.act([HandshakeWanted()])
            return 0
        if path is None or not path.ready():
            return 0
        took = records.takes
        room = records.room(session, now)
        if records.takes != took:  # with who takes records the path's length is searched for
            self._decide()
        return room

    def enqueue(self, packet: memoryview, field: int) -> None:
        """Let a packet wait, with its segment field."""
        now = self._loop.now
        self.queue.follow(self.records.span.estimator.path_rate(now))
        dropped = self.queue.push(bytes(packet), field, now)
        if dropped:
            self.drops["queue full"] += dropped

    def send_record(self, record: memoryview, *, is_last: bool = False) -> bool:
        """Seal and send a record with packets; `room_for_record` has just allowed its length.

        One that fits in a datagram leaves with the sealer's batch, unless it is the last and there is none. Returns
        whether anything has left, so that the path may be blocked now.
        """
        session, path, records = self.peer.keys.current, self.path, self.records
        if session is None or path is None:
            return True
        is_single = path.carrier == "udp" and len(record) + DATA_OVERHEAD <= records.payload
        if is_single and not (is_last and not self._seal_buffer.pending):
            left = self._seal_buffer.add(self, session, record, is_record=True)
            if parity := records.parity_of(session, self._seal_buffer.last_counter, record):
                left |= self._seal_buffer.add(self, session, memoryview(parity), is_record=True)
            return left
        self._seal_buffer.flush()
        padded = 0 if is_single else records.protected_size(len(record))
        message = self._seal_buffer.seal(session, record, padded)
        counter, size = session.send_counter - 1, len(message)
        if path.carrier == "udp":
            payload = records.payload
            count = datagrams_for(size, payload)
            buffers = self._seal_buffer.cut(size, payload, protected=padded > 0)
            outcome = path.send(buffers, payload if count > 1 else 0, dont_fragment=records.dont_fragment)
        else:
            count = 1
            outcome = path.send([message])
        self._note_sleep()
        records.sent(session, counter, size, count, self.now)
        self.account(session, outcome, 1, size, min(size, records.payload), self.now)
        if is_single and (parity := records.parity_of(session, counter, record)):
            self._seal_buffer.add(self, session, memoryview(parity), is_record=True)
        return True

    def send_batch(
        self, session: Session, messages: memoryview, size: int, first: int, count: int, *, are_records: bool
    ) -> None:
        """Send messages of `size` bytes, the last perhaps shorter; their counters begin at `first`."""
        path, records, now = self.path, self.records, self.now
        if path is None:
            return
        outcome = path.send([messages], size if count > 1 else 0, dont_fragment=are_records and records.dont_fragment)
        if are_records:
            self._note_sleep()
            records.sent_singles(session, first, count, size, len(messages), now)
        self.account(session, outcome, count, len(messages), size, now)

    def _note_sleep(self) -> None:
        self.records.span.bottleneck.slept += self._loop.slept - self._slept
        self._slept = self._loop.slept

    def account(self, session: Session, outcome: Outcome, messages: int, size: int, datagram: int, now: float) -> None:
        """So many messages with packets, of `size` bytes in all, were sealed and sent, or could not be.

        `datagram`: bytes of the longest that they went in.
        """
        if outcome is Outcome.TOO_BIG:
            self.drops["too big for the path"] += messages
            self.records.refused(datagram, now)
            self._decide()
        elif outcome is Outcome.UNDELIVERABLE:
            self.drops["undeliverable"] += messages
        else:
            self.peer.sent_bytes += size
        self.peer.timers.data_sent(now)
        if now >= self._look_at:
            self._look_around(session, now)

    def _look_around(self, session: Session, now: float) -> None:
        """What traffic asks for besides, which takes seconds to come about."""
        self._look_at = now + LOOK_EVERY
        self.touched_by_traffic(now)
        if self.records.span.black_hole.is_seen(now):
            self.act(self.records.look_for_black_hole(now))
        events = self.records.on_traffic(session, now)
        if events:
            self.act(events)
        if self.peer.is_due_for_renewal(session, now):
            self.act([HandshakeWanted()])

    def closed(self, connection: TcpConnection) -> None:
        """A TCP connection of this peer's has closed."""
        if isinstance(self._selector, ServerCarriers):
            self._selector.lost(connection)
            self._decide()
            self.on_news()
        self.lines.log(INFO, "the connection from %s has closed", self.at(connection))

    def undeliverable(self, path: Path) -> list[Event]:
        """A handshake message cannot leave this host."""
        return []

    def _decide(self) -> None:
        self._decided = True
        self.touch()

    def _say(self, say: SendRecord) -> list[Event]:
        """Seal and send a record without packets: it goes first, and arms none of data's timers."""
        now = self._loop.now
        session = self.peer.sending_session(now)
        path = cast("Path | None", say.endpoint) or self.path
        if session is None or path is None or self._leads_inside(path):
            return []
        message = memoryview(bytearray(len(say.record) + DATA_OVERHEAD))
        session.seal_into(say.record, message)
        self.peer.timers.authenticated_sent(now)
        if say.size_matters:
            self.records.span.probed(session.send_counter - 1)
        if say.size_matters and path.carrier == "udp":
            if path.send([message], dont_fragment=True) is Outcome.TOO_BIG:
                return self.records.probe_refused(len(message), now)
        else:
            path.send_first(message)
        self.peer.sent_bytes += len(message)
        return []

    def _act_on(self, event: Event) -> list[Event]:
        now = self._loop.now
        match event:
            case Transmit(endpoint, message):
                path = cast(Path, endpoint)
                if self._leads_inside(path):
                    return self.undeliverable(path)
                if path.send_first(message) is Outcome.UNDELIVERABLE:
                    self.drops["undeliverable"] += 1
                    return self.undeliverable(path)
                self.peer.sent_bytes += len(message)
            case SendRecord():
                return self._say(event)
            case HandshakeWanted():
                return self._selector.want(now)
            case Established(source, initiator):
                asked = "we asked" if initiator else "it asked"
                self.lines.log(INFO, "session with %s (%s)", self.at(source), asked)
                self.act(self._selector.established(source, now, initiator=initiator))
                if self.peer.keys.current is not None:
                    self.act(self.records.confirmed(self.peer.keys.current, now))
                self.on_ready()
            case Moved(endpoint, former):
                self._moved(cast(Path, endpoint), cast("Path | None", former))
            case CloseConnection(endpoint):
                cast(Path, endpoint).hang_up_later()
            case ProbePath(endpoint):
                return self.records.try_path(endpoint, now) or self.peer.initiate(endpoint, now)
            case DrainQueue():
                self.on_ready()
            case DropQueued():
                self.drops["no session"] += self.queue.clear()
        return []

    def _leads_inside(self, path: Path) -> bool:
        """Whether what is sent there, where the peer is not yet, would come out of the device."""
        if path is self.path or self.peer.may_move_to(path):
            return False
        self.drops["routing loop"] += 1
        return True

    def _moved(self, path: Path, former: Path | None) -> None:
        if former is None:
            self.lines.log(NOTICE, "connected to %s", self.at(path))
        else:
            self.lines.log(NOTICE, "%s is at %s now (it was at %s)", self.name or "the peer", path, former)
            former.hang_up_later()
        self.records.moved(path, self._loop.now, ipv6=path.ipv6)
        self.on_endpoint(path)
        self.on_ready()
