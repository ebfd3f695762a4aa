"""Queue of handshake messages, processed after data for a share of the time.

    1. `take` passes an initiation or a response to the queue (core/wireguard/admission.py). Under load its sender may
       get a cookie reply instead. A cookie reply from a peer is processed at once, since it costs little.
    2. After each read `process` takes messages out of the queue. The peer's link carries out the node's decisions.
    3. What still waits is processed in the following turns of the loop.

While data flows, handshakes take a fifth of the time, so a flood of them cannot stop it. `_balance` is the time that
they may take now: it grows by a share of the time that passes, and shrinks by the time that they take. The last message
may take more than is left, and then none is processed until the debt is paid. A turn in which nothing was read cancels
the debt, since nothing else needed the time. So while nothing else is to be done, handshakes take all of it, one in
each turn, and a message that comes alone is processed in the turn in which it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from logging import INFO

from vpntun.core.endpoint import Endpoint, Reachable
from vpntun.core.wireguard.node import Node
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.loop import Loop
from vpntun.wire.message import COOKIE_REPLY, RESPONSE, Buffer

SHARE = 0.25
"""Time for handshakes, as a share of all other time."""
LONGEST = 0.005
"""Seconds after which data is read again, however long no handshake was processed before."""


class Handshakes:
    """Handshake messages of all carriers and links. `drop` is called with what is refused, and where it came from."""

    def __init__(
        self,
        node: Node,
        links: Mapping[Reachable, Link],
        loop: Loop,
        drop: Callable[[BadPacket, Endpoint], None],
    ) -> None:
        self._node = node
        self._queue = node.admission
        self._links = links
        self._loop = loop
        self._drop = drop
        self._is_scheduled = False
        self._ended_at = loop.now
        self._balance = 0.0
        self._loads = 0
        self._note_load = Limited(
            NOTICE,
            "under load: many handshakes wait (the last from %s); senders must prove their addresses by a cookie",
        )

    def take(self, kind: int, message: Buffer, source: Endpoint) -> None:
        """Process a cookie reply, or put another handshake message into the queue. Raises BadPacket."""
        now = self._loop.now
        if kind == COOKIE_REPLY:
            peer, _ = self._node.receive_handshake(message, source, now)
            link = self._links[peer]
            link.lines.log(INFO, "%s is under load: the next handshake to it will carry its cookie", link.at(source))
            return
        reply = self._node.admit(message, source, now)
        if reply:
            # A reply must not displace data that waits for the socket. It may enter the tunnel if the source's address
            # leads there: nobody answers it, so it cannot loop, and looking up the route would cost as much again.
            if source.ready():
                source.send_first(reply)
            raise BadPacket("under load")
        if self._queue.loads != self._loads:
            self._loads = self._queue.loads
            self._note_load(source)

    def process(self) -> None:
        """Process messages that wait, as many as their share of the time allows, and the rest in later turns."""
        if not self._queue:
            return
        begun_at = now = self._loop.time()
        balance = min(LONGEST, self._balance + SHARE * (begun_at - self._ended_at))
        try:
            while now - begun_at <= balance and (waiting := self._queue.next()) is not None:
                self._process_one(*waiting)
                now = self._loop.time()
        finally:  # a bug in processing one must not delay the others
            self._balance, self._ended_at = balance - (now - begun_at), now
            if self._queue and not self._is_scheduled:
                self._is_scheduled = True
                self._loop.call_later(0.0, self._go_on)

    def _go_on(self) -> None:
        self._is_scheduled = False
        if self._loop.is_idle:
            self._balance = max(0.0, self._balance)
        self.process()

    def _process_one(self, message: bytes, source: Endpoint) -> None:
        """Process one message. Its connection may have closed meanwhile, and its peer may have been removed."""
        try:
            if not source.is_open:
                raise BadPacket("closed connection")
            peer, events = self._node.receive_handshake(message, source, self._loop.now)
            if message[0] == RESPONSE:  # an initiation may be a replay, so it authenticates nobody
                source.belongs_to(peer)
            else:
                source.expect(peer)
        except BadPacket as bad:
            self._drop(bad, source)
            return
        peer.received_bytes += len(message)
        self._links[peer].act(events)
