"""Simulation of a client and a server that use the whole core, on the fake network, in simulated time.

Time jumps from deadline to deadline. Both ends use the program's executor and implement its Actions
(vpntun.core.selection.executor), as links do in the program. They know each other to be vpntun and exchange records. In
a `plain` world the server is a plain WireGuard, and the client does not know that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from random import Random

from tests.core.fakes import Address, Connection, FakeTimestamps, Network
from tests.core.pair import CLIENT_KEYS, SERVER_KEYS, Side, bundle, seal
from vpntun.core.endpoint import Endpoint
from vpntun.core.events import Event, HandshakeWanted, NothingArrives, PathVerified, ProbePath, SendRecord
from vpntun.core.queue import PacketQueue
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.selection.client import ClientCarriers
from vpntun.core.selection.executor import CarrierSelector, Executor
from vpntun.core.selection.server import ServerCarriers
from vpntun.crypto.session import Session
from vpntun.errors import BadPacket, OldTimestamp
from vpntun.types import CarrierName, Transport
from vpntun.wire.message import DATA_OVERHEAD, INITIATION, kind_of
from vpntun.wire.record import BUNDLE, ECHO, LAST_KIND, PROBE, TAKES_BURSTS, packets_of


class NotedExecutor(Executor):
    """The program's executor, which also makes the world note reasons to search, and paths probed and verified."""

    def __init__(self, end: End, selector: CarrierSelector) -> None:
        super().__init__(end.peer, selector, end.records, end)
        self._end = end

    def _act_on(self, event: Event, now: float) -> list[Event]:
        match event:
            case HandshakeWanted() | NothingArrives():
                self._end.note("wants", self._end.carrier or "udp")
            case ProbePath(endpoint):
                self._end.note("tries", endpoint.carrier)
            case PathVerified(endpoint):
                self._end.note("proved", endpoint.carrier)
        return super()._act_on(event, now)


