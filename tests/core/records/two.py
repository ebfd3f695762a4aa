"""Two ends of a session that speak the record protocol, and what is under way between them, at an explicit time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.core.fakes import FakeEndpoint
from tests.core.records.room import room_of
from vpntun.core.endpoint import Endpoint
from vpntun.core.events import DrainQueue, Event, HandshakeWanted, PathVerified, SendRecord
from vpntun.core.records.protocol import RecordProtocol
from vpntun.crypto.noise import SessionKeys
from vpntun.crypto.session import Session
from vpntun.types import NEVER
from vpntun.wire.burst import datagrams_for
from vpntun.wire.message import DATA_OVERHEAD
from vpntun.wire.record import (
    TAKES_BURSTS,
    TAKES_TSO4,
)

TAKES = TAKES_BURSTS | TAKES_TSO4
UDP = FakeEndpoint("udp")
TCP = FakeEndpoint("tcp", "tcp")
START = 1000.0
LONGEST_PACKET = 1425
"""Bytes of a record with one packet of 1,420 bytes."""


def new_session(number: int, now: float) -> Session:
    return Session(SessionKeys(b"a" * 32, b"b" * 32), number, number, True, now)


@dataclass
class End:
    """One end: its conversation, the session it seals with, and what it has said."""

    records: RecordProtocol
    said: list[tuple[float, SendRecord]] = field(default_factory=list)
    proved: list[Endpoint] = field(default_factory=list)
    ready: int = 0
    handshakes: int = 0
    session: Session = field(default_factory=lambda: new_session(0, START))

    def kinds(self, since: float = 0.0) -> list[int]:
        return [say.record[0] for at, say in self.said if at >= since]


class Two:
    """Two ends and what is under way between them, delivered after `latency`; every path leads to the other end.

    `passes` says which messages do: (record, the endpoint it is sent to) -> bool. Sizes are of whole messages.
    `drops_pieces`: whether those in several datagrams are lost.
    """

    def __init__(
        self, *, known: bool = True, takes: tuple[int, int] = (TAKES, TAKES), mtu: int = 1420, left_is_tap: bool = False
    ) -> None:
        self.now = START
        self.latency = 0.01
        self.passes: Callable[[bytes, Endpoint], bool] = lambda record, to: True
        self.drops_pieces = False
        self.refuses_above = 1 << 20
        self.left, self.right = (
            End(RecordProtocol(each, mtu, self.now, peer_is_vpntun=known, is_tap=is_tap))
            for each, is_tap in zip(takes, (left_is_tap, False), strict=True)
        )
        for end in (self.left, self.right):
            end.records.moved(UDP, self.now, ipv6=False)
        self._under_way: list[tuple[float, End, bytes, Endpoint, int, int, int]] = []

    def confirm(self, number: int = 1) -> None:
        """A session stands at both ends."""
        for end in (self.left, self.right):
            end.session = new_session(number, self.now)
        for end in (self.left, self.right):
            self.act(end, end.records.confirmed(end.session, self.now))

    def other(self, end: End) -> End:
        return self.right if end is self.left else self.left

    def act(self, end: End, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, SendRecord):
                end.said.append((self.now, event))
                self._say(end, event)
            elif isinstance(event, PathVerified):
                end.proved.append(event.endpoint)
            elif isinstance(event, HandshakeWanted):
                end.handshakes += 1
            else:
                assert event == DrainQueue()
                end.ready += 1

    def _say(self, end: End, say: SendRecord) -> None:
        size = len(say.record) + DATA_OVERHEAD
        if say.size_matters:
            assert say.endpoint is not None
            end.session.send_counter += 1
            end.records.span.probed(end.session.send_counter - 1)
            if (say.datagram or size) > self.refuses_above:
                self.act(end, end.records.probe_refused(size, self.now))
                return
            end.session.send_counter -= 1
        self.send(end, say.record, say.endpoint or UDP, datagrams_for(size, say.datagram or size))

    def send(self, end: End, record: bytes, to: Endpoint = UDP, datagrams: int = 1) -> None:
        """A message leaves; it may be lost."""
        counter = end.session.send_counter
        end.session.send_counter += 1
        if self.passes(record, to) and not (self.drops_pieces and datagrams > 1):
            other = self.other(end)
            number = end.session.local_index
            self._under_way.append((self.now + self.latency, other, record, to, counter, datagrams, number))

    def packets(self, end: End, datagrams: int | None = None, size: int = 4000) -> bool:
        """A record with packets of up to 1,420 bytes; False if it has to wait.

        `datagrams`: as many as the path asks for, unless given.
        """
        records = end.records
        if records.awaits_hello(end.session, self.now):
            return False
        room = room_of(records, end.session, self.now) and records.room_for(min(size, LONGEST_PACKET))
        length = min(size, room) + DATA_OVERHEAD if room else 1420
        if datagrams is None:
            datagrams = datagrams_for(length, records.payload)
        self.send(end, bytes([2]) + bytes(length), UDP, datagrams)
        counter = end.session.send_counter - 1
        if datagrams == 1:
            records.sent_singles(end.session, counter, 1, length, length, self.now)
        else:
            records.sent(end.session, counter, length, datagrams, self.now)
        self.act(end, records.on_traffic(end.session, self.now))
        return True

    def run(self, seconds: float) -> None:
        """Let time pass: messages arrive, deadlines are kept."""
        until = self.now + seconds
        at_once = 0
        while True:
            arrival = min((each[0] for each in self._under_way), default=NEVER)
            deadline = min(end.records.deadline for end in (self.left, self.right))
            upcoming = min(arrival, deadline)
            if upcoming > until:
                break
            at_once = at_once + 1 if upcoming <= self.now else 0
            assert at_once < 1000, "the loop would spin"
            self.now = max(self.now, upcoming)
            if arrival <= self.now:
                first = min(self._under_way, key=lambda each: each[0])
                self._under_way.remove(first)
                self._arrive(*first[1:])
            else:
                for end in (self.left, self.right):
                    self.act(end, end.records.handle_timer(self.now, self.now))
        self.now = until

    def _arrive(self, end: End, record: bytes, source: Endpoint, counter: int, datagrams: int, number: int) -> None:
        if number != end.session.local_index:
            return
        if record[0] == 2:
            end.records.opened(end.session, counter, datagrams, self.now, memoryview(record))
        else:
            end.records.opened_control(end.session, counter, datagrams)
            self.act(end, end.records.received(end.session, memoryview(record), source, self.now))
