"""UDP sockets: one message a datagram, or a burst of datagrams a call, over one socket for each IP version.

    out   UDP_SEGMENT sends many datagrams of one size by one call; where the path's device cannot, one call each
    in    arrivals.py

What the kernel has no room for is held until it has, and nothing is sealed meanwhile; so the newest message is never
lost between here and the wire. What this host cannot send at all (no route, a firewall) is dropped and counted, and
the link lives on. A server answers from the address that it was asked at.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from vpntun.carriers.arrivals import SOL_UDP, Receiver
from vpntun.carriers.base import Arrival
from vpntun.carriers.sockets import Ancillary, bind, marked, packed, scope_of
from vpntun.core.endpoint import Flow, Outcome, Reachable
from vpntun.runtime.loop import Loop
from vpntun.types import CarrierName, SocketAddress
from vpntun.wire.checksum import UDP
from vpntun.wire.message import Buffer

SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
BUFFER_SIZE = 4 * 1024 * 1024
MOST_KNOWN_ENDPOINTS = 1024
UDP_SEGMENT = 103
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23
PMTUDISC_DONT, PMTUDISC_PROBE = 0, 3
MOST_HELD = 8
STALE_SOURCE = frozenset({errno.ENETUNREACH, errno.EINVAL, errno.EADDRNOTAVAIL})

_u16 = struct.Struct("=H").pack


@dataclass(frozen=True, slots=True)
class UdpEndpoint:
    """A UDP address, and the address of this host that the peer knows (not compared: it is how, not who)."""

    family: int
    address: SocketAddress
    socket: UdpSocket = field(repr=False, compare=False)
    local: Ancillary = field(default=(), repr=False, compare=False)
    carrier: ClassVar[CarrierName] = "udp"
    is_stream: ClassVar[bool] = False

    @property
    def ipv6(self) -> bool:
        """Whether it goes over IPv6."""
        return self.family == socket.AF_INET6

    @property
    def where(self) -> str:
        """The peer's address and port."""
        host = f"[{self.address[0]}]" if self.family == socket.AF_INET6 else self.address[0]
        return f"{host}:{self.address[1]}"

    @property
    def flow(self) -> Flow:
        """The datagrams that it sends."""
        source = b""
        if self.local:
            source = self.local[0][2][:16] if self.ipv6 else self.local[0][2][4:8]
        address = self.address
        return Flow(UDP, source, self.socket.port, packed(address), address[1], scope_of(address))

    def __str__(self) -> str:
        return f"{self.where} over UDP"

    def clogged(self) -> bool:
        """Never: a datagram either leaves or is lost."""
        return False

    def ready(self) -> bool:
        """Whether the socket takes a datagram now."""
        return not self.socket.held

    def send(self, buffers: list[memoryview], segment: int = 0, *, dont_fragment: bool = True) -> Outcome:
        """Send one message, or datagrams of `segment` bytes; call it when `ready`."""
        return self.socket.send(buffers, segment, self, dont_fragment)

    def send_first(self, message: Buffer) -> Outcome:
        """Send one handshake or keepalive message."""
        return self.socket.send([memoryview(message)], 0, self, None)

    def expect(self, peer: Reachable) -> None:
        """There is no connection to keep."""

    def belongs_to(self, peer: Reachable) -> None:
        """Any peer may come from any address."""

    def hang_up_later(self) -> None:
        """There is nothing to close."""


_Held = tuple[list[memoryview], int, UdpEndpoint, bool | None]


