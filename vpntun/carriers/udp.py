"""UDP carrier: sockets that all peers share, one for each IP version (udp_socket.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial

from vpntun.carriers.base import CarrierUser, ConnectionOwner, Stream
from vpntun.carriers.sockets import families, family_of
from vpntun.carriers.udp_socket import UdpEndpoint, UdpSocket
from vpntun.config.tunnel import Tunnel
from vpntun.core.endpoint import Endpoint, Reachable
from vpntun.errors import VpntunError
from vpntun.runtime.log import log
from vpntun.runtime.loop import Loop
from vpntun.types import SocketAddress, carriers_of

SECONDS_BETWEEN = 10.0
MOST_FORMER = 16
"""Most former sockets in use by peers; with more, no fresh port is opened."""


class UdpCarrier:
    """UDP for one tunnel: a socket for each IP version of this host, which all peers share.

    While a peer that is called does not answer, it may be called from fresh sockets (`renew`). Peers whose links work
    stay at the former ones.

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
        self._port = port
        self._answers_from_where_asked = answers_from_where_asked
        self._mark = mark
        self._user: CarrierUser | None = None
        self._former: list[UdpSocket] = []
        self._renewed_at = -math.inf
        self.sockets = self._open(
            families() if versions is None else versions, port, answers_from_where_asked=answers_from_where_asked
        )

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
        self._user = user
        for udp in self.sockets.values():
            self._watch(udp, user)

    def candidate(self, address: SocketAddress) -> Endpoint | None:
        """Return the endpoint of an address; None if this host lacks its IP version."""
        udp = self.sockets.get(family_of(address))
        return udp.endpoint(address) if udp is not None else None

    def renew(self, in_use: Iterable[Endpoint]) -> bool:
        """Open sockets on fresh ports for all later candidates, as Carrier.renew; the mark stays.

        False where a port was asked for, where peers call, less than 10 s after the last time, and if none can be
        opened. The last sockets still receive until the next time: an answer may be on its way.
        """
        now, user = self._loop.now, self._user
        if user is None or self._port or self._answers_from_where_asked or now - self._renewed_at < SECONDS_BETWEEN:
            return False
        used = {endpoint.socket for endpoint in in_use if isinstance(endpoint, UdpEndpoint)}
        kept = [udp for udp in self._former if udp in used]
        if len(kept) > MOST_FORMER:
            return False
        fresh: dict[int, UdpSocket] = {}
        try:
            fresh = self._open(self.sockets, 0, answers_from_where_asked=False)
            for udp in fresh.values():
                self._watch(udp, user)
        except (OSError, VpntunError) as error:
            for udp in fresh.values():
                self._close(udp)
            log.info("no fresh UDP port could be opened: %s", error)
            return False
        for udp in self._former:
            if udp not in used:
                self._close(udp)
        self._former = [*kept, *self.sockets.values()]
        self.sockets = fresh
        self._renewed_at = now
        return True

    def prepare_port(self, port: int, stack: ExitStack, *, can_be_called: bool) -> Callable[[], None]:
        """Open sockets on another port, as Carrier.prepare_port. The change closes all former ones.

        A socket that has the port already, perhaps by the kernel's choice, is kept.
        """
        kept = {family: udp for family, udp in self.sockets.items() if port in (self._port, udp.port)}
        others = [family for family in self.sockets if family not in kept]
        fresh = self._open(others, port, answers_from_where_asked=can_be_called)
        for udp in fresh.values():
            stack.callback(udp.close)

        def change() -> None:
            former = [*self._former, *(self.sockets[family] for family in others)]
            self._port, self._answers_from_where_asked = port, can_be_called
            self._former, self.sockets = [], {family: (kept | fresh)[family] for family in self.sockets}
            for udp in kept.values():
                udp.answer_from_where_asked(can_be_called)
            if self._user is not None:
                for udp in fresh.values():
                    self._watch(udp, self._user)
            for udp in former:
                self._close(udp)

        return change

    def dial(self, candidate: Endpoint, owner: ConnectionOwner, on_done: Callable[[Stream | None], None]) -> None:
        """Fail: UDP has no connections."""
        on_done(None)

    def give_up_dials(self, owner: ConnectionOwner) -> None:
        """Do nothing: UDP has no connections."""

    def set_mark(self, mark: int) -> None:
        """Set the mark of every socket, as Carrier.set_mark."""
        for udp in (*self._former, *self.sockets.values()):
            udp.set_mark(mark)
        self._mark = mark

    def close_all_of(self, peer: Reachable) -> None:
        """Do nothing: UDP has no connections."""

    def close(self) -> None:
        """Close the sockets."""
        for udp in (*self._former, *self.sockets.values()):
            self._close(udp)

    def _open(self, versions: Iterable[int], port: int, *, answers_from_where_asked: bool) -> dict[int, UdpSocket]:
        opened: dict[int, UdpSocket] = {}
        try:
            for family in versions:
                opened[family] = UdpSocket(
                    family, port, self._loop, answers_from_where_asked=answers_from_where_asked, mark=self._mark
                )
        except BaseException:
            for udp in opened.values():
                udp.close()
            raise
        return opened

    def _watch(self, udp: UdpSocket, user: CarrierUser) -> None:
        def write() -> None:
            if udp.flush(user.held_sent):
                user.can_send(None)

        self._loop.watch(udp.fileno(), partial(user.read_datagrams, udp), write)

    def _close(self, udp: UdpSocket) -> None:
        self._loop.forget(udp.fileno())
        udp.close()
