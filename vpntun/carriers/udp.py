"""UDP carrier: sockets that all peers share, one for each IP version (udp_socket.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from vpntun.carriers.base import CarrierUser, ConnectionOwner, Stream
from vpntun.carriers.sockets import families, family_of
from vpntun.carriers.udp_socket import UdpSocket
from vpntun.config.tunnel import Tunnel
from vpntun.core.endpoint import Endpoint, Reachable
from vpntun.runtime.loop import Loop
from vpntun.types import SocketAddress, carriers_of


class UdpCarrier:
    """UDP for one tunnel: a socket for each IP version of this host, which all peers share.

    `port`: the port of every socket, 0 for any. `mark`: the mark of every packet, 0 for none. Raises PortInUse,
    PrivilegeError or VpntunError.
    """

    def __init__(
        self,
        loop: Loop,
        port: int,
        *,
        answers_from_where_asked: bool,
        mark: int = 0,
        versions: Iterable[int] | None = None,
    ) -> None:
        self._loop = loop
        self.sockets: dict[int, UdpSocket] = {}
        try:
            for family in families() if versions is None else versions:
                self.sockets[family] = UdpSocket(
                    family, port, loop, answers_from_where_asked=answers_from_where_asked, mark=mark
                )
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, tunnel: Tunnel, mark: int, loop: Loop) -> UdpCarrier:
        """Open this tunnel's sockets: none if peers call over other carriers only, and no peer is called."""
        listens = tunnel.listen_on is None or "udp" in carriers_of(tunnel.listen_on)
        needed = listens or any(peer.host for peer in tunnel.peers)
        return cls(
            loop,
            tunnel.port or 0,
            answers_from_where_asked=tunnel.listen_on is not None,
            mark=mark,
            versions=None if needed else (),
        )

    @property
    def can_call(self) -> bool:
        """Whether a socket is open."""
        return bool(self.sockets)

    @property
    def port(self) -> int:
        """The port of the socket of the first IP version; 0 without a socket."""
        return next((udp.port for udp in self.sockets.values()), 0)

    def start(self, user: CarrierUser) -> None:
        """Read datagrams from now on."""

        def write(udp: UdpSocket) -> None:
            if udp.flush(user.held_sent):
                user.can_send(None)

        for udp in self.sockets.values():
            self._loop.watch(udp.fileno(), partial(user.read_datagrams, udp), partial(write, udp))

    def candidate(self, address: SocketAddress) -> Endpoint | None:
        """Return the endpoint of an address; None if this host lacks its IP version."""
        udp = self.sockets.get(family_of(address))
        return udp.endpoint(address) if udp is not None else None

    def dial(self, candidate: Endpoint, owner: ConnectionOwner, on_done: Callable[[Stream | None], None]) -> None:
        """Fail: UDP has no connections."""
        on_done(None)

    def close_all_of(self, peer: Reachable) -> None:
        """Do nothing: UDP has no connections."""

    def close(self) -> None:
        """Close the sockets."""
        for udp in self.sockets.values():
            self._loop.forget(udp.fileno())
            udp.close()