class UdpSocket:
    """One bound socket of one IP version.

    `mark`: what its datagrams carry for this host's routing rules, 0 for nothing.
    """

    def __init__(self, family: int, port: int, loop: Loop, *, answers_from_where_asked: bool, mark: int = 0) -> None:
        self._family = family
        self._loop = loop
        self.mark = mark
        new = marked(socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK), mark)
        self._socket = bind(new, port, "UDP")
        self._known: dict[Any, UdpEndpoint] = {}
        self.held: deque[_Held] = deque(maxlen=MOST_HELD)
        """What waits for room in the kernel; nothing more is sealed meanwhile."""
        self._segments = True
        self._dont_fragment: bool | None = None
        for forced, allowed in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, forced, BUFFER_SIZE)
            except PermissionError:  # then as much as the system allows everybody
                self._socket.setsockopt(socket.SOL_SOCKET, allowed, BUFFER_SIZE)

        receiver = Receiver(self._socket, loop, self.endpoint, answers_from_where_asked=answers_from_where_asked)
        self.receive: Callable[[], Iterable[Arrival]] = receiver.receive
        """What waits, a bounded number of reads; each is valid until the next."""
        self.expect_bursts: Callable[[int], None] = receiver.expect_bursts
        """A burst of datagrams of so many bytes was read as one, and opened."""
        self.expect_pieces: Callable[[int], None] = receiver.expect_pieces
        """A record in datagrams of so many bytes opened by a piece that came alone."""
        self.came_whole: Callable[[int, int], None] = receiver.came_whole
        """A message of so many bytes, in so many datagrams, opened."""

    @property
    def port(self) -> int:
        """The port that it sends from; 0 until the kernel has chosen one."""
        return int(self._socket.getsockname()[1])

    def fileno(self) -> int:
        """The descriptor, for the loop."""
        return self._socket.fileno()

    def endpoint(self, address: SocketAddress, local: Ancillary = ()) -> UdpEndpoint:
        """The endpoint of an address; the same object for the same address mostly."""
        known = self._known.get((address, local))
        if known is None:
            if len(self._known) >= MOST_KNOWN_ENDPOINTS:
                self._known.clear()
            known = self._known[address, local] = UdpEndpoint(self._family, address, self, local)
        return known

    def send(
        self, buffers: list[memoryview], segment: int, endpoint: UdpEndpoint, dont_fragment: bool | None
    ) -> Outcome:
        """Send or hold datagrams, as Endpoint.send says. `dont_fragment` None: as the socket is set."""
        if self.held:
            return self._hold(buffers, segment, endpoint, dont_fragment)
        if dont_fragment is not self._dont_fragment and dont_fragment is not None:
            self._let_routers_cut(not dont_fragment)
        ancillary = endpoint.local
        if segment:
            if not self._segments:
                return self._send_one_by_one(buffers, segment, endpoint, dont_fragment)
            ancillary = (*ancillary, (SOL_UDP, UDP_SEGMENT, _u16(segment)))
        try:
            self._socket.sendmsg(buffers, ancillary, 0, endpoint.address)
        except BlockingIOError:
            return self._hold(buffers, segment, endpoint, dont_fragment)
        except OSError as error:
            return self._refused(error, buffers, segment, endpoint, dont_fragment)
        return Outcome.SENT

    def flush(self) -> bool:
        """Send what was held, now that the socket can be written again; return whether it accepts more."""
        while self.held:
            held = self.held.popleft()
            behind = list(self.held)
            self.held.clear()
            outcome = self.send(*held)
            self.held.extend(behind)
            if outcome is Outcome.HELD:
                return False
        self._loop.await_writable(self.fileno(), False)
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _refused(
        self, error: OSError, buffers: list[memoryview], segment: int, endpoint: UdpEndpoint, dont_fragment: bool | None
    ) -> Outcome:
        """The kernel would not send these: in another way, or not at all."""
        if endpoint.local and error.errno in STALE_SOURCE and not self._is_too_big(error, segment):
            return self.send(buffers, segment, self.endpoint(endpoint.address), dont_fragment)
        if error.errno == errno.EIO and segment:
            self._segments = False
            return self._send_one_by_one(buffers, segment, endpoint, dont_fragment)
        if not self._is_too_big(error, segment):
            return Outcome.UNDELIVERABLE
        if not dont_fragment and segment:  # the kernel cuts datagrams, but not those of UDP_SEGMENT
            return self._send_one_by_one(buffers, segment, endpoint, dont_fragment)
        return Outcome.TOO_BIG if dont_fragment else Outcome.UNDELIVERABLE

    def _hold(
        self, buffers: list[memoryview], segment: int, endpoint: UdpEndpoint, dont_fragment: bool | None
    ) -> Outcome:
        self.held.append(([memoryview(b"".join(buffers))], segment, endpoint, dont_fragment))
        self._loop.await_writable(self.fileno(), True)
        return Outcome.HELD

    def _send_one_by_one(
        self, buffers: list[memoryview], segment: int, endpoint: UdpEndpoint, dont_fragment: bool | None
    ) -> Outcome:
        """The device on the path has no UDP_SEGMENT."""
        burst = memoryview(b"".join(buffers))
        outcome = Outcome.SENT
        for at in range(0, len(burst), segment):
            outcome = self.send([burst[at : at + segment]], 0, endpoint, dont_fragment)
            if outcome is Outcome.HELD:
                self.held.clear()
                self._hold([burst[at:]], segment, endpoint, dont_fragment)
            if outcome is not Outcome.SENT:
                break
        return outcome

    def _let_routers_cut(self, allowed: bool) -> None:
        self._dont_fragment = not allowed
        mode = PMTUDISC_DONT if allowed else PMTUDISC_PROBE
        if self._family == socket.AF_INET:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, mode)
        else:
            self._socket.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, mode)

    @staticmethod
    def _is_too_big(error: OSError, segment: int) -> bool:
        """The kernel says EINVAL where UDP_SEGMENT's datagrams are too big for the device."""
        return error.errno == errno.EMSGSIZE or (error.errno == errno.EINVAL and segment > 0)
