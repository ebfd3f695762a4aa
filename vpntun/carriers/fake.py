"""Endpoint and socket for tests, without I/O: they record sent messages and deliver prepared ones."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from vpntun.carriers.base import Arrival
from vpntun.core.endpoint import Flow, Outcome, Reachable
from vpntun.errors import BadPacket
from vpntun.types import CarrierName, SocketAddress
from vpntun.wire.message import LARGEST, Buffer
from vpntun.wire.stream_framing import PREFIX_SIZE

UDP, TCP = 17, 6
LARGEST_SEND = 65_507
MOST_MESSAGES = 64


class FakeSource:
    """A socket at which the given arrivals wait. `hints`: the reports of opened messages, as (method, size)."""

    def __init__(self, *arrivals: Arrival) -> None:
        self._arrivals = arrivals
        self.hints: list[tuple[str, int]] = []

    def receive(self) -> Iterable[Arrival]:
        """Return the arrivals."""
        return self._arrivals

    def expect_bursts(self, size: int) -> None:
        """Record the hint."""
        self.hints.append(("expect_bursts", size))

    def expect_pieces(self, size: int) -> None:
        """Record the hint."""
        self.hints.append(("expect_pieces", size))

    def note_whole_message(self, size: int, datagrams: int) -> None:
        """Record the hint."""
        self.hints.append(("note_whole_message", size))


class FakeEndpoint:
    """An endpoint that records each datagram, or each message of a stream, that is sent to it.

    sent            messages, oldest first; `take` empties it
    tos             the TOS byte of each message in `sent`
    urgent          messages that were sent ahead of data
    calls           messages of each call of `send`
    is_ready        whether data is accepted; `opens` sets it
    can_deliver     whether this host can send to the endpoint at all
    largest         bytes of the longest datagram that this host sends unfragmented
    is_rerouted     whether the next message leaves from another address of this host, since the former one is lost
    blocks_after    calls of `send` until the endpoint accepts no more data; None: it never blocks
    refuses         a peer whose messages `belongs_to` rejects
    incoming        messages that `receive` yields next, if the endpoint is a stream
    """

    def __init__(self, name: str, carrier: CarrierName = "udp", *, is_stream: bool | None = None) -> None:
        self.where = f"{name}:55555"
        self.address: SocketAddress = ("192.0.2.1", 55555)
        self.origin = bytes((192, 0, 2, 1, 0xD9, 0x03))
        self.via: Hashable = "a local port"
        self.carrier: CarrierName = carrier
        self.is_stream = carrier != "udp" if is_stream is None else is_stream
        self.ipv6 = False
        self.flow = Flow(TCP if self.is_stream else UDP, b"", 55555, bytes((192, 0, 2, 1)), 55555)
        self.sent: list[bytes] = []
        self.tos: list[int] = []
        self.urgent: list[bytes] = []
        self.calls: list[list[bytes]] = []
        self.is_ready = True
        self.is_clogged = False
        self.can_deliver = True
        self.largest = LARGEST
        self.is_rerouted = False
        self.blocks_after: int | None = None
        self.hangs_up = False
        self.peer: Reachable | None = None
        self.expected_peer: Reachable | None = None
        self.refuses: Reachable | None = None
        self.incoming: list[bytes] = []
        self.is_open = True
        self.host = name
        self._name = name
        self._sends_while_blocked = 0

    def __str__(self) -> str:
        return self._name

    def send_from(self, source: bytes) -> None:
        """Remember the source address, except on a stream."""
        if not self.is_stream:
            self.flow = self.flow._replace(source=source)

    def clogged(self) -> bool:
        """Return the value that the test has set."""
        return self.is_clogged

    def ready(self) -> bool:
        """Return whether data is accepted."""
        return self.is_ready

    def send(self, buffers: list[memoryview], segment: int = 0, *, dont_fragment: bool = True, tos: int = 0) -> Outcome:
        """Record the messages. Sending while not ready is a fault of the caller and fails the test."""
        if not self.is_ready:  # a superpacket for a plain WireGuard may leave as two batches, of which one is held
            self._sends_while_blocked += 1
            assert self._sends_while_blocked <= 2, "data was sent to an endpoint that is not ready"
        sent = b"".join(buffers)
        step = segment or max(1, len(sent))
        messages = [sent[at : at + step] for at in range(0, len(sent), step)]
        assert len(messages) <= MOST_MESSAGES
        if not self.can_deliver:
            return Outcome.UNDELIVERABLE
        is_too_long = dont_fragment and max(map(len, messages)) > self.largest
        if not self.is_stream and (is_too_long or len(sent) > LARGEST_SEND):
            return Outcome.TOO_BIG if dont_fragment else Outcome.UNDELIVERABLE
        self.sent += messages
        self.tos += [tos] * len(messages)
        self.calls.append(messages)
        if self.blocks_after is not None:
            self.blocks_after -= 1
            self.is_ready = self.blocks_after > 0
        return self._accepted()

    def send_frame(self, frame: memoryview, *, dont_fragment: bool = True, tos: int = 0) -> Outcome:
        """Record the message, as `send`."""
        return self.send([frame[PREFIX_SIZE:]], dont_fragment=dont_fragment, tos=tos)

    def send_first(self, message: Buffer) -> Outcome:
        """Record a message that is sent ahead of data."""
        self.urgent.append(bytes(message))
        if not self.can_deliver:
            return Outcome.UNDELIVERABLE
        self.sent.append(bytes(message))
        self.tos.append(0)
        return self._accepted()

    def expect(self, peer: Reachable) -> None:
        """Remember the peer whose initiation was accepted."""
        self.expected_peer = peer

    def belongs_to(self, peer: Reachable) -> None:
        """Remember the peer that was authenticated. Raises BadPacket for the peer in `refuses`."""
        if peer is self.refuses:
            raise BadPacket("another peer's connection")
        self.peer = peer

    def hang_up_later(self) -> None:
        """Remember that the endpoint is to be closed."""
        self.hangs_up = True

    @property
    def is_endpoint(self) -> bool:
        """Whether this is its peer's current endpoint."""
        return self.peer is not None and self.peer.endpoint is self

    def receive(self) -> Iterator[memoryview]:
        """Yield the messages that the test has put into `incoming`."""
        incoming, self.incoming = self.incoming, []
        for message in incoming:
            yield memoryview(bytearray(message))

    def close(self) -> None:
        """Remember that the endpoint was closed."""
        self.is_open = False

    def _accepted(self) -> Outcome:
        if self.is_rerouted:
            self.is_rerouted = False
            return Outcome.REROUTED
        return Outcome.SENT if self.is_ready else Outcome.HELD

    def opens(self, blocks_after: int | None = None) -> None:
        """Accept data again, for `blocks_after` calls of `send`."""
        self.is_ready, self.blocks_after, self._sends_while_blocked = True, blocks_after, 0

    def take(self) -> list[bytes]:
        """Return and forget the messages sent since the last call."""
        sent, self.sent, self.tos = self.sent, [], []
        return sent
