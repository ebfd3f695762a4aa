"""Two ends and a clock, at two sizes.

`Pair`   two peers without a choice of carriers; the test hands every message over itself.
`World`  a client and a server with all of the core, on the fake network, stepping from deadline to deadline. Its ends
         act on events in the order in which the host's link does. Both are vpntuns that know it of each other, and hold
         a conversation; in a `plain` world the server is any WireGuard, and the client does not know what it is.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from random import Random

import pytest

from tests.core.fakes import Address, Connection, FakeEndpoint, FakeTimestamps, Network
from vpntun.core.events import (
    CloseConnection,
    Dial,
    DrainQueue,
    DropQueued,
    Endpoint,
    Established,
    Event,
    HandshakeWanted,
    Moved,
    PathVerified,
    ProbePath,
    Resolve,
    SendRecord,
    Transmit,
)
from vpntun.core.queue import PacketQueue
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.selection.client import ClientCarriers
from vpntun.core.selection.server import ServerCarriers
from vpntun.core.wireguard.node import Node
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.keys import KeyPair, clamp
from vpntun.crypto.session import Session
from vpntun.errors import BadPacket
from vpntun.types import Carrier, Transport
from vpntun.wire.message import DATA, DATA_HEADER, DATA_OVERHEAD, INITIATION, kind_of
from vpntun.wire.record import (
    BUNDLE,
    BUNDLE_START,
    ECHO,
    ENTRY_SIZE,
    LAST_KIND,
    PROBE,
    SMALLEST_PACKET,
    TAKES_BURSTS,
    append,
    begin_bundle,
    packets_of,
)

CLIENT_KEYS = KeyPair.of(clamp(b"c" * 32))
SERVER_KEYS = KeyPair.of(clamp(b"s" * 32))
STRANGER_KEYS = KeyPair.of(clamp(b"x" * 32))
PSK = b"p" * 32

AT_LEFT = FakeEndpoint("left")
AT_RIGHT = FakeEndpoint("right")
ELSEWHERE = FakeEndpoint("elsewhere")


def refusal(side: Side, message: bytes, source: Endpoint, now: float) -> str:
    """The reason for which a message is dropped, as it must be."""
    with pytest.raises(BadPacket) as caught:
        side.take(message, source, now)
    return caught.value.reason


def sent(events: Iterable[Event]) -> list[bytes]:
    """The messages that go out."""
    return [event.message for event in events if isinstance(event, Transmit)]


def only(events: Iterable[Event]) -> bytes:
    """The one message that goes out."""
    (message,) = sent(events)
    return message


class Side:
    """One end: a node that knows one peer."""

    def __init__(
        self,
        own: KeyPair,
        other: bytes,
        rng: Random,
        *,
        psk: bytes = PSK,
        timestamps: FakeTimestamps | None = None,
        keepalive: float = 0.0,
        chooses_carrier: bool = False,
        may_be_at: Callable[[Endpoint], bool] = lambda endpoint: True,
    ) -> None:
        self.node = Node(own)
        self.received: list[bytes] = []
        self.peer = Peer(
            own,
            other,
            psk,
            self.node.indices,
            timestamps or FakeTimestamps(),
            rng,
            keepalive=keepalive,
            chooses_carrier=chooses_carrier,
            may_be_at=may_be_at,
        )
        self.node.add(self.peer)

    def take(self, message: bytes, source: Endpoint, now: float) -> list[Event]:
        """A message has come. Raises BadPacket."""
        if kind_of(message) != DATA:
            return self.node.receive_handshake(message, source, now)[1]
        held = self.node.session_for(message, now)
        buffer = memoryview(bytearray(len(message)))
        size = held.session.open_into(message, buffer)
        return self._opened(held.session, DATA_HEADER.unpack_from(message)[2], buffer[:size], source, now)

    def _opened(
        self, session: Session, counter: int, plaintext: memoryview, source: Endpoint, now: float
    ) -> list[Event]:
        if plaintext:
            self.received.append(bytes(plaintext))
        return self.peer.opened(session, counter, source, now, keepalive=not plaintext)

    def data(self, text: bytes, now: float) -> bytes:
        """Seal a packet with the session in use, which there must be."""
        session = self.peer.sending_session(now)
        assert session is not None
        message = seal(session, text)
        self.peer.timers.data_sent(now)
        return message

    def current(self) -> Session:
        """The session in use, which there must be."""
        session = self.peer.keys.current
        assert session is not None
        return session


def seal(session: Session, text: bytes) -> bytes:
    """A data message."""
    message = bytearray(len(text) + DATA_OVERHEAD)
    session.seal_into(text, memoryview(message))
    return bytes(message)


def bundle(packet: bytes) -> bytes:
    """A record of one packet, filled up to the length that an IP packet has at least."""
    filled = packet.ljust(SMALLEST_PACKET, b"\0")
    record = bytearray(len(filled) + BUNDLE_START + ENTRY_SIZE)
    append(record, begin_bundle(record), filled, 0)
    return bytes(record)


class Pair:
    """Two sides, left and right, at `now`. Neither chooses carriers."""

    def __init__(self, *, left_psk: bytes = PSK, keepalive: float = 0.0) -> None:
        self.now = 1000.0
        self.rng = Random(7)
        self.left = Side(CLIENT_KEYS, SERVER_KEYS.public, self.rng, psk=left_psk, keepalive=keepalive)
        self.right = Side(SERVER_KEYS, CLIENT_KEYS.public, self.rng)
        self.left.peer.endpoint = AT_RIGHT

    def initiation(self, to: Endpoint = AT_RIGHT) -> bytes:
        """Left asks."""
        return only(self.left.peer.initiate(to, self.now))

    def to_left(self, message: bytes, source: Endpoint = AT_RIGHT) -> list[Event]:
        """Left takes a message."""
        return self.left.take(message, source, self.now)

    def to_right(self, message: bytes, source: Endpoint = AT_LEFT) -> list[Event]:
        """Right takes a message."""
        return self.right.take(message, source, self.now)

    def confirm(self) -> list[Event]:
        """Left sends a keepalive, right takes it."""
        return self.to_right(only(self.left.peer.keepalive(AT_RIGHT, self.now)))

    def shake_hands(self) -> None:
        """Left asks, right answers, left confirms."""
        self.to_left(only(self.to_right(self.initiation())))
        self.confirm()

    def assert_data_flows(self) -> None:
        """A packet each way arrives."""
        self.to_right(self.left.data(b"to the right", self.now))
        assert self.right.received[-1] == b"to the right"
        self.to_left(self.right.data(b"to the left", self.now))
        assert self.left.received[-1] == b"to the left"


class End(Side):
    """A machine in the world: a side, its choice of carriers and its queue."""

    def __init__(self, world: World, name: str, timestamps: FakeTimestamps, keepalive: float) -> None:
        own, other = (CLIENT_KEYS, SERVER_KEYS) if name == "client" else (SERVER_KEYS, CLIENT_KEYS)
        calls = name == "client"
        super().__init__(
            own, other.public, world.rng, timestamps=timestamps, keepalive=keepalive, chooses_carrier=calls
        )
        self.name = name
        self.address = name
        self.speaks = not (world.plain and name == "server")
        self.records = RecordProtocol(TAKES_BURSTS, 1420, world.now, peer_is_vpntun=not world.plain)
        self.queue = PacketQueue()
        self.drops: Counter[str] = Counter()
        self.gave_up = 0
        self.established = 0
        self._world = world
        self._resolving = False
        self.alive = True

    @property
    def deadline(self) -> float:
        """When `handle_deadline` is due."""
        return min(self.choice_deadline, self.peer.timers.earliest(), self.records.deadline)

    @property
    def choice_deadline(self) -> float:
        """The choice's."""
        raise NotImplementedError

    @property
    def carrier(self) -> Carrier | None:
        """The carrier in use."""
        return self.peer.endpoint.carrier if self.peer.endpoint is not None else None

    def handle_deadline(self) -> None:
        """Timers, then the choice."""
        raise NotImplementedError

    def send(self, packet: bytes) -> None:
        """A packet from the device."""
        self.queue.push(packet)
        if self.peer.sending_session(self._world.now) is None:
            self.act([HandshakeWanted()])
        self.pump()

    def pump(self) -> None:
        """Send what waits, if it can be: in a record each, or bare to a WireGuard."""
        now = self._world.now
        while self.queue and self.peer.endpoint is not None:
            session = self.peer.sending_session(now)
            if session is None or self.peer.endpoint.clogged() or self.records.awaits_hello(session, now):
                return
            plaintext = self.queue.pop()
            if self.speaks and self.records.room(session, now):
                plaintext = bundle(plaintext)
                self._give(self.peer.endpoint, seal(session, plaintext))
                counter = session.send_counter - 1
                self.records.sent(session, counter, len(plaintext) + DATA_OVERHEAD, 1, now)
            else:
                self._give(self.peer.endpoint, seal(session, plaintext))
            self.peer.timers.data_sent(now)
            if self.speaks:
                self.act(self.records.on_traffic(session, now))
            if self.peer.is_due_for_renewal(session, now):
                self.act([HandshakeWanted()])

    def _opened(
        self, session: Session, counter: int, plaintext: memoryview, source: Endpoint, now: float
    ) -> list[Event]:
        """As the host's inbound does: the peer, the conversation, then the record or packet."""
        kind = plaintext[0] if plaintext else 0
        is_record = 0 < kind <= LAST_KIND
        control = not plaintext or (is_record and kind != BUNDLE)
        follow = kind not in (PROBE, ECHO)
        events = self.peer.opened(session, counter, source, now, keepalive=control, follow=follow)
        self.act(events)
        if not plaintext:
            pass
        elif not is_record:
            self.received.append(bytes(plaintext))
        elif not self.speaks:
            raise BadPacket("unknown record")
        elif kind == BUNDLE:
            self.received += [bytes(packet).rstrip(b"\0") for packet, _ in packets_of(plaintext)]
        else:
            if kind == PROBE:
                self._world.note(self, "is probed", source.carrier)
            self.act(self.records.received(session, plaintext, source, now))
        if control:
            self.records.opened_control(session, counter, 1)
        else:
            self.records.opened(session, counter, 1, now, plaintext)
        return []

    # tests.core.fakes.Host

    def arrived(self, message: bytes, path: Address | Connection) -> None:
        """A message from the network: drop it, or act on it."""
        if not self.alive:
            return
        try:
            events = self.take(message, path, self._world.now)
        except BadPacket as bad:
            self.drops[bad.reason] += 1
            return
        if isinstance(path, Connection) and kind_of(message) != INITIATION:
            path.authenticated = True
        self.act(events)

    def accept(self, connection: Connection) -> None:
        """Somebody has connected."""

    def closed(self, connection: Connection) -> None:
        """A connection has closed."""
        raise NotImplementedError

    def act(self, events: Iterable[Event]) -> None:
        """Do what was decided, and what that decides in turn."""
        waiting = deque(events)
        while waiting and self.alive:
            waiting.extend(self._act_on(waiting.popleft()))

    def _act_on(self, event: Event) -> list[Event]:
        now = self._world.now
        match event:
            case Transmit(endpoint, message):
                if kind_of(message) == INITIATION:
                    self._world.note(self, "asks", endpoint.carrier)
                if not self._give(endpoint, message):
                    return self._undeliverable(endpoint)
            case HandshakeWanted():
                return self._want(now)
            case Established(source, initiator):
                self.established += 1
                self._world.note(self, "established", source.carrier)
                self.act(self._established(source, now, initiator))
                if self.speaks and self.peer.keys.current is not None:
                    self.act(self.records.confirmed(self.peer.keys.current, now))
                self.pump()
            case Moved(endpoint, former):
                self._world.note(self, "moved", endpoint.carrier)
                if isinstance(former, Connection):
                    former.hang_up_later()
                self.records.moved(endpoint, now, ipv6=False)
                self._remember(endpoint)
                self.pump()
            case CloseConnection(endpoint):
                self._world.note(self, "hangs up", endpoint.carrier)
                assert isinstance(endpoint, Connection)
                endpoint.hang_up_later()
            case DropQueued():
                self.gave_up += 1
                self.queue.clear()
            case SendRecord(record, say_to, _):
                self._say(record, say_to)
            case ProbePath(candidate):
                self._world.note(self, "tries", candidate.carrier)
                return self.records.try_path(candidate, now) or self.peer.initiate(candidate, now)
            case PathVerified(path):
                self._world.note(self, "proved", path.carrier)
                return self._proved(path)
            case DrainQueue():
                self.pump()
            case Dial(candidate):
                assert isinstance(candidate, Address)
                self._world.note(self, "dials", "tcp")
                self._dial(candidate)
            case Resolve():
                if not self._resolving:
                    self._resolving = True
                    self._world.network.after(self._world.lookup_time, self._resolved)
        return []

    def _say(self, record: bytes, endpoint: Endpoint | None) -> None:
        session = self.peer.sending_session(self._world.now)
        endpoint = endpoint or self.peer.endpoint
        if session is not None and endpoint is not None:
            self._give(endpoint, seal(session, record))
            self.peer.timers.authenticated_sent(self._world.now)

    def _proved(self, path: Endpoint) -> list[Event]:
        raise AssertionError("a server tries nothing")

    def _give(self, endpoint: Endpoint, message: bytes) -> bool:
        if isinstance(endpoint, Connection):
            endpoint.send(message)
            return True
        assert isinstance(endpoint, Address)
        return self._world.network.datagram(self._name_for(endpoint), endpoint.host, message)

    def _name_for(self, endpoint: Address) -> str:
        """Where a datagram comes from."""
        return self.address

    def _want(self, now: float) -> list[Event]:
        raise NotImplementedError

    def _established(self, source: Endpoint, now: float, initiator: bool) -> list[Event]:
        raise NotImplementedError

    def _undeliverable(self, endpoint: Endpoint) -> list[Event]:
        return []

    def _remember(self, endpoint: Endpoint) -> None:
        pass

    def _dial(self, candidate: Address) -> None:
        raise AssertionError("a server does not dial")

    def _resolved(self) -> None:
        raise AssertionError("a server does not resolve")


