"""Inbound: from a carrier to the device.

    1. what was read: one message, a burst that is whole already, or datagrams of one size, which may be whole messages,
       bursts in order, or pieces that are put together with care (core/reassembly.py)
    2. type, reserved bytes and size (wire/message.py)
    3. handshakes: to the node, whose decisions the link acts on
    4. data: receiver index, key age, AEAD, replay window
    5. the connection is this peer's; key confirmation, roaming, timers
    6. empty: a keepalive, and done; else delivery.py, and from there the device

Whatever fails is dropped under the name of its reason and counted; nothing is answered, and nothing raised but
DeviceError, when the device has gone.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from vpntun.carriers.arrivals import Arrival
from vpntun.carriers.base import Path
from vpntun.carriers.tcp import TcpConnection
from vpntun.carriers.udp import UdpSocket
from vpntun.core.wireguard.node import Node
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.session import Session
from vpntun.datapath.delivery import Delivery
from vpntun.datapath.link import Link
from vpntun.errors import BadPacket
from vpntun.runtime.log import Warnings, log
from vpntun.runtime.loop import Loop
from vpntun.wire.burst import join_in_order
from vpntun.wire.message import DATA, DATA_HEADER, HEADER_SIZE, LARGEST, RESPONSE, SMALLEST, Buffer, kind_of
from vpntun.wire.record import BUNDLE, ECHO, LAST_KIND, PROBE

WORTH_TELLING = {
    "old timestamp": "a handshake from %s has an older timestamp than the last: a replay, a second machine with this "
    "key, or a clock that was set back; 'vpntun reset' forgets the last timestamp",
    "own key": "%s sends with this end's own key: are both ends started in the same role?",
    "source not allowed": "packets from %s have a source address that the peer is not allowed to use (see --allowed)",
}
"""Why a message was dropped, where the operator can do something about it."""

_read_header = DATA_HEADER.unpack_from


class _Stream(NamedTuple):
    """Where messages of one session come from: its index at this end, and the path."""

    receiver: int
    link: Link
    session: Session
    path: Path


class Inbound:
    """The way in, for all carriers and links."""

    def __init__(
        self,
        node: Node,
        links: dict[Peer, Link],
        delivery: Delivery,
        loop: Loop,
        drops: Counter[str],
    ) -> None:
        self._node = node
        self._links = links
        self._delivery = delivery
        delivery.on_bad = self._drop_of
        self._loop = loop
        self._drops = drops
        self._plaintext = memoryview(bytearray(LARGEST))
        self._joined = memoryview(bytearray(LARGEST))
        self._warnings = Warnings()
        self._last: _Stream | None = None
        """What the message before belonged to, within one turn of the loop."""

    def read_udp(self, socket: UdpSocket) -> None:
        """The socket has datagrams."""
        self._last = None
        for arrival in socket.receive():
            message, segment, datagrams, source = arrival
            if not segment and len(message) >= SMALLEST and not message[2]:
                if self.take(message, source, datagrams):
                    socket.came_whole(len(message), datagrams)
            elif not segment or len(message) <= segment:
                if size := self.take_datagram(message, source, datagrams):
                    socket.expect_pieces(size)
            else:
                self._take_apart(arrival, socket)
        self._delivery.flush()

    def read_tcp(self, connection: TcpConnection) -> None:
        """The connection has bytes, or has ended."""
        self._last = None
        try:
            for message in connection.receive():
                self.take(message, connection)
        except BadPacket as bad:
            self._drop(bad, connection)
        self._delivery.flush()

    def take_datagram(self, datagram: memoryview, source: Path, datagrams: int = 1) -> int:
        """Take in a datagram, or a burst joined out of so many: a message, or a piece of a burst.

        Returns the size of a record's datagrams where this was the last piece that the record needed to open, else 0.
        """
        if len(datagram) <= HEADER_SIZE or not datagram[2] or datagram[0] != DATA:
            self.take(datagram, source, datagrams)
            return 0
        try:
            return self._take_piece(datagram, source)
        except BadPacket as bad:
            self._drop(bad, source)
            return 0

    def take(self, message: memoryview, path: Path, datagrams: int = 1) -> bool:
        """Take in one message from anybody, which came in so many datagrams; whether it was genuine and of use."""
        try:
            if len(message) >= SMALLEST:
                word, receiver, counter = _read_header(message)
                if word == DATA:  # reserved bytes and all
                    last = self._last
                    if last is not None and receiver == last.receiver and path is last.path and datagrams == 1:
                        self._take_next(message, counter, last)
                    else:
                        self._take_data(message, receiver, counter, path, datagrams)
                    return True
            self._take_handshake(kind_of(message), message, path)
        except BadPacket as bad:
            self._drop(bad, path)
            return False
        return True

    def _take_apart(self, arrival: Arrival, socket: UdpSocket) -> None:
        """Several datagrams of one size, the last perhaps shorter."""
        read, size, _, source = arrival
        at = 0
        whole = False
        while at < len(read):
            if at + HEADER_SIZE < len(read) and not read[at + 2]:  # a whole message
                whole |= self.take(read[at : at + size], source)
                at += size
                continue
            length, behind = join_in_order(read, at, size, self._joined)
            if length:
                if self.take(self._joined[:length], source, -(-(behind - at) // size)):
                    socket.expect_bursts(size)
                else:  # something between the first and the last is not where it should be
                    for piece in range(at, behind, size):
                        self.take_datagram(read[piece : min(piece + size, behind)], source)
                at = behind
            else:
                if self.take_datagram(read[at : at + size], source):
                    socket.expect_bursts(size)
                at += size
        if whole:
            socket.came_whole(size, -(-len(read) // size))

    def _take_piece(self, datagram: memoryview, source: Path) -> int:
        now = self._loop.now
        held = self._node.session_for(datagram, now)
        records = self._links[held.peer].records
        if not records.takes_records(held.session, now):
            raise BadPacket("bad reserved")
        at_endpoint = source == held.peer.endpoint
        joined = records.reassembly.take(datagram, held.session, source, now, from_endpoint=at_endpoint)
        if joined is None:
            return 0
        _, receiver, counter = _read_header(joined.message)
        self._take_data(joined.message, receiver, counter, source, joined.pieces)
        records.restored += joined.is_restored
        return joined.datagram_size

    def _take_handshake(self, kind: int, message: Buffer, path: Path) -> None:
        self._last = None
        peer, events = self._node.receive_handshake(message, path, self._loop.now)
        if kind == RESPONSE:  # an initiation may be a replay: it authenticates nobody
            path.belongs_to(peer)
        else:
            path.expect(peer)
        peer.received_bytes += len(message)
        self._links[peer].act(events)

    def _take_data(self, message: memoryview, receiver: int, counter: int, path: Path, datagrams: int) -> None:
        now = self._loop.now
        held = self._node.session_at(receiver, now)
        peer, session = held.peer, held.session
        link = self._links[peer]
        if datagrams > 1 and not link.records.takes_records(session, now):
            raise BadPacket("bad reserved")
        size = session.open_into(message, self._plaintext)
        path.belongs_to(peer)
        self._opened(message, counter, size, datagrams, _Stream(receiver, link, session, path))

    def _take_next(self, message: memoryview, counter: int, stream: _Stream) -> None:
        """Take in another message of the turn from where the last one came, in the session that is sealed with, too.

        All but the AEAD, the replay window and the packets themselves has been asked of the last one.
        """
        link, plaintext = stream.link, self._plaintext
        size = stream.session.open_into(message, plaintext)
        kind = plaintext[0] if size else 0
        if kind != BUNDLE:
            self._opened(message, counter, size, 1, stream)
            return
        link.peer.received_bytes += len(message)
        record = plaintext[:size]
        link.records.opened(stream.session, counter, 1, self._loop.now, record)
        try:
            self._delivery.take_bundle(link, record, stream.path)
        except BadPacket as bad:
            self._drop_of(link, bad, stream.path)

    def _opened(self, message: memoryview, counter: int, size: int, datagrams: int, stream: _Stream) -> None:
        """A message is genuine, and no replay: its plaintext has `size` bytes."""
        now = self._loop.now
        link, session, path = stream.link, stream.session, stream.path
        peer = link.peer
        peer.received_bytes += len(message)
        kind = self._plaintext[0] if size else 0
        keepalive = kind <= LAST_KIND and kind != BUNDLE
        events = peer.opened(session, counter, path, now, keepalive=keepalive, follow=kind not in (PROBE, ECHO))
        if events:
            link.act(events)
        if keepalive:
            link.records.opened_control(session, counter, datagrams)
        else:
            link.records.opened(session, counter, datagrams, now, self._plaintext[:size])
        link.touched_by_traffic(now)
        self._last = None
        if size:
            try:
                self._delivery.take(link, session, self._plaintext[:size], path)
            except BadPacket as bad:
                self._drop_of(link, bad, path)
        if not keepalive and session is peer.keys.current and path is peer.endpoint:
            self._last = stream

    def _drop(self, bad: BadPacket, path: Path) -> None:
        """Count what a stranger has sent, or a peer that its key gives away."""
        link = self._links.get(bad.sender) if isinstance(bad.sender, Peer) else None
        if link is not None:
            self._drop_of(link, bad, path)
        else:
            self._count(self._drops, self._warnings, bad, path)

    def _drop_of(self, link: Link, bad: BadPacket, path: Path) -> None:
        """Count what the peer itself has sent."""
        self._count(link.drops, link.warnings, bad, path)

    def _count(self, drops: Counter[str], warnings: Warnings, bad: BadPacket, path: Path) -> None:
        drops[bad.reason] += 1
        if bad.reason in WORTH_TELLING:
            warnings.log(bad.reason, WORTH_TELLING[bad.reason], path)
        log.debug("dropped from %s: %s", path, bad.reason)
