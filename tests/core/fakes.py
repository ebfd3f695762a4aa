"""Fakes around the core: timestamps, endpoints, and a simulated network with its own clock.

The network carries datagrams and connections between hosts by name. It loses, delays, reorders and duplicates
datagrams, blocks either carrier, and refuses or ignores dials. A connection keeps its order. While its path is blocked
it holds the bytes sent (it is then clogged), and it breaks when that lasts 15 s. All randomness comes from the one
`Random` given.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from vpntun.core.endpoint import Flow, Outcome, Reachable
from vpntun.types import CarrierName, SocketAddress
from vpntun.wire.message import Buffer

SECONDS_TO_DIAL = 10.0
SECONDS_CLOGGED = 15.0
SECONDS_TO_HANG_UP = 2.0
SECONDS_TO_AUTHENTICATE = 10.0


class FakeTimestamps:
    """Strictly increasing timestamps that outlive the end that uses them, as the state file does."""

    def __init__(self, first: int = 1) -> None:
        self._numbers = itertools.count(first)

    def next(self) -> bytes:
        return next(self._numbers).to_bytes(12, "big")


class NamedEndpoint:
    """The parts of an endpoint that nobody asks for here: the simulator sends by name."""

    carrier: CarrierName = "udp"
    address: SocketAddress = ("192.0.2.1", 55555)
    origin = bytes((192, 0, 2, 1, 0xD9, 0x03))
    via: Hashable = "a local port"
    is_open = True
    where = "192.0.2.1:55555"
    ipv6 = False
    flow = Flow(17, b"", 55555, bytes((192, 0, 2, 1)), 55555)

    @property
    def is_stream(self) -> bool:
        return self.carrier != "udp"

    def send_from(self, source: bytes) -> None:
        pass

    def ready(self) -> bool:
        return True

    def send(self, buffers: list[memoryview], segment: int = 0, *, dont_fragment: bool = True, tos: int = 0) -> Outcome:
        raise AssertionError("the simulator sends whole messages")

    def send_frame(self, frame: memoryview, *, dont_fragment: bool = True, tos: int = 0) -> Outcome:
        raise AssertionError("the simulator sends whole messages")

    def send_first(self, message: Buffer) -> Outcome:
        raise AssertionError("the simulator sends whole messages")

    def expect(self, peer: Reachable) -> None:
        pass

    def belongs_to(self, peer: Reachable) -> None:
        pass

    def hang_up_later(self) -> None:
        pass


@dataclass(unsafe_hash=True)
class FakeEndpoint(NamedEndpoint):
    """An endpoint that is identified by its name."""

    name: str
    carrier: CarrierName = "udp"
    unsent: bool = field(default=False, compare=False)

    def clogged(self) -> bool:
        return self.unsent


@dataclass(frozen=True)
class Address(NamedEndpoint):
    """A UDP endpoint: the other host's name, and the own name that the other host uses (empty: the usual one)."""

    host: str
    local: str = field(default="", compare=False)

    def clogged(self) -> bool:
        return False


