"""A server and its many peers: real links, at two real UDP sockets on the loopback.

The server is connected as by the daemon, except for its device. The peers are the members of a crowd, which is one
object with one socket. Each member has its own identity, link and source address, from 127.16.0.0 upwards. In the
tunnel member 17 has the address 10.0.17.1 and the network 10.0.17.0/24; the server has 10.255.0.1.
"""

from __future__ import annotations

import gc
import random
import resource
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from tests.datapath.ends import EndDevice, InsideNetwork, RecordedTcp, Stamps, WireGuardsRecordProtocol, ipv4
from vpntun.carriers.ancillary import IP_PKTINFO
from vpntun.carriers.base import DatagramSource, Stream
from vpntun.carriers.udp import UdpCarrier
from vpntun.carriers.udp_socket import UdpEndpoint
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.core.endpoint import Endpoint, Outcome, Reachable
from vpntun.core.events import Event
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.selection.server import ServerCarriers
from vpntun.core.wireguard.node import Node
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.keys import KeyPair, clamp, format_key
from vpntun.crypto.symmetric import blake2s
from vpntun.datapath.engine import Engine, takes_of
from vpntun.datapath.links import Links
from vpntun.datapath.receiving.inbound import Inbound
from vpntun.datapath.sending.bundler import Bundler
from vpntun.datapath.sending.plain import PlainSender
from vpntun.link.link import Link
from vpntun.link.seal_buffer import SealBuffer
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Lookups
from vpntun.runtime.schedule import Schedule
from vpntun.wire.message import INITIATION, RESPONSE, Buffer, kind_of
from vpntun.wire.record import packets_of

SERVER = "10.255.0.1"
KEEPALIVE = 25.0
FIRST_ADDRESS = IPv4Address("127.16.0.0")


def key_of(number: int) -> KeyPair:
    """Return a member's identity; -1: the server's."""
    return KeyPair.of(clamp(blake2s(b"%d of many" % number)))


def network_of(number: int) -> IPv4Network:
    """Return the network that a member may send from."""
    return IPv4Network((0x0A000000 + (number << 8), 24))


def settings_of(number: int, *more: IPv4Network) -> PeerSettings:
    """Return the server's configuration of a member."""
    return PeerSettings(key_of(number).public, (network_of(number), *more))


def networks_behind(number: int, each: int) -> list[IPv4Network]:
    """Return `each` more networks of 256 addresses that only this member may send from."""
    return [IPv4Network((0x14000000 + (number * each + index << 8), 24)) for index in range(each)]


def write_file(folder: Path, count: int, each: int) -> Path:
    """Write the server's configuration file, with `count` members that have `each` more networks; return its path."""
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
    """Return the resident memory of this process, in kilobytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024


class Server:
    """A server with real links. `state`: its state folder. `tcp`: whether it accepts TCP connections too.

    `number`: the member whose identity it has; -1: the server's own. `inside`: the addresses that are routed to its
    device.
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
        self.moves: Counter[Link] = Counter()
        self.udp = UdpCarrier(loop, port, answers_from_where_asked=True, versions=[socket.AF_INET])
        self.tcp = RecordedTcp(loop, port if tcp else None, versions=[socket.AF_INET])
        self.lookups = Lookups(loop)
        self.engine = Engine(
            key_of(number),
            self.device,
            {"udp": self.udp, "tcp": self.tcp},
            loop,
            network=InsideNetwork(self.inside),
            drops=self.drops,
            observer=self,
        )
        tunnel = Tunnel("many0", key_of(number), self.peers, port, "auto" if tcp else "udp")
        self.links = Links(tunnel, self.engine, self.lookups, state)
        self.engine.start()

    def link_moved(self, link: Link) -> None:
        """Count it, and remember the endpoint, as the daemon does."""
        self.moves[link] += 1
        self.links.remember(link)

    def link_changed(self, link: Link, *, up: bool) -> None:
        """Do nothing."""

    def states_changed(self, link: Link) -> None:
        """Not of interest here."""

    @property
    def schedule(self) -> Schedule:
        """The links' deadlines."""
        return self.engine.schedule

    def start(self) -> None:
        """Add the peers."""
        self.links.change(self.peers)

    def link(self, number: int) -> Link:
        """Return the link of a member."""
        return self.links.of(key_of(number).public)

    def connected(self) -> int:
        """Return how many peers have a session."""
        return sum(link.peer.sending_session(self.loop.now) is not None for link in self.engine.links.values())

    def all_drops(self) -> Counter[str]:
        """Return the number of drops, by reason."""
        return self.drops + self.links.drops()

    def send(self, numbers: Iterable[int], payload: bytes) -> None:
        """Let the device give the engine a packet for each of these members."""
        for number in numbers:
            self.device.from_the_kernel(ipv4(SERVER, str(network_of(number)[1]), payload))

    def close(self) -> None:
        """Remove the peers, and close the sockets and the device."""
        self.links.change([])
        self.links.close()
        self.lookups.close()
        self.udp.close()
        self.tcp.close()
        self.loop.forget(self.device.fileno())
        self.device.close()


