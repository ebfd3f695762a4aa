"""A server with many peers, and the many: real links all of them, at two real UDP sockets on the loopback.

The server is wired as the daemon wires it, but for its device. The crowd is one object with one socket: each member
has an identity, a link and an address of its own, 127.16.0.0 and upwards, that its datagrams come from. In the tunnel
member 17 is 10.0.17.1, and everything of 10.0.17.0/24; the server is 10.255.0.1.
"""

from __future__ import annotations

import gc
import random
import resource
import socket
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.datapath.ends import EndDevice, RecordedTcp, Stamps, WireGuardsRecordProtocol, ipv4
from vpntun.carriers.arrivals import IP_PKTINFO
from vpntun.carriers.base import DatagramSource, Stream
from vpntun.carriers.udp import UdpCarrier
from vpntun.carriers.udp_socket import UdpEndpoint
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.core.endpoint import Endpoint, Flow, Reachable
from vpntun.core.events import Event
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.selection.server import ServerCarriers
from vpntun.core.wireguard.node import Node
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.keys import KeyPair, clamp, format_key
from vpntun.crypto.symmetric import blake2s
from vpntun.datapath.bundler import Bundler
from vpntun.datapath.engine import Engine, takes_of
from vpntun.datapath.inbound import Inbound
from vpntun.datapath.link import Link
from vpntun.datapath.links import Links
from vpntun.datapath.plain import PlainSender
from vpntun.datapath.seal_buffer import SealBuffer
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Lookups
from vpntun.runtime.schedule import Schedule
from vpntun.wire.message import INITIATION, Buffer, kind_of
from vpntun.wire.record import packets_of

SERVER = "10.255.0.1"
KEEPALIVE = 25.0
FIRST_ADDRESS = IPv4Address("127.16.0.0")


def key_of(number: int) -> KeyPair:
    """A member's identity; -1: the server's."""
    return KeyPair.of(clamp(blake2s(b"%d of many" % number)))


def network_of(number: int) -> IPv4Network:
    """What a member may send from."""
    return IPv4Network((0x0A000000 + (number << 8), 24))


def settings_of(number: int, *more: IPv4Network) -> PeerSettings:
    """A member as the server has it configured."""
    return PeerSettings(key_of(number).public, (network_of(number), *more))


def networks_behind(number: int, each: int) -> list[IPv4Network]:
    """So many more that a member may send from, of 256 addresses, nobody else's."""
    return [IPv4Network((0x14000000 + (number * each + index << 8), 24)) for index in range(each)]


def write_file(folder: Path, count: int, each: int) -> Path:
    """The server's configuration file with `count` members, who have so many more networks each."""
    path = folder / "many0.conf"
    with path.open("w") as file:
        path.chmod(0o600)
        file.write(f"[Interface]\nPrivateKey = {format_key(key_of(-1).private)}\nListenPort = 55555\n")
        for number in range(count):
            allowed = [network_of(number), *networks_behind(number, each)]
            file.write(f"[Peer]\nPublicKey = {format_key(key_of(number).public)}\n")
            file.write(f"AllowedIPs = {', '.join(map(str, allowed))}\n")
    return path


def memory() -> float:
    """Kilobytes that this process has now."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024


class Server:
    """A server of the real links. `state`: the folder of what it remembers. `tcp`: it waits over TCP as well.

    `number`: whose identity it has, -1 for the server's own. `inside`: the addresses whose route leads to its device.
    """

    def __init__(
        self,
        loop: Loop,
        port: int,
        peers: Iterable[PeerSettings],
        state: Path,
        *,
        tcp: bool = False,
        number: int = -1,
    ) -> None:
        self.loop = loop
        self.port = port
        self.peers = tuple(peers)
        self.device = EndDevice()
        self.inside: set[bytes] = set()
        self.drops: Counter[str] = Counter()
        self.udp = UdpCarrier(loop, port, answers_from_where_asked=True, versions=[socket.AF_INET])
        self.tcp = RecordedTcp(loop, port if tcp else None, versions=[socket.AF_INET])
        self.lookups = Lookups(loop)
        self.engine = Engine(
            key_of(number),
            self.device,
            {"udp": self.udp, "tcp": self.tcp},
            loop,
            leads_inside=self._leads_inside,
            drops=self.drops,
            observer=self,
        )
        tunnel = Tunnel("many0", key_of(number), self.peers, port, "auto" if tcp else "udp")
        self.links = Links(tunnel, self.engine, self.lookups, state)
        self.engine.start()

    def link_moved(self, link: Link) -> None:
        """As the daemon does."""
        self.links.remember(link)

    def link_changed(self, link: Link, *, up: bool) -> None:
        """Nobody asks."""

    @property
    def schedule(self) -> Schedule:
        """The links' deadlines."""
        return self.engine.schedule

    def start(self) -> None:
        """Have the peers."""
        self.links.change(self.peers)

    def link(self, number: int) -> Link:
        """A member's."""
        return self.links.of(key_of(number).public)

    def connected(self) -> int:
        """How many peers have a session."""
        return sum(link.peer.sending_session(self.loop.now) is not None for link in self.engine.links.values())

    def all_drops(self) -> Counter[str]:
        """What was dropped, by reason."""
        return self.drops + self.links.drops()

    def say(self, numbers: Iterable[int], payload: bytes) -> None:
        """The kernel sends each of these members a packet."""
        for number in numbers:
            self.device.from_the_kernel(ipv4(SERVER, str(network_of(number)[1]), payload))

    def close(self) -> None:
        """End."""
        self.links.change([])
        self.links.close()
        self.lookups.close()
        self.udp.close()
        self.tcp.close()
        self.loop.forget(self.device.fileno())
        self.device.close()

    def _leads_inside(self, flow: Flow) -> bool:
        return flow.destination in self.inside


