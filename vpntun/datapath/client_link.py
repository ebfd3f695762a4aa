"""The link of a client: in addition it looks its peer's name up, and dials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from logging import INFO
from typing import cast

from vpntun.carriers.base import Path
from vpntun.carriers.tcp import ConnectionOwner, Dialling, TcpConnection
from vpntun.carriers.udp import UdpEndpoint
from vpntun.core.events import Dial, Event, PathVerified, Resolve
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.selection.client import ClientCarriers
from vpntun.core.wireguard.peer import Peer
from vpntun.datapath.link import Link
from vpntun.datapath.seal_buffer import SealBuffer
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Resolver
from vpntun.runtime.schedule import Schedule
from vpntun.wire.framing import SharedBuffer


class ClientLink(Link, ConnectionOwner):
    """A link whose control plane may ask for addresses and connections, which it owns."""

    def __init__(
        self,
        peer: Peer,
        selector: ClientCarriers,
        records: RecordProtocol,
        loop: Loop,
        schedule: Schedule,
        seal_buffer: SealBuffer,
        drops: Counter[str],
        name: str = "",
        *,
        resolver: Resolver,
        received: SharedBuffer,
        on_connection: Callable[[TcpConnection], None],
    ) -> None:
        super().__init__(peer, selector, records, loop, schedule, seal_buffer, drops, name)
        ConnectionOwner.__init__(self, received)
        self._client = selector
        self._resolver = resolver
        self._on_connection = on_connection
        self._connections: set[TcpConnection] = set()

    def stop(self) -> None:
        """End, hang up, and look no more names up."""
        super().stop()
        self._resolver.close()
        for connection in list(self._connections):
            connection.close()

    def resolved(self, candidates: list[UdpEndpoint]) -> None:
        """The addresses that the peer's name has now."""
        self.act(self._client.resolved(list(candidates), self._loop.now))

    def undeliverable(self, path: Path) -> list[Event]:
        """A handshake message cannot leave this host: another address may."""
        return self._client.undeliverable(path, self._loop.now)

    def ready(self, connection: TcpConnection) -> None:
        """The TCP connection takes data again."""
        self.on_ready()

    def closed(self, connection: TcpConnection) -> None:
        """The TCP connection has closed."""
        self._connections.discard(connection)
        if self._stopped:
            return
        self.lines.log(INFO, "the connection to %s has closed", self.at(connection))
        self.act(self._client.lost(connection, self._loop.now))

    def _act_on(self, event: Event) -> list[Event]:
        match event:
            case Resolve():
                self._resolver.look_up()
            case Dial(candidate):
                endpoint = cast(UdpEndpoint, candidate)
                Dialling(endpoint.family, endpoint.address, self._loop, self._dialled, self, endpoint.socket.mark)
            case PathVerified(path):
                return self._client.proved(path, self._loop.now)
            case _:
                return super()._act_on(event)
        return []

    def _dialled(self, connection: TcpConnection | None) -> None:
        if self._stopped:
            if connection is not None:
                self._on_connection(connection)
                connection.close()
        elif connection is None:
            self.lines.log(INFO, "no TCP connection could be opened; trying again")
            self.act(self._client.dial_failed(self._loop.now))
        else:
            self._connections.add(connection)
            self._on_connection(connection)
            self.act(self._client.dialled(connection, self._loop.now))