class End(Side):
    """A machine in the world: a `Side` with a carrier selector, a queue, and an executor, whose actions it performs."""

    executor: Executor

    def __init__(self, world: World, name: str, timestamps: FakeTimestamps, keepalive: float) -> None:
        own, other = (CLIENT_KEYS, SERVER_KEYS) if name == "client" else (SERVER_KEYS, CLIENT_KEYS)
        calls = name == "client"
        super().__init__(
            own, other.public, world.rng, timestamps=timestamps, keepalive=keepalive, chooses_carrier=calls
        )
        self.name = name
        self.address = name
        self.speaks = not (world.plain and name == "server")
        self.records = RecordProtocol(
            TAKES_BURSTS, 1420, world.now, peer_is_vpntun=not world.plain, asks_when_quiet=calls
        )
        self.queue = PacketQueue()
        self.drops: Counter[str] = Counter()
        self.gave_up = 0
        self.sessions = 0
        self._world = world
        self._resolving = False
        self.alive = True

    @property
    def deadline(self) -> float:
        """When `handle_deadline` is due."""
        return self.executor.deadline

    @property
    def carrier(self) -> CarrierName | None:
        """The carrier in use."""
        return self.peer.endpoint.carrier if self.peer.endpoint is not None else None

    def note(self, what: str, carrier: CarrierName) -> None:
        """Record what was done, for assertions of the test."""
        self._world.note(self, what, carrier)

    def handle_deadline(self) -> None:
        """Handle the timers that are due."""
        self.executor.handle_timers(self._world.now, self._world.now)

    def send(self, packet: bytes) -> None:
        """Take a packet from the device."""
        self.queue.push(packet)
        if self.peer.sending_session(self._world.now) is None:
            self.act([HandshakeWanted()])
        self.pump()

    def pump(self) -> None:
        """Send the queued packets if possible: each in its own record, or without one to a plain WireGuard."""
        now = self._world.now
        while self.queue and self.peer.endpoint is not None:
            session = self.peer.sending_session(now)
            if session is None or self.peer.endpoint.clogged() or self.records.awaits_hello(session, now):
                return
            plaintext = self.queue.pop_entry()[0]
            if now >= self.records.refresh_due:
                self.records.refresh(session, now)
            if self.speaks and self.records.room:
                plaintext = bundle(plaintext)
                self._give(self.peer.endpoint, seal(session, plaintext))
                counter = session.send_counter - 1
                self.records.sent(session, counter, len(plaintext) + DATA_OVERHEAD, 1, now)
            else:
                self._give(self.peer.endpoint, seal(session, plaintext))
            self.peer.timers.data_sent(now)
            if self.speaks:
                self.records.note_packets_sent(now)
                self.act(self.records.on_traffic(session, now))
            if self.peer.is_due_for_renewal(session, now):
                self.act([HandshakeWanted()])

    def _opened(
        self, session: Session, counter: int, plaintext: memoryview, source: Endpoint, now: float
    ) -> list[Event]:
        """Process an opened message in the order of the program: the peer, then the packet or record."""
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
                self.note("is probed", source.carrier)
            self.act(self.records.received(session, plaintext, source, now))
        if control:
            self.records.opened_control(session, counter, 1)
        else:
            self.records.opened(session, counter, 1, now, plaintext)
        return []

    # tests.core.fakes.Host

    def arrived(self, message: bytes, path: Address | Connection) -> None:
        """Take a message from the network: act on it, or count it as dropped."""
        if not self.alive:
            return
        try:
            events = self.take(message, path, self._world.now)
        except BadPacket as bad:
            self.drops[bad.reason] += 1
            if isinstance(bad, OldTimestamp):
                self.act(self.peer.ask_in_return(path, self._world.now))
            return
        if isinstance(path, Connection) and kind_of(message) != INITIATION:
            path.authenticated = True
        self.act(events)

    def accept(self, connection: Connection) -> None:
        """A connection has been accepted."""

    def closed(self, connection: Connection) -> None:
        """A connection has closed."""
        if self.alive:
            self.act(self.executor.selector.lost(connection, self._world.now))

    def act(self, events: Iterable[Event]) -> None:
        """Carry out events, and those that follow from them."""
        if self.alive:
            self.executor.act(events, self._world.now)

    # vpntun.core.selection.executor.Actions

    def transmit(self, endpoint: Endpoint, message: bytes) -> bool:
        if kind_of(message) == INITIATION:
            self.note("asks", endpoint.carrier)
        return self._give(endpoint, message)

    def send_record_alone(self, wanted: SendRecord) -> list[Event]:
        session = self.peer.sending_session(self._world.now)
        endpoint = wanted.endpoint or self.peer.endpoint
        if self.speaks and session is not None and endpoint is not None:
            self._give(endpoint, seal(session, wanted.record))
            self.peer.timers.authenticated_sent(self._world.now)
        return []

    def established(self, source: Endpoint, *, initiator: bool) -> None:
        self.sessions += 1
        self.note("established", source.carrier)

    def moved(self, endpoint: Endpoint, former: Endpoint | None) -> None:
        self.note("moved", endpoint.carrier)
        if former is not None:
            former.hang_up_later()
        self._remember(endpoint)

    def nothing_arrives(self, endpoint: Endpoint) -> None:
        self.note("misses reports", endpoint.carrier)

    def close_connection(self, endpoint: Endpoint) -> None:
        self.note("hangs up", endpoint.carrier)
        endpoint.hang_up_later()

    def drain_queue(self) -> None:
        self.pump()

    def drop_queued(self) -> None:
        self.gave_up += 1
        self.queue.clear()

    def dial(self, carrier: CarrierName, candidate: Endpoint) -> None:
        raise AssertionError("a server does not dial")

    def give_up_dials(self) -> None:
        raise AssertionError("a server has nothing to give up")

    def resolve(self) -> None:
        raise AssertionError("a server does not resolve")

    def renew_port(self) -> None:
        raise AssertionError("a server keeps its port")

    def _give(self, endpoint: Endpoint, message: bytes) -> bool:
        if isinstance(endpoint, Connection):
            endpoint.carry(message)
            return True
        assert isinstance(endpoint, Address)
        return self._world.network.datagram(self._name_for(endpoint), endpoint.host, message)

    def _name_for(self, endpoint: Address) -> str:
        """The source address of a datagram to this endpoint."""
        return self.address

    def _remember(self, endpoint: Endpoint) -> None:
        pass


class Client(End):
    """The end that calls."""

    def __init__(self, world: World, transport: Transport, timestamps: FakeTimestamps) -> None:
        super().__init__(world, "client", timestamps, keepalive=25.0)
        self.ports = 1
        self._dials_given_up = 0
        self.selector = ClientCarriers(self.peer, transport, world.rng)
        self.executor = NotedExecutor(self, self.selector)

    def dial(self, carrier: CarrierName, candidate: Endpoint) -> None:
        assert isinstance(candidate, Address)
        self.note("dials", carrier)
        given_up = self._dials_given_up

        def done(connection: Connection | None) -> None:
            if given_up != self._dials_given_up:
                if connection is not None:
                    connection.close()
            elif connection is None:
                self.act(self.selector.dial_failed(carrier, self._world.now) if self.alive else [])
            elif self.alive:
                self.act(self.selector.dialled(connection, self._world.now))

        self._world.network.dial(self, candidate.host, done)

    def give_up_dials(self) -> None:
        self._dials_given_up += 1

    def renew_port(self) -> None:
        self.ports += 1
        self.note("renews port", "udp")
        self.address = f"client's port {self.ports}"
        self._world.network.hosts[self.address] = self
        self.selector.renewed(self.selector.candidates, self._world.now)

    def _name_for(self, endpoint: Address) -> str:
        """An endpoint is called from the port that it has answered to; the others from the newest one."""
        return endpoint.local if self._world.network.hosts.get(endpoint.local) is self else self.address

    def resolve(self) -> None:
        if not self._resolving:
            self._resolving = True
            self._world.network.after(self._world.lookup_time, self._resolved)

    def _resolved(self) -> None:
        self._resolving = False
        if self.alive:
            self.act(self.selector.resolved([Address(each) for each in self._world.names], self._world.now))