class Member(Link):
    """A member of the crowd, which asks the server for sessions and keeps its path open. `got`: received packets."""

    def __init__(self, crowd: Crowd, number: int, *, keepalive: float, plain: bool) -> None:
        self.number = number
        self.identity = key_of(number)
        self.got = 0
        rng = random.Random(number)
        server = key_of(-1).public
        peer = Peer(self.identity, server, bytes(32), crowd.node.indices, crowd.stamps, rng, keepalive=keepalive)
        self.address = address = (FIRST_ADDRESS + number).packed
        self.to_server = crowd.udp.sockets[socket.AF_INET].endpoint(
            ("127.0.0.1", crowd.port), ((socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + address + bytes(4)),)
        )
        peer.endpoint = self.to_server
        kind = WireGuardsRecordProtocol if plain else RecordProtocol
        records = kind(takes_of(crowd.device), 1420, crowd.loop.now, peer_is_vpntun=False)
        super().__init__(crowd, peer, ServerCarriers(peer, rng), records)

    def packet(self, payload: bytes) -> bytes:
        """Return a packet from this member to the server."""
        return ipv4(str(network_of(self.number)[1]), SERVER, payload)


class CrowdsNode(Node):
    """Node of all members. The address to which a handshake message was sent tells the member that it is for."""

    def __init__(self) -> None:
        super().__init__(key_of(-1))
        self.members: dict[bytes, Member] = {}

    def admit(self, message: Buffer, source: Endpoint, now: float) -> bytes:
        self._become(message, source)
        return super().admit(message, source, now)

    def receive_handshake(self, message: Buffer, source: Endpoint, now: float) -> tuple[Peer, list[Event]]:
        self._become(message, source)
        return super().receive_handshake(message, source, now)

    def _become(self, message: Buffer, source: Endpoint) -> None:
        if kind_of(message) in {INITIATION, RESPONSE} and isinstance(source, UdpEndpoint):
            member = self.members[source.local[0][2][4:8]]
            self.identity = member.identity
            self.peers = {member.peer.public: member.peer}


class Crowd:
    """Members 0 to `count` - 1, with a persistent keepalive in seconds. Every second one is a plain WireGuard.

    It replaces the engine of each member (LinkOwner), with one socket, one bundler and no device.
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

    def send(self, members: Iterable[Member], payload: bytes) -> None:
        """Send a packet from each of these members to the server."""
        for member in members:
            self.bundler.turn_to(member)
            self.bundler.add(memoryview(member.packet(payload)), 0)
        self.bundler.flush()

    def connected(self) -> int:
        """Return how many members have a session."""
        return sum(member.peer.sending_session(self.loop.now) is not None for member in self.members)

    def close(self) -> None:
        """Close the sockets and the device."""
        self.udp.close()
        self.device.close()

    # LinkOwner

    def deliver_bundle(self, link: Link, record: memoryview, source: Endpoint, ecn: int) -> None:
        """Count packets for a member."""
        assert isinstance(link, Member)
        link.got += sum(1 for _ in packets_of(record))

    def deliver_packet(self, link: Link, packet: memoryview, ecn: int) -> None:
        """Count packets for a member."""
        assert isinstance(link, Member)
        link.got += 1

    def answer(self, link: Link, what: int, content: dict[str, Any]) -> Mapping[str, Any]:
        """Answer every request with nothing."""
        return {}

    def drain(self, link: Link) -> None:
        """Send the waiting packets of a member."""
        self.bundler.drain(link)

    def has_moved(self, link: Link) -> None:
        """Do nothing."""

    def has_acted(self, link: Link) -> None:
        """Do nothing."""

    # CarrierUser

    def read_datagrams(self, source: DatagramSource) -> None:
        """Process the waiting datagrams."""
        self.inbound.read_datagrams(source)
        self.inbound.process_handshakes()

    def read_stream(self, connection: Stream) -> None:
        """Do nothing: there are no connections."""

    def held_sent(self, endpoint: Endpoint, outcome: Outcome, datagrams: int, size: int) -> None:
        """Do nothing: the members send too little for datagrams to be held."""

    def can_send(self, peer: Reachable | None) -> None:
        """Send the waiting packets of all members."""
        self.bundler.drain_all()

    def fits_session(self, header: Buffer) -> bool:
        """Return False: there are no connections."""
        return False

    def connection_closed(self, connection: Stream, peer: Reachable) -> None:
        """Do nothing: there are no connections."""
