"""A user of carriers that keeps what it is told."""

from __future__ import annotations

from vpntun.carriers.base import DatagramSource, Stream
from vpntun.core.endpoint import Endpoint, Outcome, Reachable
from vpntun.wire.message import Buffer


class RecordingUser:
    """Keeps messages, in `received`; peers that can be sent to again; and connections that have closed.

    `held_sent_later`: what became of held datagrams. `fitting`: headers that fit a session.
    """

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.can_send_again: list[Reachable | None] = []
        self.held_sent_later: list[tuple[str, Outcome, int, int]] = []
        self.closed: list[Stream] = []
        self.fitting: set[bytes] = set()

    def read_datagrams(self, source: DatagramSource) -> None:
        self.received += [bytes(message) for message, *_ in source.receive()]

    def read_stream(self, connection: Stream) -> None:
        self.received += [bytes(message) for message in connection.receive()]

    def can_send(self, peer: Reachable | None) -> None:
        self.can_send_again.append(peer)

    def held_sent(self, endpoint: Endpoint, outcome: Outcome, datagrams: int, size: int) -> None:
        self.held_sent_later.append((endpoint.where, outcome, datagrams, size))

    def fits_session(self, header: Buffer) -> bool:
        return bytes(header) in self.fitting

    def connection_closed(self, connection: Stream, peer: Reachable) -> None:
        self.closed.append(connection)