class Client(End):
    """The end that calls."""

    def __init__(self, world: World, transport: Transport, timestamps: FakeTimestamps) -> None:
        super().__init__(world, "client", timestamps, keepalive=25.0)
        self.selector = ClientCarriers(self.peer, transport, world.rng)

    @property
    def choice_deadline(self) -> float:
        return self.selector.deadline

    def handle_deadline(self) -> None:
        now = self._world.now
        self.act(self.peer.handle_timers(now))
        self.act(self.selector.handle_timer(now))
        self.act(self.records.handle_timer(now, now))

    def closed(self, connection: Connection) -> None:
        if self.alive:
            self.act(self.selector.lost(connection, self._world.now))

    def _want(self, now: float) -> list[Event]:
        return self.selector.want(now)

    def _established(self, source: Endpoint, now: float, initiator: bool) -> list[Event]:
        return self.selector.established(source, now, initiator=initiator)

    def _undeliverable(self, endpoint: Endpoint) -> list[Event]:
        return self.selector.undeliverable(endpoint, self._world.now)

    def _proved(self, path: Endpoint) -> list[Event]:
        return self.selector.proved(path, self._world.now)

    def _dial(self, candidate: Address) -> None:
        def done(connection: Connection | None) -> None:
            if not self.alive:
                return
            now = self._world.now
            if connection is None:
                self.act(self.selector.dial_failed(now))
            else:
                self.act(self.selector.dialled(connection, now))

        self._world.network.dial(self, candidate.host, done)

    def _resolved(self) -> None:
        self._resolving = False
        if self.alive:
            self.act(self.selector.resolved([Address(each) for each in self._world.names], self._world.now))


