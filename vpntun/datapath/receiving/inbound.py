"""Inbound path: from a carrier to a link, which delivers packets to the device.

    1. A read is one message, a burst that is already joined, or datagrams of one size. These may be whole messages,
       bursts in order, or pieces in any order, which are reassembled (core/records/reassembly.py).
    2. Type, reserved bytes and size are checked (wire/message.py).
    3. Handshake messages go into a queue, and are processed after the read (handshakes.py).
    4. Data messages are checked: receiver index, age of the key, AEAD, replay window.
    5. The connection must belong to this peer.
    6. The link does the rest (Link.opened): key confirmation, roaming, timers, records, delivery.
    7. A data message in the session and from the endpoint in use, like the message before it, needs only the AEAD and
       the replay window; then the link takes a bundle without those other steps (Link.bundle_opened).

A message that fails a check is dropped, and counted by its reason. It gets no reply, with two exceptions: under load a
handshake message without a valid mac2 gets a cookie reply (handshakes.py), and a peer whose clock was set back is asked
for a handshake (Peer.ask_in_return). Nothing is raised but DeviceError, if the device has gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from vpntun.carriers.base import Arrival, DatagramSource, Stream
from vpntun.core.endpoint import Endpoint, Reachable
from vpntun.core.wireguard.node import Node
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.session import REKEY_ON_RECEIVE_AFTER, Session
from vpntun.datapath.receiving.handshakes import Handshakes
from vpntun.errors import BadPacket, OldTimestamp
from vpntun.link.drops import note_drop
from vpntun.link.link import Link
from vpntun.runtime.log import Warnings
from vpntun.runtime.loop import Loop
from vpntun.wire.burst import join_in_order
from vpntun.wire.message import DATA, DATA_HEADER, HEADER_SIZE, LARGEST, SMALLEST, Buffer, kind_of
from vpntun.wire.record import BUNDLE

_read_header = DATA_HEADER.unpack_from


class _Origin(NamedTuple):
    """Origin of a message: the session, by its index at this end, and the endpoint.

    `until`: when a message from there needs all checks again, because its key has become old.
    """

    receiver: int
    link: Link
    session: Session
    source: Endpoint
    until: float


class Inbound:
    """Inbound path of all carriers and links.

    `drops`: counter of drops that cannot be ascribed to a peer. `kind`: the kind of record with packets for this end's
    device, BUNDLE or FRAMES.
    """

    def __init__(
        self, node: Node, links: Mapping[Reachable, Link], loop: Loop, drops: Counter[str], kind: int = BUNDLE
    ) -> None:
        self._node = node
        self._kind = kind
        self._links = links
        self._loop = loop
        self._drops = drops
        self._handshakes = Handshakes(node, links, loop, self._drop)
        self.process_handshakes = self._handshakes.process
        """Process the handshake messages that wait, for a share of the time (handshakes.py)."""
        self._plaintext = memoryview(bytearray(LARGEST))
        self._joined = memoryview(bytearray(LARGEST))
        self._warnings = Warnings()
        self._last: _Origin | None = None
        """Origin of the previous message, if the next one may skip checks."""

    def forget(self, link: Link) -> None:
        """Forget a removed link."""
        if self._last is not None and self._last.link is link:
            self._last = None

    def read_datagrams(self, socket: DatagramSource) -> None:
        """Process the datagrams that wait at a socket."""
        for arrival in socket.receive():
            message, segment, datagrams, source, ecn = arrival
            if not segment and len(message) >= SMALLEST and not message[2]:
                if self.take(message, source, datagrams, ecn):
                    socket.note_whole_message(len(message), datagrams)
            elif not segment or len(message) <= segment:
                if size := self.take_datagram(message, source, datagrams, ecn):
                    socket.expect_pieces(size)
            else:
                self._take_apart(arrival, socket)

    def read_stream(self, connection: Stream) -> None:
        """Process the messages that wait at a connection."""
        try:
            for message in connection.receive():
                self.take(message, connection)
        except BadPacket as bad:
            self._drop(bad, connection)

    def fits_session(self, header: Buffer) -> bool:
        """Return whether the 16 bytes of a data message's header name a live session and a counter not seen in it.

        This proves nothing: headers are visible on the path.
        """
        word, receiver, counter = _read_header(header)
        try:
            owner = self._node.session_at(receiver, self._loop.now)
        except BadPacket:
            return False
        return word == DATA and not owner.session.replay.seen(counter)

    def take_datagram(self, datagram: memoryview, source: Endpoint, datagrams: int = 1, ecn: int = 0) -> int:
        """Process a message or a piece of a burst, in one datagram or joined from `datagrams` of them.

        `ecn`: the ECN field of their IP headers. Returns the size of a record's datagrams if this was the last piece
        that the record needed to open, else 0.
        """
        if len(datagram) <= HEADER_SIZE or not datagram[2] or datagram[0] != DATA:
            self.take(datagram, source, datagrams, ecn)
            return 0
        try:
            return self._take_piece(datagram, source, ecn)
        except BadPacket as bad:
            self._drop(bad, source)
            return 0

    def take(self, message: memoryview, source: Endpoint, datagrams: int = 1, ecn: int = 0) -> bool:
        """Process one message, which may be anybody's; return whether it was genuine data.

        `datagrams`: the number that it arrived in. `ecn`: the ECN field of their IP headers.
        """
        try:
            if len(message) >= SMALLEST:
                word, receiver, counter = _read_header(message)
                if word == DATA:  # the word includes the reserved bytes
                    last = self._last
                    if last is not None and receiver == last.receiver and source is last.source:
                        peer = last.link.peer
                        is_settled = peer.keys.current is last.session and peer.endpoint is source
                        if is_settled and self._loop.now < last.until:
                            self._take_next(message, counter, datagrams, last, ecn)
                            return True
                    self._take_data(message, receiver, counter, source, datagrams, ecn)
                    return True
            self._handshakes.take(kind_of(message), message, source)
        except BadPacket as bad:
            self._drop(bad, source)
        return False

    def _take_apart(self, arrival: Arrival, socket: DatagramSource) -> None:
        """Process several datagrams of one size, of which the last may be shorter."""
        read, size, _, source, ecn = arrival
        at = 0
        whole = False
        while at < len(read):
            if at + HEADER_SIZE < len(read) and not read[at + 2]:  # a whole message
                whole |= self.take(read[at : at + size], source, 1, ecn)
                at += size
                continue
            length, behind = join_in_order(read, at, size, self._joined)
            if length:
                if self.take(self._joined[:length], source, -(-(behind - at) // size), ecn):
                    socket.expect_bursts(size)
                else:  # it did not open: a datagram between the first and the last may be out of place
                    for piece in range(at, behind, size):
                        self.take_datagram(read[piece : min(piece + size, behind)], source, 1, ecn)
                at = behind
            else:
                if self.take_datagram(read[at : at + size], source, 1, ecn):
                    socket.expect_bursts(size)
                at += size
        if whole:
            socket.note_whole_message(size, -(-len(read) // size))

    def _take_piece(self, datagram: memoryview, source: Endpoint, ecn: int) -> int:
        now = self._loop.now
        owner = self._node.session_for(datagram, now)
        records = self._links[owner.peer].records
        if not records.takes_records(owner.session, now):
            raise BadPacket("bad reserved")
        at_endpoint = source == owner.peer.endpoint
        joined = records.reassembly.take(datagram, owner.session, source, now, from_endpoint=at_endpoint, ecn=ecn)
        if joined is None:
            return 0
        _, receiver, counter = _read_header(joined.message)
        self._take_data(joined.message, receiver, counter, source, joined.pieces, joined.ecn)
        records.restored += joined.is_restored
        return joined.datagram_size

    def _take_data(
        self, message: memoryview, receiver: int, counter: int, source: Endpoint, datagrams: int, ecn: int
    ) -> None:
        now = self._loop.now
        owner = self._node.session_at(receiver, now)
        peer, session = owner.peer, owner.session
        link = self._links[peer]
        if datagrams > 1 and not link.records.takes_records(session, now):
            raise BadPacket("bad reserved")
        size = session.open_into(message, self._plaintext)
        source.belongs_to(peer)
        until = session.created + REKEY_ON_RECEIVE_AFTER
        self._opened(message, counter, size, datagrams, _Origin(receiver, link, session, source, until), ecn)

    def _take_next(self, message: memoryview, counter: int, datagrams: int, origin: _Origin, ecn: int) -> None:
        """Process a message with the same origin as the one before, in the session and at the endpoint in use.

        Only the AEAD, the replay window and the packets themselves are checked: that message passed the rest.
        """
        link, session, plaintext = origin.link, origin.session, self._plaintext
        if datagrams > 1 and not link.records.takes_records(session, self._loop.now):
            raise BadPacket("bad reserved")
        size = session.open_into(message, plaintext)
        if size and plaintext[0] == self._kind:
            link.bundle_opened(session, counter, datagrams, plaintext[:size], origin.source, len(message), ecn)
        else:
            self._opened(message, counter, size, datagrams, origin, ecn)

    def _opened(self, message: memoryview, counter: int, size: int, datagrams: int, origin: _Origin, ecn: int) -> None:
        """Pass a genuine message, which is not a replay, to its link. Its plaintext has `size` bytes."""
        self._last = None
        plaintext = self._plaintext[:size]
        origin.link.opened(origin.session, counter, datagrams, origin.source, plaintext, len(message), ecn)
        self._last = origin

    def _drop(self, bad: BadPacket, source: Endpoint) -> None:
        """Count a dropped message: for the peer whose key it proves, else for all strangers together."""
        link = self._links.get(bad.sender) if isinstance(bad.sender, Peer) else None
        if link is None:
            note_drop(self._drops, self._warnings, bad, source)
            return
        link.drop(bad, source)
        if isinstance(bad, OldTimestamp):
            link.act(link.peer.ask_in_return(source, self._loop.now))