class Member(Link):
    """One of the crowd: it asks the server for sessions and keeps its path open. `got`: the packets that came."""

    def __init__(self, crowd: Crowd, number: int, *, keepalive: float, plain: bool) -> None:
        self.number = number
        self.identity = key_of(number)
        self.got = 0
        rng = random.Random(number)
        server = key_of(-1).public
        peer = Peer(self.identity, server, bytes(32), crowd.node.indices, crowd.stamps, rng, keepalive=keepalive)
        self.address = address = (FIRST_ADDRESS + number).packed
        self.way = crowd.udp.sockets[socket.AF_INET].endpoint(
            ("127.0.0.1", crowd.port), ((socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + address + bytes(4)),)
        )
        peer.endpoint = self.way
        kind = WireGuardsRecordProtocol if plain else RecordProtocol
        records = kind(takes_of(crowd.device), 1420, crowd.loop.now, peer_is_vpntun=False)
        super().__init__(crowd, peer, ServerCarriers(peer, rng), records)

    def packet(self, payload: bytes) -> bytes:
        """One of its own to the server."""
        return ipv4(str(network_of(self.number)[1]), SERVER, payload)


class CrowdsNode(Node):
    """Who an initiation of the server's is for follows from the address that it came to."""

    def __init__(self) -> None:
        super().__init__(key_of(-1))
        self.members: dict[bytes, Member] = {}

    def receive_handshake(self, message: Buffer, source: Endpoint, now: float) -> tuple[Peer, list[Event]]:
        if kind_of(message) == INITIATION and isinstance(source, UdpEndpoint):
            member = self.members[source.local[0][2][4:8]]
            self.identity = member.identity
            self.peers = {member.peer.public: member.peer}
        return super().receive_handshake(message, source, now)


class Crowd:
    """Members 0 to `count` less one, with a persistent keepalive in seconds; every other a plain WireGuard.

    It stands for the engine of each of them (LinkOwner), with one socket, one bundler and no device.
    """

    def __init__(self, loop: Loop, port: int, count: int, *, keepalive: float = KEEPALIVE) -> None:
        self.loop = loop
        self.port = port
        self.device = EndDevice()
        self.udp = UdpCarrier(loop, 0, answers_from_where_asked=True, versions=[socket.AF_INET])
        self.node = CrowdsNode()
        self.stamps = Stamps()
        self.schedule = Schedule()
        self.seal_buffer = SealBuffer()
        self.bundler = Bundler(PlainSender(1420, self.seal_buffer), self.seal_buffer)
        self.drops: Counter[str] = Counter()
        self.members = [Member(self, number, keepalive=keepalive, plain=number % 2 > 0) for number in range(count)]
        for member in self.members:
            self.node.members[(FIRST_ADDRESS + member.number).packed] = member
        links: dict[Reachable, Link] = {member.peer: member for member in self.members}
        self.inbound = Inbound(self.node, links, loop, self.drops)
        self.udp.start(self)

    def say(self, members: Iterable[Member], payload: bytes) -> None:
        """Each sends a packet to the server."""
        for member in members:
            self.bundler.turn_to(member)
            self.bundler.add(memoryview(member.packet(payload)), 0)
        self.bundler.flush()

    def connected(self) -> int:
        """How many have a session."""
        return sum(member.peer.sending_session(self.loop.now) is not None for member in self.members)

    def close(self) -> None:
        """End."""
        self.udp.close()
        self.device.close()

    # LinkOwner

    def deliver_bundle(self, link: Link, record: memoryview, source: Endpoint) -> None:
        """Count what comes for a member."""
        assert isinstance(link, Member)
        link.got += sum(1 for _ in packets_of(record))

    def deliver_packet(self, link: Link, packet: memoryview, source: Endpoint) -> None:
        """Count what comes for a member."""
        assert isinstance(link, Member)
        link.got += 1

    def drain(self, link: Link) -> None:
        """Send what waits."""
        self.bundler.drain(link)

    def has_moved(self, link: Link) -> None:
        """Nobody asks."""

    def has_acted(self, link: Link) -> None:
        """Nobody asks."""

    # CarrierUser

    def read_datagrams(self, source: DatagramSource) -> None:
        """Take in what waits."""
        self.inbound.read_datagrams(source)

    def read_stream(self, connection: Stream) -> None:
        """There are no connections."""

    def can_send(self, peer: Reachable | None) -> None:
        """Send what waits."""
        self.bundler.drain_all()

    def connection_closed(self, connection: Stream, peer: Reachable) -> None:
        """There are no connections."""