class Server(End):
    """The end that waits; it remembers where its peer was over UDP."""

    def __init__(self, world: World, timestamps: FakeTimestamps, endpoint: Address | None) -> None:
        super().__init__(world, "server", timestamps, keepalive=0.0)
        self.peer.endpoint = endpoint
        self.selector = ServerCarriers(self.peer, world.rng)

    @property
    def choice_deadline(self) -> float:
        return self.selector.deadline

    def handle_deadline(self) -> None:
        now = self._world.now
        self.act(self.peer.handle_timers(now))
        self.act(self.selector.handle_timer(now))
        self.act(self.records.handle_timer(now, now))

    def closed(self, connection: Connection) -> None:
        if self.alive:
            self.selector.lost(connection)

    def _want(self, now: float) -> list[Event]:
        return self.selector.want(now)

    def _established(self, source: Endpoint, now: float, initiator: bool) -> list[Event]:
        return self.selector.established(source, now, initiator=initiator)

    def _name_for(self, endpoint: Address) -> str:
        return endpoint.local or self.address  # it answers from where it was asked

    def _remember(self, endpoint: Endpoint) -> None:
        if isinstance(endpoint, Address):
            self._world.remembered = endpoint


class World:
    """A client and a server on a network; nothing runs before `run`."""

    def __init__(
        self,
        transport: Transport = "auto",
        *,
        seed: int = 1,
        names: Iterable[str] = ("server",),
        running: bool = True,
        plain: bool = False,
    ) -> None:
        self.plain = plain
        self.rng = Random(seed)
        self.network = Network(self.rng)
        self.names = list(names)
        self.lookup_time = 0.005
        self.transport = transport
        self.remembered: Address | None = None
        self.notes: list[tuple[float, str, str, Carrier]] = []
        """When, who, what, on which carrier."""
        self._timestamps = FakeTimestamps(), FakeTimestamps()
        self._packets = 0
        self.server = self._new_server()
        if not running:
            self.stop_server()
        self.client = self._new_client()

    @property
    def now(self) -> float:
        return self.network.now

    def note(self, end: End, what: str, carrier: Carrier) -> None:
        """Remember what was done, for the test to look at."""
        self.notes.append((self.now, end.name, what, carrier))

    def times(self, who: str, what: str, carrier: Carrier, since: float = 0.0) -> list[float]:
        """When somebody did something."""
        return [time for time, *rest in self.notes if rest == [who, what, carrier] and time >= since]

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        at_one_instant = 0
        while True:
            ends = [end for end in (self.client, self.server) if end.alive]
            end = min(ends, key=lambda each: each.deadline)
            upcoming = min(end.deadline, self.network.next_time)
            if upcoming > until:
                break
            at_one_instant = at_one_instant + 1 if upcoming <= self.now else 0
            assert at_one_instant < 1000, "the loop would spin"
            self.network.now = max(self.now, upcoming)
            if self.network.next_time <= self.now:
                self.network.do_next()
            else:
                end.handle_deadline()
        self.network.now = until

    def until_through(self, limit: float) -> float:
        """Send a packet each way every half second until one that was sent from now on has arrived each way.

        Returns the seconds that took; fails if they are more than `limit`.
        """
        start = self.now
        marks = len(self.client.received), len(self.server.received)
        tag = b"after %r " % start
        while True:
            self._packets += 1
            for end in (self.client, self.server):
                if end.alive:
                    end.send(tag + b"%d" % self._packets)
            self.run(0.5)
            fresh = [
                any(packet.startswith(tag) for packet in end.received[mark:])
                for end, mark in zip((self.client, self.server), marks, strict=True)
            ]
            if all(fresh):
                return self.now - start
            assert self.now - start < limit, f"nothing through after {self.now - start} s"

    def talk(self, seconds: float, every: float = 1.0) -> int:
        """Let both ends send for a while; returns how many packets did not arrive (look again after some time)."""
        expected = []
        for _ in range(round(seconds / every)):
            self._packets += 1
            for end, other in ((self.client, self.server), (self.server, self.client)):
                packet = b"%s %d" % (end.name.encode(), self._packets)
                expected.append((other, packet))
                end.send(packet)
            self.run(every)
        self.run(every)
        return sum(packet not in other.received for other, packet in expected)

    def stop_server(self) -> None:
        """The server's program ends."""
        self.server.alive = False
        self.network.cut(self.server)

    def start_server(self) -> None:
        """It starts, with what it remembers."""
        self.server = self._new_server()
        if self.server.peer.endpoint is not None:
            self.server.records.moved(self.server.peer.endpoint, self.now, ipv6=False)
        self.server.act(self.server.selector.start(self.now))

    def restart_server(self) -> None:
        """Both."""
        self.stop_server()
        self.start_server()

    def restart_client(self) -> None:
        """The client's program ends, and starts."""
        self.client.alive = False
        self.network.cut(self.client)
        self.client = self._new_client()
        self.start()

    def start(self) -> None:
        """The client begins."""
        self.client.act(self.client.selector.start(self.now))

    def move_client(self, address: str) -> None:
        """The client's datagrams come from elsewhere from now on."""
        del self.network.hosts[self.client.address]
        self.client.address = address
        self.network.hosts[address] = self.client

    def _new_server(self) -> Server:
        server = Server(self, self._timestamps[1], self.remembered)
        for name in {"server", "server-v4", "server-v6"}:
            self.network.hosts[name] = server
        return server

    def _new_client(self) -> Client:
        client = Client(self, self.transport, self._timestamps[0])
        self.network.hosts["client"] = client
        return client
