"""Inbound: from a carrier to the device.

    1. what was read: one message, a burst that is whole already, or datagrams of one size, which may be whole messages,
       bursts in order, or pieces that are put together with care (core/reassembly.py)
    2. type, reserved bytes and size (wire/message.py)
    3. handshakes: to the node, whose decisions the link acts on
    4. data: receiver index, key age, AEAD, replay window
    5. the connection is this peer's
    6. the link takes it from there (Link.opened): key confirmation, roaming, timers, records, delivery

Whatever fails is dropped under the name of its reason and counted; nothing is answered, and nothing raised but
DeviceError, when the device has gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from vpntun.carriers.base import Arrival, DatagramSource, Stream
from vpntun.core.endpoint import Endpoint, Reachable
from vpntun.core.wireguard.node import Node
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.session import Session
from vpntun.datapath.drops import note_drop
from vpntun.datapath.link import Link
from vpntun.errors import BadPacket
from vpntun.runtime.log import Warnings
from vpntun.runtime.loop import Loop
from vpntun.wire.burst import join_in_order
from vpntun.wire.message import DATA, DATA_HEADER, HEADER_SIZE, LARGEST, RESPONSE, SMALLEST, Buffer, kind_of
from vpntun.wire.record import BUNDLE

_read_header = DATA_HEADER.unpack_from


class _Stream(NamedTuple):
    """Where messages of one session come from: its index at this end, and the path."""

    receiver: int
    link: Link
    session: Session
    source: Endpoint


class Inbound:
    """The way in, for all carriers and links. `drops` counts what no peer can be blamed for."""

    def __init__(self, node: Node, links: Mapping[Reachable, Link], loop: Loop, drops: Counter[str]) -> None:
        self._node = node
        self._links = links
        self._loop = loop
        self._drops = drops
        self._plaintext = memoryview(bytearray(LARGEST))
        self._joined = memoryview(bytearray(LARGEST))
        self._warnings = Warnings()
        self._last: _Stream | None = None
        """What the message before belonged to, within one turn of the loop."""

    def read_datagrams(self, socket: DatagramSource) -> None:
        """Take in what waits at a socket."""
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

    def read_stream(self, connection: Stream) -> None:
        """Take in what waits at a connection."""
        self._last = None
        try:
            for message in connection.receive():
                self.take(message, connection)
        except BadPacket as bad:
            self._drop(bad, connection)

    def take_datagram(self, datagram: memoryview, source: Endpoint, datagrams: int = 1) -> int:
        """Take in a datagram, or a burst joined from this number: a message, or a piece of a burst.

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

    def take(self, message: memoryview, source: Endpoint, datagrams: int = 1) -> bool:
        """Take in one message, from anybody; return whether it was genuine and of use."""
        try:
            if len(message) >= SMALLEST:
                word, receiver, counter = _read_header(message)
                if word == DATA:  # reserved bytes and all
                    last = self._last
                    if last is not None and receiver == last.receiver and source is last.source and datagrams == 1:
                        self._take_next(message, counter, last)
                    else:
                        self._take_data(message, receiver, counter, source, datagrams)
                    return True
            self._take_handshake(kind_of(message), message, source)
        except BadPacket as bad:
            self._drop(bad, source)
            return False
        return True

    def _take_apart(self, arrival: Arrival, socket: DatagramSource) -> None:
        """Take in several datagrams of one size, the last perhaps shorter."""
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

    def _take_piece(self, datagram: memoryview, source: Endpoint) -> int:
        now = self._loop.now
        owner = self._node.session_for(datagram, now)
        records = self._links[owner.peer].records
        if not records.takes_records(owner.session, now):
            raise BadPacket("bad reserved")
        at_endpoint = source == owner.peer.endpoint
        joined = records.reassembly.take(datagram, owner.session, source, now, from_endpoint=at_endpoint)
        if joined is None:
            return 0
        _, receiver, counter = _read_header(joined.message)
        self._take_data(joined.message, receiver, counter, source, joined.pieces)
        records.restored += joined.is_restored
        return joined.datagram_size

    def _take_handshake(self, kind: int, message: Buffer, source: Endpoint) -> None:
        self._last = None
        peer, events = self._node.receive_handshake(message, source, self._loop.now)
        if kind == RESPONSE:  # an initiation may be a replay: it authenticates nobody
            source.belongs_to(peer)
        else:
            source.expect(peer)
        peer.received_bytes += len(message)
        self._links[peer].act(events)

    def _take_data(self, message: memoryview, receiver: int, counter: int, source: Endpoint, datagrams: int) -> None:
        now = self._loop.now
        owner = self._node.session_at(receiver, now)
        peer, session = owner.peer, owner.session
        link = self._links[peer]
        if datagrams > 1 and not link.records.takes_records(session, now):
            raise BadPacket("bad reserved")
        size = session.open_into(message, self._plaintext)
        source.belongs_to(peer)
        self._opened(message, counter, size, datagrams, _Stream(receiver, link, session, source))

    def _take_next(self, message: memoryview, counter: int, stream: _Stream) -> None:
        """Take in another message of the turn from the source of the last one, in the session that is sealed with.

        Everything but the AEAD, the replay window and the packets themselves was checked for the last one.
        """
        plaintext = self._plaintext
        size = stream.session.open_into(message, plaintext)
        if size and plaintext[0] == BUNDLE:
            stream.link.bundle_opened(stream.session, counter, plaintext[:size], stream.source, len(message))
        else:
            self._opened(message, counter, size, 1, stream)

    def _opened(self, message: memoryview, counter: int, size: int, datagrams: int, stream: _Stream) -> None:
        """Hand a message that is genuine, and no replay, to its link; its plaintext has `size` bytes."""
        link, session, source = stream.link, stream.session, stream.source
        self._last = None
        carried = link.opened(session, counter, datagrams, source, self._plaintext[:size], len(message))
        if carried and session is link.peer.keys.current and source is link.peer.endpoint:
            self._last = stream

    def _drop(self, bad: BadPacket, source: Endpoint) -> None:
        """Count a message from a stranger, or from a peer that its key gives away."""
        link = self._links.get(bad.sender) if isinstance(bad.sender, Peer) else None
        if link is not None:
            link.drop(bad, source)
        else:
            note_drop(self._drops, self._warnings, bad, source)
