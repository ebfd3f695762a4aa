"""Three ends without root: a hub and its peers "laptop" and "desk", whose services are on real loopback sockets.

    laptop  127.0.0.2 ======== hub  127.0.0.1 ======== 127.0.0.3  desk

The requests pass through real links. The connections of visits do not: the kernel carries them on the loopback device.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_network

from tests.datapath.ends import ALICE, BOB, CAROL, End, Wire
from tests.machine import HandLoop
from vpntun.config.forwards import ServiceName
from vpntun.config.peer import PeerSettings
from vpntun.config.services import Service, ServiceSettings
from vpntun.config.tunnel import Tunnel
from vpntun.crypto.keys import KeyPair
from vpntun.errors import VpntunError
from vpntun.forwards.connections import Connections
from vpntun.forwards.ways import Way, Ways
from vpntun.link.link import Link
from vpntun.runtime.resolver import OnFound
from vpntun.services.neighbours import Neighbours
from vpntun.services.services import Services
from vpntun.types import Place
from vpntun.wire.inside.request import SERVICES

KEY = b"k" * 32
QUIET_ROUNDS, MOST_ROUNDS = 3, 300
HUB, LAPTOP, DESK = "127.0.0.1", "127.0.0.2", "127.0.0.3"


class LoopbackSide:
    """A side whose sockets are bound to one loopback address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.error: OSError | None = None

    def open(self, family: int, kind: int) -> socket.socket:
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        if family == socket.AF_INET:
            made.bind((self.address, 0))
        return made

    def listen(self, kind: int, host: str, port: int) -> list[socket.socket]:
        if self.error is not None:
            raise self.error
        made = socket.create_server((self.address, port))
        made.setblocking(False)
        return [made]

    def look_up(self, host: str, port: int, answer: OnFound) -> None:
        raise AssertionError("addresses need no look-up")


class Machine:
    """One end with its services. `peers`: its peers' keys, with their names and allowed IPs."""

    def __init__(self, identity: KeyPair, address: str, loop: HandLoop, peers: Sequence[PeerSettings]) -> None:
        self.end = End(identity, loop)
        self.loop = loop
        for peer in peers:
            self.end.know(peer.public, map(str, peer.allowed))
        self.tunnel = Tunnel("tun3", identity, tuple(peers), None, None)
        self.side, outside = LoopbackSide(address), LoopbackSide("127.0.0.1")
        ways: Ways = {"here": Way(outside, self.side), "peer": Way(self.side, outside)}
        self.neighbours = Neighbours(
            loop, lambda: self.tunnel, self.link_of, self.end.routes.find, lambda version: False
        )
        self.services = Services(loop, self.neighbours, ways, Connections(loop))
        self.end.engine.answers.add(SERVICES, self.services.answer)
        self.connected: list[socket.socket] = []
        self.failures: list[str] = []

    def link_of(self, public: bytes) -> Link:
        for link in self.end.links.values():
            if link.peer.public == public:
                return link
        raise VpntunError("no link")

    def set(self, *offered: Service, **keys: bytes) -> None:
        """Offer these services; use those of others, as in ssh_desk=KEY, with these keys."""
        named = {ServiceName(*name.split("_")): key for name, key in keys.items()}
        object.__setattr__(self.tunnel, "services", ServiceSettings(offered, named))
        self.services.follow_settings()

    def visit(self, service: str, peer: str) -> None:
        """Begin to connect to a service."""
        name = ServiceName(service, peer)
        self.services.visits.visit(name, self.connected.append, lambda error: self.failures.append(str(error.strerror)))

    def close(self) -> None:
        self.services.close()
        for each in self.connected:
            each.close()
        self.end.close()


class Town:
    """The three machines. The hub relays unless `hub.tunnel` is changed."""

    def __init__(self, loop: HandLoop) -> None:
        self.loop = loop
        to_hub = [PeerSettings(ALICE.public, (ip_network("127.0.0.0/8"),), host="192.0.2.1", port=1)]
        others = [
            PeerSettings(BOB.public, (ip_network(LAPTOP),), name="laptop"),
            PeerSettings(CAROL.public, (ip_network(DESK),), name="desk"),
        ]
        self.hub = Machine(ALICE, HUB, loop, others)
        self.laptop, self.desk = Machine(BOB, LAPTOP, loop, to_hub), Machine(CAROL, DESK, loop, to_hub)
        self.machines = (self.hub, self.laptop, self.desk)
        self.relay(True)
        self.wires = [Wire(each.end, self.hub.end) for each in (self.laptop, self.desk)]
        for wire in self.wires:
            wire.shake_hands()

    def relay(self, does: bool) -> None:
        object.__setattr__(self.hub.tunnel, "relay", does)

    def run(self, seconds: float = 0.0) -> None:
        """Carry messages for some seconds of the clock, in which requests are repeated."""
        end = self.loop.clock() + seconds
        while True:
            self._carry()
            if self.loop.clock() >= end:
                return
            self.loop.pass_time(0.5)
            for machine in self.machines:
                for link in list(machine.end.links.values()):
                    link.handle_deadline()

    def _carry(self) -> None:
        """Carry messages and serve sockets until nothing has happened a few times."""
        quiet = 0
        for _ in range(MOST_ROUNDS):
            self.loop.settle(0.002)
            carried = sum(wire.run() for wire in self.wires)
            quiet = quiet + 1 if self.loop.is_idle and not carried else 0
            if quiet == QUIET_ROUNDS:
                return
        raise AssertionError("something happens all the time")

    def disconnect(self, machine: Machine) -> None:
        """Lose all that is sent to a machine from now on."""
        for wire in list(self.wires):
            if wire.left is machine.end:
                self.wires.remove(wire)

    def close(self) -> None:
        for machine in self.machines:
            machine.close()


@contextmanager
def program() -> Iterator[tuple[socket.socket, Place]]:
    """A program that listens on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        yield listener, listener.getsockname()[:2]