class Host(Protocol):
    """The methods that the network needs of a host."""

    def arrived(self, message: bytes, path: Address | Connection) -> None: ...

    def accept(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...


@dataclass
class Conditions:
    """The present behaviour of a carrier: times in seconds, the rest as shares of 1 (datagrams only)."""

    latency: float = 0.01
    jitter: float = 0.0
    loss: float = 0.0
    duplicates: float = 0.0
    blocked: bool = False
    refused: bool = False


class Connection(NamedEndpoint):
    """One end of a TCP connection, which is also the endpoint of that end."""

    carrier: CarrierName = "tcp"

    def __init__(self, network: Network, owner: Host) -> None:
        self.open = True
        self.authenticated = False
        self.swallows = False
        """Whether a middlebox acknowledges what is sent here, and forwards nothing."""
        self.other: Connection = self
        self._network = network
        self.owner = owner
        self._stalled: deque[bytes] = deque()
        self._last_arrival = 0.0

    def clogged(self) -> bool:
        return bool(self._stalled) or not self.open

    def carry(self, message: bytes) -> None:
        """Deliver in order, or hold while the path is blocked."""
        if not self.open or self.swallows:
            return
        if self._network.tcp.blocked or self._stalled:
            self._stalled.append(message)
            self._network.after(SECONDS_CLOGGED, lambda: self._break_if_still_first(message))
            return
        self._last_arrival = max(self._last_arrival, self._network.now + self._network.tcp.latency)
        self._network.after(self._last_arrival - self._network.now, lambda: self.other.arrived(message))

    def arrived(self, message: bytes) -> None:
        """Take a message from the other end."""
        if self.open:
            self.owner.arrived(message, self)

    def path_opened(self) -> None:
        """Send the messages that were held, and the closing if it was held too."""
        if not self.open:
            self._network.after(self._network.tcp.latency, self.other.close)
            return
        held, self._stalled = self._stalled, deque()
        for message in held:
            self.carry(message)

    def hang_up_later(self) -> None:
        """Close this end in 2 s."""
        self._network.after(SECONDS_TO_HANG_UP, self.close)

    def close(self) -> None:
        """Close this end now; the other end notices if the path is open."""
        if self.open:
            self.open = False
            self.owner.closed(self)
            if not self._network.tcp.blocked:
                self._network.after(self._network.tcp.latency, self.other.close)

    def close_if_stranger(self) -> None:
        """Close this end if no message has been authenticated in time."""
        if not self.authenticated:
            self.close()

    def _break_if_still_first(self, message: bytes) -> None:
        if self._stalled and self._stalled[0] is message:
            self.close()


class Network:
    """The simulated time, and the messages under way."""

    def __init__(self, rng: Random, now: float = 1000.0) -> None:
        self.now = now
        self.udp = Conditions()
        self.tcp = Conditions()
        self.hosts: dict[str, Host] = {}
        self.swallowed: set[str] = set()
        """Hosts that receive no datagrams and answer no dials."""
        self.deaf: set[str] = set()
        """Hosts that receive no datagrams, though those that they send arrive."""
        self.mute: set[str] = set()
        """Hosts from which no datagrams arrive, though they receive."""
        self.without_way: set[str] = set()
        """Hosts to which the sender's own kernel refuses to send."""
        self._rng = rng
        self.connections: list[Connection] = []
        """Both ends of every connection so far."""
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def after(self, delay: float, action: Callable[[], None]) -> None:
        """Schedule an action."""
        heapq.heappush(self._agenda, (self.now + delay, next(self._numbers), action))

    @property
    def next_time(self) -> float:
        """The time of the next action."""
        return self._agenda[0][0] if self._agenda else float("inf")

    def do_next(self) -> None:
        """Perform the next action; its time has come."""
        heapq.heappop(self._agenda)[2]()

    def block(self, *carriers: CarrierName) -> None:
        """Block a carrier; messages already under way still arrive."""
        for carrier in carriers:
            self._conditions(carrier).blocked = True

    def unblock(self, *carriers: CarrierName) -> None:
        """Unblock a carrier."""
        for carrier in carriers:
            self._conditions(carrier).blocked = False
        if "tcp" in carriers:
            for connection in self.connections:
                connection.path_opened()

    def datagram(self, origin: str, target: str, message: bytes) -> bool:
        """Send a datagram; False if the sending host has no route."""
        if target in self.without_way:
            return False
        copies = 1 + (self._rng.random() < self.udp.duplicates)
        for _ in range(copies):
            lost = (
                self.udp.blocked
                or target in self.deaf
                or origin in self.mute
                or bool({origin, target} & self.swallowed)
            )
            if lost or self._rng.random() < self.udp.loss:
                continue
            self.after(
                self.udp.latency + self._rng.uniform(0, self.udp.jitter),
                lambda: self._arrive(origin, target, message),
            )
        return True

    def dial(self, caller: Host, target: str, done: Callable[[Connection | None], None]) -> None:
        """Open a connection; `done` is called with the result."""
        if self.tcp.blocked or target in self.swallowed:
            self.after(SECONDS_TO_DIAL, lambda: done(None))
        elif self.tcp.refused or target in self.without_way or target not in self.hosts:
            self.after(2 * self.tcp.latency, lambda: done(None))
        else:
            self.after(2 * self.tcp.latency, lambda: self._connect(caller, target, done))

    def cut(self, host: Host) -> None:
        """End a host's program: its connections close, and its names lead nowhere."""
        for connection in self.connections:
            if connection.owner is host:
                connection.close()
        self.hosts = {name: each for name, each in self.hosts.items() if each is not host}

    def _connect(self, caller: Host, target: str, done: Callable[[Connection | None], None]) -> None:
        called = self.hosts.get(target)
        if called is None:
            done(None)
            return
        near, far = Connection(self, caller), Connection(self, called)
        near.other, far.other = far, near
        self.connections += [near, far]
        self.after(SECONDS_TO_AUTHENTICATE, far.close_if_stranger)
        called.accept(far)
        done(near)

    def _arrive(self, origin: str, target: str, message: bytes) -> None:
        host = self.hosts.get(target)
        if host is not None:
            host.arrived(message, Address(origin, local=target))

    def _conditions(self, carrier: CarrierName) -> Conditions:
        return self.udp if carrier == "udp" else self.tcp