class Server(End):
    """The end that waits for calls. It remembers its peer's last UDP endpoint over a restart."""

    def __init__(self, world: World, timestamps: FakeTimestamps, endpoint: Address | None) -> None:
        super().__init__(world, "server", timestamps, keepalive=0.0)
        self.peer.endpoint = endpoint
        self.selector = ServerCarriers(self.peer, world.rng)
        self.executor = NotedExecutor(self, self.selector)

    def _name_for(self, endpoint: Address) -> str:
        return endpoint.local or self.address  # it answers from the address that was called

    def _remember(self, endpoint: Endpoint) -> None:
        if isinstance(endpoint, Address):
            self._world.remembered = endpoint


class World:
    """A client and a server on a network. Time passes only in `run` and the methods that call it."""

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
        self.notes: list[tuple[float, str, str, CarrierName]] = []
        """Each entry: the time, the end, what it did, and on which carrier."""
        self._timestamps = FakeTimestamps(), FakeTimestamps()
        self._packets = 0
        self.server = self._new_server()
        if not running:
            self.stop_server()
        self.client = self._new_client()

    @property
    def now(self) -> float:
        return self.network.now

    def note(self, end: End, what: str, carrier: CarrierName) -> None:
        """Record what was done, for assertions of the test."""
        self.notes.append((self.now, end.name, what, carrier))

    def times(self, who: str, what: str, carrier: CarrierName, since: float = 0.0) -> list[float]:
        """The times at which the end `who` did something on this carrier."""
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
        """Send a packet in each direction every half second until a new one has arrived in each direction.

        Return the seconds that this took; fail after `limit` seconds.
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
        """Let both ends send for a while, and return the number of packets that have not arrived."""
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
        """End the server's program."""
        self.server.alive = False
        self.network.cut(self.server)

    def start_server(self) -> None:
        """Start the server's program, with the endpoint that it remembers."""
        self.server = self._new_server()
        if self.server.peer.endpoint is not None:
            self.server.records.moved(self.server.peer.endpoint, self.now, ipv6=False)
        self.server.act(self.server.selector.start(self.now))

    def restart_server(self) -> None:
        """End the server's program and start it again."""
        self.stop_server()
        self.start_server()

    def pause(self, end: End, seconds: float) -> None:
        """Stop an end's program and let it go on later: meanwhile it does nothing, and its datagrams are lost."""
        end.alive = False
        self.run(seconds)
        end.alive = True
        end.executor.woken(self.now)
        for connection in self.network.connections:
            if connection.owner is end and not connection.open:
                end.closed(connection)

    def restart_client(self) -> None:
        """End the client's program and start it again."""
        self.client.alive = False
        self.network.cut(self.client)
        self.client = self._new_client()
        self.start()

    def start(self) -> None:
        """Start the client's program."""
        self.client.act(self.client.selector.start(self.now))

    def move_client(self, address: str) -> None:
        """Change the source address of the client's datagrams."""
        self.network.hosts = {name: host for name, host in self.network.hosts.items() if host is not self.client}
        self.client.address = address
        self.network.hosts[address] = self.client

    def _new_server(self) -> Server:
        server = Server(self, self._timestamps[1], self.remembered)
        for name in {"server", "server-v4", "server-v6", *self.names}:
            self.network.hosts[name] = server
        return server

    def _new_client(self) -> Client:
        client = Client(self, self.transport, self._timestamps[0])
        self.network.hosts["client"] = client
        return client


def connected(transport: Transport = "auto", *blocked: str, plain: bool = False) -> World:
    """A simulation in which both ends have just exchanged packets, with these carriers blocked."""
    world = World(transport, plain=plain)
    world.network.block(*blocked)  # type: ignore[arg-type]
    world.start()
    world.until_through(5)
    return world
